"""Opening a connection to a server that is a tenant's own, in threads: it can make that take as long as it likes.

It is the server who says how often the hash of SCRAM is computed (RFC 5802), and libpq does that in one go, without the
interpreter's lock, and with no way to end it. In a thread it holds up nobody. As a thread can't be ended either, one
that nobody waits for any more keeps its server from being connected to until it is done; and so do a few of them all
such servers, or they would take all processors.
"""

import asyncio
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.waiting import WAIT_R

from asyncctl.database.postgres.bounded import BoundedConnection, Steps

MOST = 4
"""Threads that nobody waits for any more, while which no server of tenants is connected to."""
_T = TypeVar("_T")


class Threads:
    """Those of one program. `connection` is the class of connections whose opening they do."""

    def __init__(self) -> None:
        self._left: dict[object, Future[Any]] = {}
        """By the address of its server, the step that nobody waits for any more: there is one at most."""

        opening: dict[object, list[Steps[Any]]] = defaultdict(list)  # by the task that does it

        class Threaded(BoundedConnection):
            """A bounded connection, each step of whose opening is a thread's."""

            @classmethod
            async def connect(cls, *arguments: Any, **options: Any) -> Self:  # noqa: ANN401 - as the driver's
                """See the driver. What was given up is known to be when this ends, not when it is collected."""
                try:
                    return await super().connect(*arguments, **options)
                finally:
                    for steps in opening.pop(asyncio.current_task(), []):
                        steps.close()

            @classmethod
            def _connect_gen(cls, conninfo: str = "") -> Steps[Any]:
                steps = self._threaded(super()._connect_gen(conninfo), conninfo)
                opening[asyncio.current_task()].append(steps)
                return steps

        self.connection: type[BoundedConnection] = Threaded

    def _threaded(self, steps: Steps[_T], conninfo: str) -> Steps[_T]:
        """Do each step of `steps` in a thread; that it is over is waited for as for a server."""
        given = conninfo_to_dict(conninfo)
        address = given.get("hostaddr") or given.get("host"), given.get("port")
        self._left = {each: step for each, step in self._left.items() if not step.done()}
        if address in self._left or len(self._left) >= MOST:
            whose = "this server has" if address in self._left else "servers of tenants have"
            raise psycopg.OperationalError(f"{whose} us compute for a login that was given up, and it is not done yet")
        answer = None
        while True:
            step: Future[tuple[bool, Any]] = Future()
            ours, its = socket.socketpair()
            try:
                threading.Thread(target=_do, args=(steps.send, answer, step, its), daemon=True).start()
                while not step.done():
                    yield ours.fileno(), WAIT_R
            finally:
                ours.close()
                if not step.done():
                    self._left[address] = step
            over, found = step.result()
            if over:
                result: _T = found
                return result
            answer = yield found


def _do(send: Callable[[Any], Any], answer: object, step: "Future[tuple[bool, Any]]", its: socket.socket) -> None:
    """Do one step; `its` other end can be read when that is done."""
    try:
        step.set_result((False, send(answer)))
    except StopIteration as end:
        step.set_result((True, end.value))
    except BaseException as error:  # noqa: BLE001 - is raised where it is waited for
        step.set_exception(error)
    finally:
        its.close()
