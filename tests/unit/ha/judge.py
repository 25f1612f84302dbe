"""The API server of the simulator, and the judge of it: a Lease and some objects, by optimistic concurrency."""

from dataclasses import dataclass, field

import orjson

from asyncctl.client.errors import AlreadyExists, Conflict, Fenced, NotFound, Target
from asyncctl.ha.lease import LEASE

_TARGET = Target("update", LEASE.resource, "default", "l")


@dataclass
class Outcome:
    """What the server saw.

    Attributes:
        late: Writes of who was deposed that took effect: when, by how much after the takeover, who.
        overwritten: What a later leader had changed, and an earlier one then did.
        leads_after: Seconds after the last fault until somebody led.
        terms: How often the Lease was taken.
        writes: How many took effect.
        refused: How many the policy refused.
        trace: What happened, if it was asked for.
    """

    late: list = field(default_factory=list)
    overwritten: list = field(default_factory=list)
    leads_after: float | None = None
    terms: int = 0
    writes: int = 0
    refused: int = 0
    trace: list = field(default_factory=list)

    def __str__(self):
        return "\n".join(f"{when:8.3f}  {who:6}  {what}" for when, who, what in self.trace)


class Server:
    """The API server: a Lease and some objects, and the judge of who wrote what when."""

    def __init__(self, world):
        self._world = world
        self._version = 0
        self._lease = None
        self._holder = ""
        self._seen = [(0.0, "")]  # holders by when the policy knows of them
        self._terms = {}  # identity: the how manieth leader it is
        self._taken_at = 0.0
        self.objects = {}  # name: version, term of who wrote it

    def lease(self, verb, body):
        if verb == "get":
            if self._lease is None:
                raise NotFound(_TARGET, 404, {})
            return orjson.dumps(self._lease)
        lease = orjson.loads(body)
        if verb == "create":
            if self._lease is not None:
                raise AlreadyExists(_TARGET, 409, {})
        elif lease["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            raise Conflict(_TARGET, 409, {})
        lease["metadata"]["resourceVersion"] = str(self._next())
        self._lease = lease
        self._note(lease["spec"]["holderIdentity"])
        return orjson.dumps(lease)

    def _note(self, holder):
        if holder == self._holder:
            return
        world = self._world
        self._holder = holder
        if world.setup.policy is not None:
            self._seen.append((world.loop.now + world.random() * world.setup.policy, holder))
        if holder:
            self._taken_at = world.loop.now
            self._terms[holder] = world.outcome.terms = world.outcome.terms + 1
        if world.tracing:
            world.say("server", f"the Lease is held by {holder or 'nobody'}")

    def read(self):
        return {name: version for name, (version, _) in self.objects.items()}

    def write(self, who, name, version):
        """Create, when `version` is None, or update an object; returns its version."""
        world, outcome = self._world, self._world.outcome
        found = self.objects.get(name)
        if world.setup.policy is not None and not self._known_holder().startswith(who.partition("_")[0]):
            outcome.refused += 1
            world.say("server", f"refuses {who}")
            raise Fenced("asyncctl-fenced: somebody else leads")
        if found is not None and version is None:
            raise AlreadyExists(_TARGET, 409, {})
        if found is not None and world.setup.versioned and found[0] != version:
            raise Conflict(_TARGET, 409, {})
        term = self._terms[who]
        if term < outcome.terms:
            outcome.late.append((world.loop.now, world.loop.now - self._taken_at, who))
        if found is not None and found[1] > term:
            outcome.overwritten.append((world.loop.now, name, who))
        self.objects[name] = self._next(), term
        outcome.writes += 1
        if world.tracing:
            deposed = f" LATE by {world.loop.now - self._taken_at:.3f} s" if term < outcome.terms else ""
            world.say("server", f"{name} is written by {who}{deposed}")
        return self._version

    def _known_holder(self):
        known = [holder for since, holder in self._seen if since <= self._world.loop.now]
        return known[-1]

    def _next(self):
        self._version += 1
        return self._version
