"""The life of one Database, from its creation to its end, in which its daemon may be killed at any single effect."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.cluster import Object, Team, is_running
from tests.e2e.forked import Forked
from tests.e2e.homes import Home
from tests.e2e.server import Superuser
from tests.e2e.wires import Cut, Effects, Wires

NAME = "orders"
QUIET = 0.15  # seconds without an effect, after which what is said later than the status has been said
POLL = 0.05
_ONCE = re.compile(r"made (?!events)|DELETE |CREATE (ROLE|DATABASE|SCHEMA|EXTENSION)|DROP (ROLE|DATABASE)")
_TIMES = {"lastTransitionTime", "lastReconcileTime", "lastRotationTime", "nextRotationTime", "databaseOID", "uid"}


@dataclass(frozen=True)
class Step:
    """One thing that is asked for, and when it is there."""

    name: str
    ask: Callable[["Life"], object]
    settled: Callable[["Life"], object]


@dataclass
class Life:
    """One Database in a namespace of its own, and the daemons that serve it, one after the other."""

    team: Team
    wires: Wires
    home: Home
    begin: Callable[[], Forked]
    crashes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = self.team.namespace.replace("-", "_")
        self.wires.alike = ((self.database, "$db"), (self.team.namespace, "$ns"))
        self.wires.effects = Effects()

    def object(self) -> Object:
        return self.team.database(NAME)

    @property
    def running(self) -> bool:
        return is_running(self.object())

    def roles(self) -> set[str]:
        """What its roles are called without its name."""
        superuser = self.home.superuser()
        roles = superuser.roles() if superuser else ()
        return {role.removeprefix(f"{self.database}_") for role in roles if self.database in role}

    def live(self, step: Step, cut: Cut = lambda _: None, *, deadline: float = 40.0, most: int = 150) -> list[str]:
        """Ask for it, and start one daemon after the other, until one is not crashed; returns what was asked for."""
        self.wires.effects.seen.clear()
        self.wires.cut = cut
        step.ask(self)
        for _ in range(most):
            self.wires.mend()
            daemon = self.begin()
            try:
                settled = self._settles(daemon, step, deadline)
            finally:
                daemon.kill()
            crashed_at = self.wires.at  # perhaps in the very last moment
            self.wires.mend()
            if settled and not crashed_at:
                return list(self.wires.effects.seen)
            self.crashes.append(crashed_at)
        raise AssertionError(f"{step.name}: still crashing after {most} times, last {self.crashes[-5:]}")

    def _settles(self, daemon: Forked, step: Step, deadline: float) -> bool:
        """Return whether the step settles, so that nothing more happens, before it is crashed."""
        end, quiet_since, count = time.monotonic() + deadline, 0.0, -1
        while not self.wires.crashed.wait(POLL):
            assert daemon.alive, daemon.text
            assert time.monotonic() < end, (
                f"{step.name} did not settle after {self.crashes[-1:]}: {self._plight(daemon)}"
            )
            if count != (count := self.wires.effects.count) or not step.settled(self):
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET:
                return True
        return False

    def _plight(self, daemon: Forked) -> str:
        status = self.object().get("status", {})
        return f"{json.dumps(status)}\n{daemon.text[-3000:]}"

    def end_state(self) -> dict[str, Any]:
        """All that has come of it, in words that are the same for any other life."""
        found, superuser = self.object(), self.home.superuser()
        return {
            "postgresql": superuser and superuser.portrait(self.database),
            "interior": superuser and superuser.interior(self.database),
            "objects": self._alike(self.home.objects()),
            "secrets": sorted(map(self._secret, self._secrets()), key=str),
            "status": self._alike(self._status(found.get("status"), superuser)),
            "finalizers": found.get("metadata", {}).get("finalizers"),
        }

    def counts(self) -> Counter[str]:
        """How often each thing was made or dropped, and a server started."""
        made = Counter(name for name in self.wires.effects.names if _ONCE.match(name))
        return made + Counter({"starts of a server": self.home.starts()})

    def logins_work(self) -> None:
        for secret in self._secrets():
            self.home.log_in(self.team.binding(secret["metadata"]["name"]))

    def _secrets(self) -> list[Object]:
        return [each for each in self.team.secrets() if each["type"] == "servicebinding.io/postgresql"]

    def _secret(self, secret: Object) -> Any:
        values = self.team.binding(secret["metadata"]["name"])
        password = values.pop("password")
        kept = {key: value.replace(password, "$password") for key, value in values.items()}
        meta = secret["metadata"]
        owned = [owner["name"] for owner in meta.get("ownerReferences", ())]
        noted = sorted(meta.get("annotations", ()))
        about = {"name": meta["name"], "labels": meta["labels"], "noted": noted, "owned": owned}
        return self._alike(about | {"values": kept})

    def _status(self, status: Any, superuser: Superuser | None) -> Any:
        if superuser and status:
            ((server,),) = superuser.ask("SELECT system_identifier::text FROM pg_control_system()")
            assert status["claim"].pop("systemIdentifier") == server
        return _without_times(status)

    def _alike(self, value: Any) -> Any:
        return json.loads(self.wires.name(json.dumps(value)))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in _TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
