"""An application that reads its Secret and logs in all the time, and notes each time that it could not."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.e2e.cluster import Team
from tests.e2e.waiting import POLL


class Application:
    """It relies on what it has read for `trusted` seconds, and keeps a session for as long; then it reads again.

    Attributes:
        logins: Under which names it has logged in, each time.
        failures: What it was told instead, and how long ago it had read what it used.
    """

    def __init__(self, team: Team, secret: str, *, trusted: float) -> None:
        self._team = team
        self._secret = secret
        self._trusted = trusted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"application of {secret}", daemon=True)
        self.logins: list[str] = []
        self.failures: list[str] = []

    @contextmanager
    def at_work(self) -> Iterator["Application"]:
        """It works for the length of the block; what befalls it otherwise is raised at the end of it."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(30)
            assert not self._thread.is_alive()

    def _work(self) -> None:
        while not self._over.is_set():
            read = time.monotonic()  # before it was sent: so much time has passed at the least
            try:
                binding = self._team.binding(self._secret)
            except OSError as error:
                self.failures.append(f"the Secret could not be read: {error!r}")
                return
            self._rely_on(binding, read)

    def _rely_on(self, binding: dict[str, str], read: float) -> None:
        doing = "the first login"
        try:
            with psycopg.connect(binding["uri"], autocommit=True) as kept:
                self.logins.append(binding["username"])
                doing = "another login"
                while time.monotonic() - read < self._trusted and not self._over.wait(POLL):
                    with psycopg.connect(binding["uri"]):
                        self.logins.append(binding["username"])
                doing = "a query in a session that was kept"
                kept.execute("SELECT 1")
        except psycopg.Error as error:
            self.failures.append(f"{doing}, {time.monotonic() - read:.3f} s after reading: {error}")
