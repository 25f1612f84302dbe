"""Why a list or a watch has to be asked for again, in the words that are counted."""

from asyncctl.client.errors import (
    Forbidden,
    KubernetesError,
    NamespaceBoundaryExceeded,
    NotFound,
    StatusError,
    StreamError,
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


def advice_on(error: Exception) -> str:
    """What the error does not say itself, to follow it."""
    needs_both = isinstance(error, Forbidden) and not isinstance(error, NamespaceBoundaryExceeded)
    return "; a cache needs the verbs list and watch" if needs_both else ""
