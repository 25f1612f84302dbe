"""One candidate's campaign for the Lease: wait for it, take it, renew it, give it back.

A coroutine over a clock and a function that asks the API server, and nothing else: it opens nothing and starts no task,
so that a test can run thousands of campaigns in virtual time. Another's Lease is judged by the local monotonic time
since its record last changed and by the duration in the record; clocks are never compared (client-go's
`tools/leaderelection`, whose records these are). Monotonic for others and `Clock.boot` for ourselves: while a machine
sleeps, what it knows of others gets no older, and its own right to write does; both are the safe side.

Who takes a Lease waits for `duration` by its own clock after it saw the last renewal; who holds it writes until
`renew_deadline` after it sent that renewal. With clocks that go wrong by a fraction `d`, a write takes effect before
anybody else can lead, when there is less than `duration / (1 + d) - renew_deadline / (1 - d)` between the fence's check
and the effect: 5 s with the default times and good clocks, 3.7 s with 5 %.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson

from asyncctl.client.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    StatusError,
    Target,
    TransportError,
    not_an_object,
)
from asyncctl.clock import Clock, Timer
from asyncctl.ha import lease as record
from asyncctl.ha.fence import Fence
from asyncctl.ha.lease import LeaseSettings
from asyncctl.objects.json import JsonObject
from asyncctl.observe.logs import Logger
from asyncctl.queue.backoff import Random

Ask = Callable[[Target, bytes | None, float], Awaitable[bytes]]
"""Sends a body, or none, to what the target says, and returns the body of the answer; raises `KubernetesError`. It is
cancelled when it has not done so in as many seconds."""

FAREWELL = 4.0  # seconds in which the Lease is given back, or else is left to lapse
_GRACE = 1.0  # seconds of them for the answer to what is on its way
_JITTER = 0.2  # of the retry period by which a wait may be shorter, so that candidates do not run in step
_MOMENT = 0.01  # seconds; the least that is waited for between two tries
_LOOK = 0.5  # seconds between two looks at a main loop that is stuck
_STOPPED = "this process, or its machine, was stopped"
_FOREVER = float("inf")


class Campaign:
    """A candidate for one Lease. `run` is the campaign; what is called from another thread says so.

    Args:
        identity: Who it is; no other candidate ever has the same.
        settings: Which Lease, and its times.
        fence: Opened by each renewal, shut for good at the end.
        ask: Asks the API server.
        clock: All its time.
        random: Of jitter.
        logger: For what happens to the Lease.
        stuck: Why the Lease should not be renewed now: nobody would notice its loss.
        on_won: Called when it begins to lead.
        on_end: Called when it ceases to.
    """

    def __init__(
        self,
        identity: str,
        settings: LeaseSettings,
        fence: Fence,
        ask: Ask,
        *,
        clock: Clock,
        random: Random,
        logger: Logger,
        stuck: Callable[[], str | None] = lambda: None,
        on_won: Callable[[], object] = lambda: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._fence = fence
        self._ask = ask
        self._clock = clock
        self._random = random
        self._logger = logger
        self._stuck = stuck
        self._on_won = on_won
        self._on_end = on_end
        self._limit = max(1.0, settings.renew_deadline / 2)  # seconds for one request
        self._renew_at = 0.0  # when the Lease is to be renewed: from when the last renewal was sent
        self._ends = _FOREVER  # when the last request has to be answered
        self._called_off: float | None = None  # when
        self._hasten: Callable[[float], object] | None = None  # lets what is waited for end in so many seconds
        self._maybe_ours = False  # the Lease, by a write of ours that was answered, or may have been made without
        self._said: set[str] = set()
        self.lost: str | None = None
        """Why the Lease was lost, when it was."""
        self.problem: str | None = None
        """What keeps it from leading, or its Lease from being renewed; None when nothing does."""
        self.blocked: str | None = None
        """Why it can't even campaign: a right, or the namespace, is missing."""
        self.holder = ""
        """Who held the Lease when it was last seen; empty for nobody."""

    async def run(self) -> None:
        """The whole campaign: returns when the Lease is lost, or given back after `call_off`."""
        lease = await self._acquire()
        if lease is not None:
            lease = await self._hold(lease)
        if self.lost is None and self._maybe_ours:
            await self._give_back(lease)

    def call_off(self) -> None:
        """Give the Lease back, if it is ours, and end. Call it after the last write was answered."""
        if self._called_off is None:
            self._called_off = self._clock.monotonic()
            self._ends = min(self._ends, self._called_off + _GRACE)  # of what may be asked after that, too
            self._end_wait(_GRACE)

    def lose(self, reason: str) -> None:
        """The Lease counts as lost from this moment; from any thread. `wake` lets the campaign end, too."""
        self._fence.revoke(reason)
        if self.lost is None:
            self.lost = self.problem = reason
            self._logger.error("the Lease is lost", cause=reason)
            self._on_end()

    def wake(self) -> None:
        """Let the campaign see at once what was done to it."""
        self._end_wait(0.0)

    @property
    def _ending(self) -> bool:
        return self._called_off is not None or self.lost is not None

    def _may_write(self) -> bool:
        try:
            return self._fence() > 0
        except Fenced:
            return False

    async def _acquire(self) -> JsonObject | None:
        """Wait for the Lease and take it; None when the campaign was called off."""
        seen: JsonObject | None = None
        seen_at = 0.0
        while not self._ending:
            until = self._next_try(self._clock.monotonic())
            try:
                lease = await self._read()
                now = self._clock.monotonic()
                # One that is deleted is waited for as it was seen last: its holder may write until it looks again.
                # And a label is no sign of life.
                if seen is None or (record.exists(lease) and lease.get("spec") != seen["spec"]):
                    self._remark(lease)
                    seen, seen_at = {"spec": lease.get("spec")}, now
                free_at = seen_at + record.duration(seen, self._settings.duration)
                if record.holder(seen) and not record.held_by(seen, self._identity) and now < free_at:
                    self._wait_for(seen)
                    until = min(until, free_at)
                elif not self._ending:
                    lease = await self._take(lease)
                    if self._may_write():  # else the answer came too late
                        self.problem = self.blocked = None
                        self._logger.info("became the leader", identity=self._identity)
                        self._on_won()
                        return lease
            except (Conflict, AlreadyExists):  # another candidate was faster
                self.blocked = None
            except KubernetesError as error:
                self._explain(error)
            await self._wait(until)
        return None

    async def _hold(self, lease: JsonObject) -> JsonObject:
        """Renew until it is called off, or has failed for too long; returns the Lease as it was last seen."""
        trouble, until = _STOPPED, self._renew_at
        while True:
            await self._wait(until)
            if self._ending:
                break
            now = self._clock.monotonic()
            try:
                self._ends = now + self._fence()
            except Fenced:
                self.lose(f"it could not be renewed within {self._settings.renew_deadline:g} s: {trouble}")
                break
            try:
                if stuck := self._stuck():
                    trouble, until = stuck, now + _LOOK
                else:
                    lease = await self._renew(lease)
                    trouble, until = _STOPPED, self._renew_at
                    if self.problem is not None and not self._ending:
                        self.problem = None
                        self._logger.info("the Lease is renewed again")
                    continue
            except _Lost as error:
                self.lose(str(error))
                break
            except KubernetesError as error:
                trouble, until = self._advice(error), self._next_try(now)
            if not self._ending:
                before, self.problem = self.problem, f"could not renew: {trouble}"
                if before is None:  # once, however it changes: the last is told with the loss
                    self._logger.warning("leading, with trouble", cause=self.problem)
            until = min(until, max(self._ends, self._clock.monotonic() + _MOMENT))  # no later than it is lost
        if self.lost is None:
            self._maybe_ours = self._may_write()  # else a write may have been given up on its way: let it lapse
            self._fence.revoke("the Lease was given back")
            self._on_end()
        return lease

    async def _renew(self, lease: JsonObject) -> JsonObject:
        try:
            try:
                return await self._take(lease)
            except Conflict:
                live = await self._read()
            if record.held_by(live, self._identity):  # only its metadata was touched, or our own answer was lost
                return await self._take(live)
        except Conflict as error:
            raise _Lost("somebody else has changed the Lease") from error
        except NotFound as error:
            if error.no_such_kind:  # a server, or what is before it, that is not itself
                raise
            raise _Lost("the Lease was deleted") from error
        if not record.exists(live):
            raise _Lost("the Lease was deleted")
        raise _Lost(f"somebody else has changed the Lease: {record.holder(live) or 'nobody'} holds it now")

    async def _take(self, lease: JsonObject) -> JsonObject:
        sent, renew_at = self._clock.boot(), self._next_try(self._clock.monotonic())
        taken = record.taken(lease, self._identity, self._clock.now(), self._settings.duration)
        before, self._maybe_ours = self._maybe_ours, True
        try:
            answer = await self._write(taken)
        except StatusError as error:
            if error.code < 500:
                self._maybe_ours = before
            raise
        self._fence.extend(sent + self._settings.renew_deadline)
        self._renew_at = renew_at
        return answer

    async def _give_back(self, lease: JsonObject | None) -> None:
        """Empty the holder, if that is us. `lease` is the Lease as it was last seen."""
        self._ends = (self._called_off or 0.0) + FAREWELL
        self._limit = FAREWELL / 2
        tried, trouble = False, "there was no time"
        while self._ends > self._clock.monotonic():
            try:
                lease = lease or await self._read()
                if record.held_by(lease, self._identity):
                    tried = True
                    await self._write(record.released(lease, self._clock.now()))
            except KubernetesError as error:
                lease, trouble = None, str(error)
                if not isinstance(error, Conflict):  # it was touched, or the answer of our last renewal was lost
                    await self._clock.sleep(min(_LOOK, self._ends - self._clock.monotonic()))
            else:
                self._logger.info("gave the Lease back" if tried else "the Lease was not ours any more")
                return
        self._logger.warning("the Lease could not be given back; the next leader has to wait", error=trouble)

    async def _read(self) -> JsonObject:
        try:
            return await self._send("get", None)
        except NotFound as error:
            if error.no_such_kind:
                raise
            return record.new(self._settings.namespace, self._settings.name)

    async def _write(self, lease: JsonObject) -> JsonObject:
        return await self._send("update" if record.exists(lease) else "create", orjson.dumps(lease))

    async def _send(self, verb: str, body: bytes | None) -> JsonObject:
        target = Target(verb, record.LEASE.resource, self._settings.namespace, self._settings.name)
        seconds = min(self._limit, self._ends - self._clock.monotonic())
        try:
            async with self._at_most(seconds):
                reply = await self._ask(target, body, seconds)
        except TimeoutError as error:
            raise TransportError(f"{target}: no answer within {seconds:.1f} s", sent=True) from error
        try:
            found = orjson.loads(reply)
        except orjson.JSONDecodeError as error:
            raise not_an_object(target, reply) from error
        if not record.is_lease(found):
            raise not_an_object(target, reply)
        lease: JsonObject = found
        self.holder = record.holder(lease)
        return lease

    @asynccontextmanager
    async def _at_most(self, seconds: float) -> AsyncIterator[None]:
        """`asyncio.timeout` by our own clock; it can be brought forward. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:

            def expire() -> None:
                if not scope.expired():
                    scope.reschedule(loop.time())

            def within(left: float) -> None:
                timers.append(self._clock.call_at(self._clock.monotonic() + left, expire))

            timers: list[Timer] = []
            within(seconds)
            self._hasten = within
            try:
                yield
            finally:
                self._hasten = None
                for timer in timers:
                    timer.cancel()

    async def _wait(self, until: float) -> None:
        """Return then, or as soon as it is called off or lost."""
        if self._ending:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake(_: float = 0.0) -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self._clock.call_at(until, wake)
        self._hasten = wake
        try:
            await woken
        finally:
            self._hasten = None
            timer.cancel()

    def _end_wait(self, seconds: float) -> None:
        if self._hasten is not None:
            self._hasten(seconds)

    def _next_try(self, now: float) -> float:
        """When to try again what is tried now: a request that takes long is a wait, too."""
        return now + self._settings.retry_period * (1.0 - _JITTER * self._random())

    def _advice(self, error: KubernetesError) -> str:
        namespace = self._settings.namespace
        if isinstance(error, NotFound) and error.details.get("kind") == "namespaces":  # it says to create it
            return f"{error}, or set ASYNCCTL_LEASE_NAMESPACE to one that is there"
        if isinstance(error, Forbidden):
            return (
                f"{error}; the operator needs a Role in namespace {namespace!r} with get, create and update on "
                "leases.coordination.k8s.io"
            )
        if isinstance(error, Fenced):
            return (
                f"{error}; this fence is for another Lease: let `asyncctl manifests` make the one for Lease "
                f"{namespace}/{self._settings.name}, or set ASYNCCTL_LEASE_NAME and ASYNCCTL_LEASE_NAMESPACE to its own"
            )
        return str(error)

    def _explain(self, error: KubernetesError) -> None:
        """Why it does not lead."""
        problem = self._advice(error)
        self.blocked = problem if isinstance(error, Fenced | Forbidden | Invalid | NotFound) else None
        self._warn("not leading", problem)

    def _remark(self, lease: JsonObject) -> None:
        """What is odd about a Lease, once."""
        metadata = lease["metadata"]
        if any(metadata.get(key) for key in ("labels", "ownerReferences")) and "metadata" not in self._said:
            self._said.add("metadata")
            self._logger.info(
                "the Lease has labels or owners, which are kept; if it is another program's, set ASYNCCTL_LEASE_NAME",
                labels=metadata.get("labels"),
                owners=[owner.get("name") for owner in metadata.get("ownerReferences") or ()],
            )
        for field, problem in record.oddities(lease, self._settings.duration):
            if field not in self._said:
                self._said.add(field)
                self._logger.warning("the Lease's record is odd", cause=f"{field} {problem}")

    def _wait_for(self, lease: JsonObject) -> None:
        """That another one leads is how a standby should be, and no more than news."""
        self.blocked = None
        problem = f"{record.holder(lease)} leads"
        if (seconds := record.duration(lease, self._settings.duration)) > self._settings.duration:
            problem += f", by a Lease that is free when it was not renewed for {seconds:g} s"
        if self.problem != problem:
            self.problem = problem
            self._logger.info("not leading", cause=problem)

    def _warn(self, what: str, problem: str) -> None:
        if self.problem != problem and not self._ending:
            self.problem = problem
            self._logger.warning(what, cause=problem)


class _Lost(Exception):
    """The Lease is not ours any more."""
