"""Why a list or a watch has to be asked for again: in the words that are counted, and as what a person looks at."""

from asyncctl.client.errors import (
    Forbidden,
    KubernetesError,
    NamespaceBoundaryExceeded,
    NotFound,
    StatusError,
    StreamError,
    TLSError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)


def is_ahead(error: StatusError) -> bool:
    """Whether the server has not come as far as what was asked for: it lags, or was restored or replaced."""
    return any(cause.reason == "ResourceVersionTooLarge" for cause in error.causes) or (
        "Too large resource version" in error.server_message
    )


def cause_of(error: KubernetesError) -> str:
    """What `asyncctl_watch_restarts_total` calls it."""
    match error:
        case Forbidden() | Unauthorized():
            return "denied"
        case NotFound():
            return "missing"
        case TooManyRequests() | TransportError(sent=False):
            return "refused"
        case TransportError() | StreamError():
            return "broken"
        case _:
            return "error"


def matter_of(cause: str, error: KubernetesError) -> str:
    """What a person would look at. While the server or the way to it is away, error follows error: that is one."""
    match error:
        case TLSError():
            return type(error).__name__
        case TransportError() | StreamError() | TooManyRequests():
            return cause if cause == "probe" else "away"
        case StatusError() if error.code >= 500:
            return "away"
        case _:
            return type(error).__name__


def advice_on(error: Exception) -> str:
    """What the error does not say itself, to follow it."""
    needs_both = isinstance(error, Forbidden) and not isinstance(error, NamespaceBoundaryExceeded)
    return "; a cache needs the verbs list and watch" if needs_both else ""
