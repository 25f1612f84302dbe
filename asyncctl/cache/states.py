"""What a reflector is doing, or is about to do: its states, as types."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Streaming:
    """About to open a watch that begins with all there is: not older than `at_least`, or (None) the newest."""

    label: ClassVar[str] = "streaming"
    at_least: int | None


@dataclass(frozen=True, slots=True)
class Paging:
    """About to list in pages: not older than `at_least`, or (None) the newest."""

    label: ClassVar[str] = "paging"
    at_least: int | None


@dataclass(frozen=True, slots=True)
class Watching:
    """Watching, or about to, from the store's progress; `probed`: the server was just seen to have come as far."""

    label: ClassVar[str] = "watching"
    probed: bool = False


@dataclass(frozen=True, slots=True)
class Probing:
    """About to ask whether the server still knows our progress."""

    label: ClassVar[str] = "probing"


@dataclass(frozen=True, slots=True)
class BackingOff:
    """Waiting, then `then`."""

    label: ClassVar[str] = "backing_off"
    then: "Streaming | Paging | Watching | Probing"


State = Streaming | Paging | Watching | Probing | BackingOff
