"""A session of the driver that reads no more of an answer than any answer to us has.

A server may be a tenant's own, and libpq keeps all that a server sends until the statement has ended: without a bound
one tenant could use up the memory that all of them need. What has arrived is counted at the socket, right before libpq
reads it, so that a row of a gigabyte is noticed long before it is complete.
"""

import fcntl
import struct
import termios
from collections.abc import Generator
from typing import Any, Self, TypeVar

import psycopg
from psycopg.rows import TupleRow

LARGEST = 4 * 1024 * 1024
"""Bytes of the answer to one statement, and of all that comes before a session is open."""
_T = TypeVar("_T")
Steps = Generator[Any, Any, _T]
"""The driver's: yields what it waits for, is sent what is ready."""


class BoundedConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection whose server can make it read no more than `LARGEST` at once; then it is closed, as if lost."""

    async def wait(self, gen: Steps[_T], *arguments: Any, **options: Any) -> _T:  # noqa: ANN401 - as the driver's
        """See the driver: all that it asks of an open connection goes through here."""
        return await super().wait(self._bounded(gen), *arguments, **options)

    @classmethod
    def _connect_gen(cls, *arguments: Any, **options: Any) -> Steps[Self]:  # noqa: ANN401 - as the driver's
        """See the driver: this opens a connection; what it yields begins with the socket."""
        return _counted(super()._connect_gen(*arguments, **options), lambda waited: int(waited[0]))

    def _bounded(self, gen: Steps[_T]) -> Steps[_T]:
        try:
            return (yield from _counted(gen, lambda _: self.pgconn.socket))
        except _TooMuch:
            self.pgconn.finish()  # in the middle of an answer it is of no use any more
            raise


class _TooMuch(psycopg.OperationalError):
    """The server has sent too much."""


def _counted(gen: Steps[_T], socket_of: Any) -> Steps[_T]:  # noqa: ANN401 - of what `gen` yields
    """Pass on what `gen` yields and is sent, as long as what has arrived meanwhile is not too much."""
    arrived, answer = 0, None
    while True:
        try:
            waited = gen.send(answer)
        except StopIteration as end:
            found: _T = end.value
            return found
        answer = yield waited
        arrived += _waiting(socket_of(waited))
        if arrived > LARGEST:
            gen.close()
            raise _TooMuch(f"the server has sent more than {LARGEST // 2**20} MiB, which no answer to us has")


def _waiting(fileno: int) -> int:
    """How many bytes have arrived at a socket and were not read yet."""
    count: int = struct.unpack("i", fcntl.ioctl(fileno, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count
