"""What `asyncctl check` says, row by row, and what a check that an author declares is given.

A row is a name, a state, and a text that says what was found and what to do. A check only looks: it changes nothing,
neither in the cluster nor outside of it.
"""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from asyncctl.client.client import Client
from asyncctl.clock import Clock
from asyncctl.objects.json import Json, JsonObject
from asyncctl.observe.logs import Logger
from asyncctl.settings import Settings


class State(enum.StrEnum):
    """How it stands with one row."""

    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should look at it."""
    FAILED = "failed"
    """The program can't do its work so."""
    SKIPPED = "skipped"
    """It was not looked at; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at. `details` has the same for programs."""

    check: str
    state: State
    message: str
    details: JsonObject = field(default_factory=dict)


class NotReached(Exception):
    """Something that this check builds upon is not there; its row is skipped, with this text."""


class Checking:
    """What a check is given, and where it says what it has found::

        @operator.check("mail server")
        async def look(checking: Checking) -> None:
            checking.ok("mail.example.com answers")

    It may say several things, each with a `part`. What it raises makes a row that has failed.

    Attributes:
        settings: What the program is told; of the operator's settings class.
        logger: The log, for what is no row.
        clock: Time.
        rows: What was said so far.
    """

    def __init__(
        self, name: str, *, settings: Settings, logger: Logger, clock: Clock, client: Client | None, without: str = ""
    ) -> None:
        self.settings = settings
        self.logger = logger
        self.clock = clock
        self.rows: list[Row] = []
        self._name = name
        self._client = client
        self._without = without

    @property
    def client(self) -> Client:
        """The live client, which refuses every write. Raises `NotReached` where the API server was not reached."""
        if self._client is None:
            raise NotReached(self._without)
        return self._client

    def ok(self, message: str, *, part: str = "", **details: Json) -> None:
        """Say that it is as it should be.

        Args:
            message: What was found.
            part: Of what, where a check looks at several things.
            details: The same for programs, as JSON values.
        """
        self.say(State.OK, message, part, details)

    def warning(self, message: str, *, part: str = "", **details: Json) -> None:
        """Say that it works, but somebody should look at it: what was found, and what to do."""
        self.say(State.WARNING, message, part, details)

    def failed(self, message: str, *, part: str = "", **details: Json) -> None:
        """Say that the program can't do its work so: what was found, and what to do."""
        self.say(State.FAILED, message, part, details)

    def skipped(self, message: str, *, part: str = "", **details: Json) -> None:
        """Say that it was not looked at, and why."""
        self.say(State.SKIPPED, message, part, details)

    def say(self, state: State, message: str, part: str, details: JsonObject) -> None:
        """Add a row."""
        name = f"{self._name}: {part}" if part else self._name
        self.rows.append(Row(name, state, message, details))


Check = Callable[[Checking], Awaitable[None]]
"""Looks at something, and says what it has found."""
