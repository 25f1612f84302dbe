"""What is told of errors that nobody foresaw: each is counted and named, and its traceback is logged once.

A function that fails at every event must not fill the log: of what fails at one place, one line a second is written,
which says how many it stands for.
"""

import traceback
from dataclasses import dataclass

from asyncctl.cache.header import Header
from asyncctl.clock import Clock
from asyncctl.objects.resource import ResourceType
from asyncctl.observe.logs import Logger
from asyncctl.observe.metrics import ControllerMetrics

LINE = 1.0  # seconds between two lines about one place
_PLACES = 1000  # that are remembered
_FRAMES = 3  # innermost ones that make a place: few, since an error that is raised again gathers more and more

Place = tuple[object, ...]


@dataclass(slots=True)
class _Told:
    until: float
    missed: int = 0


class Faults:
    """Counts and tells of one controller's errors that are somebody's mistake.

    Args:
        controller: The controller's name.
        logger: Where to say it.
        metrics: Whose `panics` they are.
        clock: Time.
    """

    def __init__(self, controller: str, *, logger: Logger, metrics: ControllerMetrics, clock: Clock) -> None:
        self._logger = logger.bind(controller=controller)
        self._metrics = metrics
        self._clock = clock
        self._traced: set[Place] = set()
        self._told: dict[Place, _Told] = {}

    def panic(self, error: Exception) -> bool:
        """Count an error that ended a pass; True when its traceback was not logged yet, and is worth it."""
        self._metrics.panics.inc()
        return self._first_time(place_of(error))

    def function(self, what: str, error: BaseException, kind: ResourceType, header: Header) -> None:
        """Count and tell that an author's function, a mapper or a predicate, has failed on an object.

        Args:
            what: Which function, and what follows.
            error: What it raised.
            kind: Of the object.
            header: Of the object.
        """
        self._metrics.panics.inc()
        place = place_of(error)
        now = self._clock.monotonic()
        told = self._told.get(place)
        if told is not None and now < told.until:
            told.missed += 1
            return
        if told is None and len(self._told) >= _PLACES:
            self._told.clear()
        self._told[place] = _Told(now + LINE)
        self._logger.error(
            "an author's function has failed", function=what,
            kind=str(kind), namespace=header.namespace, name=header.name,
            error=f"{type(error).__name__}: {text_of(error)}", failures=1 + (told.missed if told else 0),
            exc_info=error if self._first_time(place) else None,
        )  # fmt: skip

    def _first_time(self, place: Place) -> bool:
        if place in self._traced or len(self._traced) >= _PLACES:
            return False
        self._traced.add(place)
        return True


def text_of(error: BaseException) -> str:
    """What an error says, else what it is; also where its text can't be made, which must not end the worker."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - an author's `__str__` may do anything
        return f"a {type(error).__name__} whose text can't be made"


def place_of(error: BaseException) -> Place:
    """Where an error comes from: what it is, and the lines that led to it; of a group, each in it."""
    if isinstance(error, ExceptionGroup):
        return type(error), *map(place_of, error.exceptions)
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return type(error), *frames[-_FRAMES:]
