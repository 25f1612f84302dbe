"""What follows from a pass: what the queue does next, what is logged and counted, and whether the object is parked.

The table of `outcome` is carried out here. What nobody foresaw is logged with its traceback, once for each place.
"""

from collections.abc import Callable
from typing import Any

from asyncctl.cache.header import Key
from asyncctl.client.errors import KubernetesError
from asyncctl.controller.context import Context
from asyncctl.controller.declaration import Declaration
from asyncctl.controller.environment import Environment
from asyncctl.controller.faults import Faults, text_of
from asyncctl.controller.outcome import (
    Failure,
    NotOwned,
    Requeue,
    TerminalError,
    TookTooLong,
    TransientError,
    classify,
    leaves,
    retry_after,
)
from asyncctl.controller.parking import Parking
from asyncctl.controller.stalled import has_conditions, set_stalled, stalled
from asyncctl.objects.codec import DecodeError
from asyncctl.objects.conditions import Condition
from asyncctl.objects.json import JsonObject
from asyncctl.objects.resource import Resource
from asyncctl.observe.logs import Logger, without_secrets
from asyncctl.observe.metrics import ControllerMetrics, Result
from asyncctl.queue.backoff import Random, spread
from asyncctl.queue.work_queue import WorkQueue

PARKED = 600.0  # seconds, ±20 %, between the slow retries of a parked key
_KNOWN = (KubernetesError, TerminalError, TransientError, NotOwned, DecodeError, TookTooLong)  # no bug of the author's


class Aftermath:
    """Carries out what a pass of one controller has come to."""

    def __init__(
        self, declaration: Declaration[Any], environment: Environment, queue: WorkQueue[Key],
        parking: Parking, faults: Faults, *, retry_limit: int, random: Random, metrics: ControllerMetrics,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._queue = queue
        self._parking = parking
        self._faults = faults
        self._retry_limit = retry_limit
        self._random = random
        self._metrics = metrics
        self._has_conditions = has_conditions(declaration.kind)

    def no_pass(self, key: Key) -> None:
        """There was nothing to do, and nothing failed."""
        self._queue.forget(key)
        self._parking.leave(key)

    def success(self, key: Key, requeue: Requeue | None, *, gone: bool) -> Result:
        """The pass has returned; `gone`: its object is no more."""
        self.no_pass(key)
        if gone or requeue is None:
            return "success"
        self._queue.add(key, after=spread(requeue.seconds, 0.1, self._random))
        return "requeue_after"

    def failure(self, key: Key, ctx: Context | None, error: Exception, *, parks: bool) -> Result:
        """The pass has failed; `parks` is what was said of it."""
        failure = classify(error)
        log = ctx.log if ctx is not None else self._log(key)
        known = all(isinstance(each, _KNOWN) for each in leaves(error))
        if failure is Failure.TERMINAL:
            self._metrics.terminal_errors.inc()
        if not parks:  # it is tried again soon, whatever an earlier pass had to say
            self._parking.leave(key)
        trace = not known and self._faults.panic(error)
        if failure is Failure.FAST and not parks:
            failures = self._queue.failures(key)
            delay = self._queue.retry_fast(key)
            tell = log.debug if self._queue.failures(key) == failures else log.warning
            tell("somebody else wrote the object first", error=_logged(error), retry_in=round(delay, 3))
            return "requeue"
        counted = failure is not Failure.UNCOUNTED
        at_least = spread(PARKED, 0.2, self._random) if parks else retry_after(error)
        delay = self._queue.retry(key, counted=counted, at_least=at_least)
        text = _logged(error)
        exc_info = error if trace else None
        if not parks:
            tell = log.debug if _is_told(error) else log.warning
            tell("the pass has failed", error=text, retry_in=round(delay, 3), exc_info=exc_info)
        elif self._parking.enter(key):
            log.error("parked until the object changes", error=text, retry_in=round(delay, 3), exc_info=exc_info)
        return "error"

    def parks(self, key: Key, error: Exception) -> bool:
        """Whether a pass that failed by `error` leaves its key parked."""
        failure = classify(error)
        counts = failure is Failure.COUNTED or (failure is Failure.FAST and self._queue.conflicts_count(key))
        return failure is Failure.TERMINAL or (counts and self._queue.failures(key) + 1 >= self._retry_limit)

    def mark(
        self, key: Key, obj: Resource | JsonObject, before: Condition | None, error: Exception | None, *, parks: bool
    ) -> bool:
        """Keep the condition `Stalled` of the object; True when it is news that it is parked, for this reason.

        Args:
            key: Of the object.
            obj: The object, as the pass has left it.
            before: The condition when the pass began.
            error: What the pass has failed by.
            parks: Whether that parks it.
        """
        if parks and error is not None:
            reason, message = stalled_reason(error), told(error)
            if not self._has_conditions or not set_stalled(
                obj, True, reason, message, now=self._environment.clock.now()
            ):
                return key not in self._parking
            return before is None or (before.status, before.reason) != ("True", reason)
        if error is None and before and before.status == "True" and stalled(obj) is before:
            set_stalled(obj, False, "Reconciled", "", now=self._environment.clock.now())
        return False

    def _log(self, key: Key) -> Logger:
        kind = self._environment.resource
        return self._environment.logger.bind(
            controller=self._environment.controller, controllerGroup=kind.group, controllerKind=kind.kind,
            namespace=key[0], name=key[1],
        )  # fmt: skip


def _is_told(error: Exception) -> bool:
    """Whether the log has all of it already."""
    return all(isinstance(each, TransientError) and each.told for each in leaves(error))


def stalled_reason(error: Exception) -> str:
    """The reason of the condition, and of the event."""
    reasons = (each.reason for each in leaves(error) if isinstance(each, TerminalError))
    return next(reasons, "RetryLimitExceeded")


def told(error: Exception) -> str:
    """What a pass has failed by, for who has the object: the words of the error, or its class where it has none.

    A single word needs the class as well: `'size'` is all that a `KeyError` says. It goes into the object's status and
    its events, so what looks like a credential is left out, as in the log.
    """
    return _of_each(error, lambda text: " " not in text)


def _logged(error: Exception) -> str:
    """The same for who has the code: what nobody foresaw always with its class."""
    return _of_each(error, lambda _: True)


def _of_each(error: Exception, wants_class: Callable[[str], bool]) -> str:
    said: dict[str, None] = {}
    for each in leaves(error):
        text, name = text_of(each), type(each).__name__
        bare = isinstance(each, _KNOWN) or text == name or not wants_class(text)
        said[text if bare else f"{name}: {text}"] = None
    return without_secrets("; ".join(said))
