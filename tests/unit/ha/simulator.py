"""Three candidates, their clocks, a network and an API server, in virtual time and from a seed.

The campaigns and fences are the real ones; the server knows a Lease and some objects, both by optimistic concurrency.
Each candidate also writes as the runtime does: what it changes it has read since it leads, updates carry the version
that was read, creates have the names that any other would give them; the fence is asked as a write is handed to the
network, and what is left caps the wait for its answer. A process that lost its Lease ends and is started anew; one that
is told to stop waits for its writes, gives up those that take too long, and gives the Lease back when these have had
their time.

What happens to them until `FAULTS`: they are stopped (the clock goes on), suspended (the monotonic clock does not),
killed, asked to stop; their requests or answers are cut off, lost or slow; their clocks go wrong. What the server did
is judged here, not what anybody thinks of it.
"""

from dataclasses import dataclass, replace
from random import Random

from asyncctl.client.errors import Fenced, KubernetesError
from asyncctl.ha.campaign import Campaign
from asyncctl.ha.fence import Fence
from asyncctl.ha.lease import LeaseSettings
from tests.unit.ha.judge import Outcome, Server
from tests.unit.ha.virtual import LocalClock, Loop

FAULTS = 36.0  # seconds in which things go wrong
OBJECTS = 4
DRAIN = 1.0  # seconds that a process which is told to stop waits for its writes
WORKERS = 6
LANES = ("lease", "write")
FAULTS_OF_A_HOST = (
    "stopped", "suspended", "requests cut", "answers cut", "partitioned", "losing messages", "slow", "killed",
    "SIGTERM", "writes slow, SIGTERM", *["cut from the Lease, writes slow"] * 3,
)  # fmt: skip
_QUICK = 0.05  # seconds that a message takes at the most, while nothing is wrong


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is promised, and what of it is broken. Times in seconds.

    Attributes:
        lease: The Lease's duration.
        renew: The renew deadline.
        retry: The retry period.
        drift: By how much a clock may go wrong, as a fraction.
        slow: What a message takes at the most; None: as much as the promise bears.
        gap: For how long a process may be stopped between the fence's check and the send.
        policy: How late the server knows the Lease that it refuses by; None: it refuses nobody.
        fenced: The fence is asked.
        booted: The fence goes by the boot clock.
        versioned: What is written carries the version that was read.
        drained: The Lease is given back only when every write was answered, or given up.
        settled: And when what was given up has had the time that the bound says.
    """

    lease: float = 9.0
    renew: float = 6.0
    retry: float = 2.5
    drift: float = 0.05
    slow: float | None = None
    gap: float = 0.0
    policy: float | None = None
    fenced: bool = True
    booted: bool = True
    versioned: bool = True
    drained: bool = True
    settled: bool = True

    @property
    def margin(self):
        """Seconds from check to effect in which nobody else can lead."""
        return self.lease / (1 + self.drift) - self.renew / (1 - self.drift)

    @property
    def slowest(self):
        return 0.999 * self.margin if self.slow is None else self.slow

    @property
    def leads_within(self):
        """Seconds after the last fault in which somebody leads: the issue's lease + retry, by the slowest clock.

        Before them, what was sent in the time of faults arrives or is given up; then a candidate looks within a retry
        period, and again when the Lease is free; each look is a question and an answer, and so is the taking.
        """
        lost = max(self.slowest, max(1.0, self.renew / 2) / (1 - self.drift))
        return lost + (self.lease + self.retry) / (1 - self.drift) + 6 * _QUICK


class Silence:
    """A logger that says nothing; one line of the real one costs as much as a whole campaign."""

    def __init__(self, world, who):
        self._world = world
        self._who = who

    def debug(self, message, **more):
        if self._world.tracing:
            self._world.say(self._who, " ".join([message, *(f"{key}={value}" for key, value in more.items())]))

    info = warning = error = debug


class Process:
    """A candidate that works while it leads; it ends once."""

    def __init__(self, host, identity):
        world = host.world
        self.identity = identity
        self.leads = False
        self.ended = False
        self._host = host
        self._world = world
        self._stopping = False
        self._open = 0  # writes that are on their way
        self._doubt = float("-inf")  # when a write was given up last
        self._cache = None
        clock = host.clock if world.setup.booted else Unboot(host.clock)
        self.fence = Fence(clock)
        self.campaign = Campaign(
            identity, world.settings, self.fence, self._ask, clock=host.clock, random=world.random,
            logger=Silence(world, identity), on_won=self._won,
        )  # fmt: skip
        self._elected = world.loop.create_future()
        self._tasks = [world.loop.create_task(self.campaign.run()), world.loop.create_task(self._work())]
        self._tasks[0].add_done_callback(self._over)

    def stop(self):
        """SIGTERM."""
        self._stopping = True
        if not self.leads or not self._world.setup.drained:
            self.campaign.call_off()

    def kill(self):
        if not self.ended:
            self.ended = True
            for task in self._tasks:
                task.cancel()
            self._host.restart()

    def _won(self):
        self.leads = True
        self._elected.set_result(None)

    def _over(self, task):
        if not task.cancelled():
            task.result()
            self.kill()

    async def _ask(self, target, body, seconds):
        server, verb = self._world.server, target.verb
        return await self._host.exchange(self, "lease", lambda: server.lease(verb, body))

    async def _work(self):
        clock, random = self._host.clock, self._world.random
        await self._elected
        while not self._stopping:
            await clock.sleep(0.2 + random())
            if not self._stopping and self.campaign.lost is None and self._open < WORKERS:
                self._tasks.append(self._world.loop.create_task(self._pass(f"o{int(random() * OBJECTS)}")))
        until = clock.monotonic() + DRAIN
        while self._open and clock.monotonic() < until:
            await clock.sleep(0.1)
        if self._open:
            self._doubt = clock.monotonic()
            for task in self._tasks[2:]:
                task.cancel()
        setup = self._world.setup
        if setup.settled:
            await clock.sleep(max(0.0, self._doubt + setup.lease - setup.renew - clock.monotonic()))
        self.campaign.call_off()

    async def _pass(self, name):
        self._open += 1
        try:
            if self._cache is None:  # the barrier: after winning, and when a write's fate is not known
                self._cache = await self._within(2.0, self._world.server.read)
            await self._write(name)
        except (KubernetesError, TimeoutError) as error:
            self._cache = None
            if isinstance(error, Fenced) and "asyncctl-fenced" in str(error):
                self.campaign.lose(str(error))
                self.campaign.wake()
        finally:
            self._open -= 1

    async def _write(self, name):
        world = self._world
        version, left = self._cache.get(name), 4.0
        if world.setup.fenced:
            left = min(left, self.fence())
        departs = 0.0
        if world.setup.gap and world.random() < 0.1:
            departs = world.random() * world.setup.gap
            self._host.clock.freeze(departs)
            world.say(self.identity, f"is stopped before the send of {name} for {departs:.3f} s")
        try:
            written = await self._within(left, lambda: world.server.write(self.identity, name, version), departs)
        except TimeoutError:
            self._doubt = self._host.clock.monotonic()
            raise
        if self._cache is not None:
            self._cache[name] = written

    async def _within(self, seconds, handle, departs=0.0):
        answer = self._host.exchange(self, "write", handle, departs)
        clock = self._host.clock
        timer = clock.call_at(
            clock.monotonic() + seconds, lambda: answer.done() or answer.set_exception(TimeoutError())
        )
        try:
            return await answer
        finally:
            timer.cancel()


class Unboot:
    """A clock that does not know how long the machine slept."""

    def __init__(self, clock):
        self.boot = clock.monotonic


class Host:
    """A machine: its clock, its way to the server, the process on it."""

    def __init__(self, world, pod):
        random, drift = world.random, world.setup.drift
        self.world = world
        self.pod = pod
        self.clock = LocalClock(
            world.loop, 1 + drift * (-1, 1, -1, 1, 2 * random() - 1)[int(random() * 5)], 1000 * random()
        )
        self.slow_until = self.out_cut_until = self.back_cut_until = self.lossy_until = 0.0
        self.cut_lanes = self.slow_lanes = LANES
        self._started = 0
        self._start()

    def restart(self):
        self.world.say(self.pod, "the process has ended")
        delay = 0.2 + 2 * self.world.random()
        now = self.world.loop.now
        self.world.loop.call_later(min(delay, max(0.0, FAULTS - now)) if now < FAULTS else delay, self._start)

    def stop(self, seconds):
        """SIGTERM, so many seconds from now; a process that is frozen gets it when it is let go."""
        self.clock.call_at(self.clock.monotonic() + seconds, self.process.stop)

    def _start(self):
        self._started += 1
        self.process = Process(self, f"{self.pod}_{self._started}")

    def exchange(self, process, lane, handle, departs=0.0):
        """Send a question, so many seconds later; returns the future of its answer, which may never come."""
        answer = self.world.loop.create_future()
        if departs:
            self.world.loop.call_later(departs, self._depart, process, handle, answer, lane)
        else:
            self._depart(process, handle, answer, lane)
        return answer

    def _depart(self, process, handle, answer, lane):
        loop = self.world.loop
        if not (process.ended or self._loses(lane, self.out_cut_until)):
            loop.call_later(self._delay(lane), self._arrive, process, handle, answer, lane)

    def _arrive(self, process, handle, answer, lane):
        world = self.world
        error = result = None
        try:
            result = handle()
        except KubernetesError as raised:
            error = raised
        if not self._loses(lane, self.back_cut_until):
            world.loop.call_later(self._delay(lane), self._receive, process, answer, result, error)

    def _receive(self, process, answer, result, error):
        if process.ended or answer.done():
            return
        if self.clock.frozen_until > self.world.loop.now:
            self.world.loop.call_at(self.clock.frozen_until, self._receive, process, answer, result, error)
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _loses(self, lane, cut_until):
        now = self.world.loop.now
        if cut_until > now and lane in self.cut_lanes:
            return True
        return self.lossy_until > now and self.world.random() < 0.3

    def _delay(self, lane):
        if self.slow_until > self.world.loop.now and lane in self.slow_lanes:
            return min(1.0, 2 * self.world.random()) * self.world.setup.slowest
        return self.world.random() * _QUICK


class World:
    """One run."""

    def __init__(self, seed, setup, *, tracing=False):
        self.setup = setup
        self.tracing = tracing
        self.outcome = Outcome()
        self.loop = Loop()
        self.random = Random(seed).random
        self.settings = LeaseSettings(
            name="l", namespace="default", duration=setup.lease, renew_deadline=setup.renew, retry_period=setup.retry
        )
        self.server = Server(self)

    def say(self, who, what):
        if self.tracing:
            self.outcome.trace.append((self.loop.now, who, what))

    def run(self):
        with self.loop:
            self._hosts = [Host(self, pod) for pod in "abc"]
            for _ in range(4 + int(5 * self.random())):
                self.loop.call_at(2 + (FAULTS - 3) * self.random(), self._hurt)
            self.loop.run_until(FAULTS)
            self.loop.run_until(FAULTS + self.setup.leads_within + 1, self._led)
            if self._led():
                self.outcome.leads_after = self.loop.now - FAULTS
            self.loop.run_until(self.loop.now + self.setup.margin)  # for what is still on its way
        return self.outcome

    def _led(self):
        for host in self._hosts:
            process = host.process
            if process.leads and not process.ended and process.campaign.lost is None and not process._stopping:
                try:
                    return process.fence() > 0
                except Fenced:
                    pass
        return False

    def _hurt(self):
        """Something happens to a host; more often to the one that leads."""
        leaders = [host for host in self._hosts if host.process.leads and not host.process.ended]
        hosts = leaders if leaders and self.random() < 0.85 else self._hosts
        host = hosts[int(self.random() * len(hosts))]
        now = self.loop.now
        seconds = min(FAULTS - now, (0.1 + self.random()) * self.setup.lease * 1.3)
        until, lanes = now + seconds, (LANES, LANES[:1], LANES[1:])[int(3 * self.random())]
        what = FAULTS_OF_A_HOST[int(self.random() * len(FAULTS_OF_A_HOST))]
        if what in {"stopped", "suspended"}:
            host.clock.freeze(seconds, suspend=what == "suspended")
        if what in {"requests cut", "partitioned"}:
            host.out_cut_until, host.cut_lanes = until, lanes
        if what in {"answers cut", "partitioned"}:
            host.back_cut_until, host.cut_lanes = until, lanes
        if what == "losing messages":
            host.lossy_until = until
        if what == "slow":
            host.slow_until, host.slow_lanes = until, lanes
        if what in {"cut from the Lease, writes slow", "writes slow, SIGTERM"}:
            host.slow_until, host.slow_lanes = until, LANES[1:]
        if what == "cut from the Lease, writes slow":
            until = min(FAULTS, now + self.setup.lease)
            host.out_cut_until, host.cut_lanes = until, LANES[:1]
        if what == "killed":
            host.process.kill()
        if what == "SIGTERM":
            host.stop(0.0)
        if what == "writes slow, SIGTERM":
            host.stop(2 * self.random())
        self.say(host.pod, f"{what}, for {seconds:.3f} s, of {lanes}")


def run(seed, setup=Setup()):
    """One run; the same for the same seed."""
    return World(seed, setup).run()


def trace(seed, setup):
    """What happened in a run, to read."""
    return str(World(seed, setup, tracing=True).run())


def broken(setup=Setup(), **how):
    """A setup with something of it changed."""
    return replace(setup, **how)
