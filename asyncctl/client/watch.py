"""A watch stream as lines of bytes.

The server sends one JSON object a line, in chunks cut anywhere. A line is handed on as bytes; nothing is decoded here.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from asyncctl.client.errors import StreamError

MAX_LINE = 8 * 2**20  # bytes; etcd's own limit for an object is 1.5 MB, and managedFields come on top


class Lines:
    """An open watch: batches of complete lines, once.

    Attributes:
        peer: The address that answers, as `host:port`; empty where it is not known.
    """

    def __init__(self, batches: AsyncIterator[list[bytes]], peer: str = "") -> None:
        self._batches = batches
        self.peer = peer

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Go on where it was left."""
        return self._batches


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Group `chunks` into batches of complete lines, without their line ends.

    Raises:
        StreamError: The stream ended in the middle of a line, or a line is longer than `MAX_LINE`.
    """
    tail: list[bytes] = []
    waiting = 0
    async for chunk in chunks:
        if b"\n" not in chunk:
            tail.append(chunk)
            waiting += len(chunk)
            if waiting > MAX_LINE:
                raise StreamError(f"a watch event is longer than {MAX_LINE} bytes")
            continue
        batch = (b"".join((*tail, chunk)) if tail else chunk).split(b"\n")
        rest = batch.pop()
        tail = [rest] if rest else []
        waiting = len(rest)
        yield batch
    if waiting:
        raise StreamError("the watch ended in the middle of an event")
