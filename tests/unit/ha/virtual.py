"""An event loop whose time is a number, and the clocks of machines that live in it.

The loop does what asyncio's own futures, tasks and timeouts need, and nothing else; it never waits, so that a minute of
three candidates takes some milliseconds. A machine's clock runs at a rate of its own; a machine that is frozen sees
nothing, and what was due meanwhile comes when it is let go.
"""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_EARLY = 1e-9  # seconds; what floats make of a moment


class Handle:
    """A call that is still to come."""

    __slots__ = ("args", "call")

    def __init__(self, call, args):
        self.call = call
        self.args = args

    def cancel(self):
        self.call = None

    def run(self):
        if self.call is not None:
            self.call(*self.args)


class Loop(asyncio.AbstractEventLoop):
    """Virtual time for coroutines. Use it as a context manager: it is the running loop inside."""

    def __init__(self):
        self.now = 0.0
        self._ready = deque()
        self._timers = []
        self._made = 0
        self._tasks = []

    def __enter__(self):
        asyncio._set_running_loop(self)
        return self

    def __exit__(self, *_):
        for task in self._tasks:
            task.cancel()
        self._timers.clear()
        self._run_ready()
        asyncio._set_running_loop(None)

    def time(self):
        return self.now

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def is_closed(self):
        return False

    def call_soon(self, call, *args, context=None):
        handle = Handle(call, args)
        self._ready.append(handle)
        return handle

    def call_at(self, when, call, *args, context=None):
        handle = Handle(call, args)
        self._made += 1
        heappush(self._timers, (when, self._made, handle))
        return handle

    def call_later(self, delay, call, *args, context=None):
        return self.call_at(self.now + delay, call, *args)

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coroutine, *, name=None, context=None):
        task = asyncio.Task(coroutine, loop=self, name=name)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context):
        """A process that was killed leaves its tasks as they are."""

    def run_until(self, moment, done=lambda: False):
        """Let time pass, until then or until `done` says so after a step."""
        self._run_ready()
        timers = self._timers
        while timers and timers[0][0] <= moment and not done():
            when, _, handle = heappop(timers)
            if handle.call is not None:
                self.now = max(self.now, when)
                handle.call(*handle.args)
                self._run_ready()
        self.now = max(self.now, moment) if not done() else self.now

    def _run_ready(self):
        ready = self._ready
        while ready:
            ready.popleft().run()


class LocalClock:
    """The clock of one machine: a `Clock` that runs at its own rate.

    Args:
        loop: Whose time is the true one.
        rate: Its seconds in one true second.
        start: What it shows in the beginning.
    """

    def __init__(self, loop, rate=1.0, start=0.0):
        self.rate = rate
        self.frozen_until = 0.0
        self._loop = loop
        self._start = start
        self._slept = 0.0  # true seconds
        self._slept_until = 0.0

    def monotonic(self):
        return self._start + self.rate * (self._loop.now - self._slept)

    def boot(self):
        return self._start + self.rate * self._loop.now

    def now(self):
        return _BEGIN + timedelta(seconds=self.rate * self._loop.now)

    async def sleep(self, seconds):
        woken = self._loop.create_future()
        timer = self.call_at(self.monotonic() + seconds, lambda: woken.done() or woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def call_at(self, when, callback):
        timer = Handle(callback, ())
        self._arm(when, timer)
        return timer

    def freeze(self, seconds, *, suspend=False):
        """For so long nothing runs here; the monotonic clock goes on, unless the machine sleeps."""
        until = self._loop.now + seconds
        self.frozen_until = max(self.frozen_until, until)
        if suspend:  # all of it at once: while it is frozen nobody reads the clock
            self._slept += max(0.0, until - max(self._loop.now, self._slept_until))
            self._slept_until = max(self._slept_until, until)

    def _arm(self, when, timer):
        self._loop.call_later(max(0.0, when - self.monotonic()) / self.rate, self._fire, when, timer)

    def _fire(self, when, timer):
        if timer.call is None:
            return
        if self.frozen_until > self._loop.now:
            self._loop.call_at(self.frozen_until, self._fire, when, timer)
        elif when - self.monotonic() > _EARLY:
            self._arm(when, timer)
        else:
            timer.run()
