"""`Condition` (metav1.Condition) and the view through which a controller sets them.

There is no clock here: what was set has no generation, and what is new or has flipped has no transition time, until
`Conditions.stamp` is called by whoever writes the status.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from asyncctl.objects.base import Meta, Part, field, list_map

ConditionStatus: TypeAlias = Literal["True", "False", "Unknown"]

_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
_MESSAGE_LENGTH = 32768


class Condition(Part):
    """One aspect of the state of an object."""

    type: Annotated[str, Meta(min_length=1, max_length=316)]
    """The aspect, in CamelCase."""
    status: ConditionStatus
    """Whether it is so."""
    reason: Annotated[str, Meta(min_length=1, max_length=1024, pattern=_REASON)]
    """Why, in one CamelCase word for programs."""
    message: Annotated[str, Meta(max_length=_MESSAGE_LENGTH)]
    """Why, in words for people."""
    observed_generation: Annotated[int, Meta(ge=0)] | None = None
    """The metadata.generation that this was said of."""
    last_transition_time: datetime | None = None
    """When the status last flipped."""


class Conditions:
    """The conditions of one status, sorted by type; a view that changes the status' own list."""

    __slots__ = ("_conditions",)

    def __init__(self, conditions: list[Condition]) -> None:
        self._conditions = conditions

    def __iter__(self) -> Iterator[Condition]:
        return iter(self._conditions)

    def __len__(self) -> int:
        return len(self._conditions)

    def __contains__(self, type: object) -> bool:  # noqa: A002
        return any(condition.type == type for condition in self._conditions)

    def __repr__(self) -> str:
        return f"Conditions({', '.join(f'{c.type}={c.status} {c.reason}' for c in self._conditions)})"

    def get(self, type: str) -> Condition | None:  # noqa: A002
        """Return the condition of that type, or `None`."""
        return next((condition for condition in self._conditions if condition.type == type), None)

    def set(self, type: str, status: bool | None, reason: str, message: str = "") -> Condition:  # noqa: A002, FBT001
        """Say that a condition is so (True), is not so (False) or can't be told (None).

        Args:
            type: the aspect, such as `Ready`.
            status: True, False, or None for Unknown.
            reason: one CamelCase word for programs, such as `Provisioned`.
            message: a sentence for people; cut at the 32768 characters that the API allows.

        Returns:
            The condition as it now stands. Its transition time is kept unless the status flips.

        Raises:
            ValueError: the reason is not one word; the API server would refuse the whole status.
        """
        if not re.match(_REASON, reason):
            raise ValueError(f"condition {type}: the reason must be one CamelCase word, not {reason!r}")
        said: ConditionStatus = "Unknown" if status is None else "True" if status else "False"
        before = self.get(type)
        condition = Condition(
            type=type,
            status=said,
            reason=reason,
            message=message[:_MESSAGE_LENGTH],
            last_transition_time=before.last_transition_time if before and before.status == said else None,
        )
        self.remove(type)
        self._conditions.append(condition)
        self._conditions.sort(key=lambda each: each.type)
        return condition

    def remove(self, type: str) -> None:  # noqa: A002
        """Forget the condition of that type, if there is one."""
        self._conditions[:] = [condition for condition in self._conditions if condition.type != type]

    def stamp(self, now: datetime, generation: int | None) -> None:
        """Fill in what `set` left open.

        Args:
            now: the wall clock, with a time zone; kept to the second, as the API does.
            generation: `metadata.generation` of the object that the conditions were said of.
        """
        for condition in self._conditions:
            if condition.last_transition_time is None:
                condition.last_transition_time = now.replace(microsecond=0)
            if condition.observed_generation is None:
                condition.observed_generation = generation


class Status(Part):
    """What is so: the base of a kind's `status`. The runtime fills in `observed_generation`."""

    observed_generation: Annotated[int, Meta(ge=0)] | None = None
    """The metadata.generation that this status was made from."""
    condition_list: Annotated[list[Condition], Meta(extra_json_schema=list_map("type"))] = field(
        name="conditions", default_factory=list
    )
    """The aspects of the state, each with its reason."""

    @property
    def conditions(self) -> Conditions:
        """The conditions, to be read and set."""
        return Conditions(self.condition_list)

    def summarize(self) -> None:
        """Make what follows from the conditions follow: called before each write of the status.

        For a kind whose status says something twice, such as a phase beside the conditions. `Stalled` is set by the
        runtime when the pass is over, so that only here both can be kept the same.
        """
