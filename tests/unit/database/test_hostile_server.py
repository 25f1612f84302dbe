"""A server that is nobody's friend: it gets no password in clear, and can use up neither our memory nor our time."""

import asyncio
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from asyncctl.database.postgres.bounded import LARGEST
from asyncctl.database.postgres.connection import Limits, Server, connect
from asyncctl.database.postgres.errors import AuthenticationFailed, DatabaseError, ServerUnreachable


def message(kind, body):
    return kind + struct.pack("!i", 4 + len(body)) + body


READY = message(b"Z", b"I")
OPEN = message(b"R", struct.pack("!i", 0)) + message(b"S", b"server_version\x0015.1\0") + READY  # asks no password
PLAIN_PASSWORD = message(b"R", struct.pack("!i", 3))
ROWS = message(b"T", struct.pack("!h2sihihih", 1, b"a\0", 0, 0, 25, -1, -1, 0))
ROW = message(b"D", struct.pack("!hi", 1, 1000) + b"x" * 1000)
HUGE_ROW = b"D" + struct.pack("!ihi", 2**30, 1, 2**30 - 10)
NOTICE = message(b"N", b"SWARNING\0C01000\0M" + b"x" * 1000 + b"\0\0")
SETTING = message(b"S", b"a" * 1000 + b"\0" + b"b" * 1000 + b"\0")


def refusal(text):
    return message(b"E", b"SERROR\0C53100\0M" + text + b"\0\0") + READY


class Hostile:
    """What it heard, and how much it got rid of."""

    def __init__(self):
        self.heard = b""
        self.sent = 0


@asynccontextmanager
async def hostile(*answers, endless=b""):
    """Serve a protocol in which each thing that is heard is answered by the next of `answers`, and then for ever."""
    seen = Hostile()

    async def talk(reader, writer):
        try:
            for answer in answers:
                heard = await reader.read(65536)
                while heard and answer is OPEN and b"user\0" not in heard:
                    writer.write(b"N")  # no TLS
                    heard = await reader.read(65536)
                seen.heard += heard
                writer.write(answer)
            while endless:
                writer.write(endless * 64)
                seen.sent += len(endless) * 64
                await writer.drain()
            seen.heard += await reader.read(65536)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield seen, Server(name="team/boss", host="127.0.0.1", port=port, ssl_mode="disable", admin_user="boss",
                           admin_password="s3cret", connect_timeout=20.0)  # fmt: skip


async def failure(server):
    with pytest.raises(DatabaseError) as caught:
        async with connect(server, limits=Limits()) as session:
            await session.read("SELECT 1")
    assert "s3cret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("begin", "endless"),
    [(ROWS, ROW), (ROWS + HUGE_ROW, b"x" * 1000), (b"", NOTICE), (b"", SETTING)],
    ids=["rows", "one row", "notices", "settings"],
)
async def test_an_answer_without_end_is_cut_off(begin, endless):
    async with hostile(OPEN, begin, endless=endless) as (seen, server):
        error = await failure(server)
    assert isinstance(error, ServerUnreachable)
    assert "the server has sent more than 4 MiB, which no answer to us has" in str(error)
    assert seen.sent < 8 * LARGEST  # the sockets hold some of it


@pytest.mark.parametrize("endless", [SETTING, NOTICE], ids=["settings", "notices"])
async def test_a_greeting_without_end_is_cut_off(endless):
    async with hostile(OPEN[:9], endless=endless) as (seen, server):
        error = await failure(server)
    assert "the server has sent more than 4 MiB" in str(error)
    assert seen.sent < 8 * LARGEST


async def test_a_password_is_not_sent_in_clear_to_whom_nothing_was_proven():
    async with hostile(PLAIN_PASSWORD, b"") as (seen, server):
        await failure(server)
    assert b"s3cret" not in seen.heard
    assert b"boss" in seen.heard


SASL = message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0")
SLOW = 3_000_000  # rounds: a second or two


@asynccontextmanager
async def demanding():
    """Serve a tenant's server that wants its hash computed so often."""
    asked = asyncio.Event()

    async def talk(reader, writer):
        await reader.read(65536)
        writer.write(SASL)
        nonce = (await reader.read(65536)).partition(b",r=")[2]
        asked.set()
        writer.write(message(b"R", struct.pack("!i", 11) + b"r=" + nonce + b"x,s=c2FsdA==,i=%d" % SLOW))
        await reader.read(65536)
        writer.write(message(b"E", b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield asked, Server(name="team/boss", host="127.0.0.1", port=port, ssl_mode="disable", admin_user="boss",
                            admin_password="s3cret", connect_timeout=60.0, tenants=True)  # fmt: skip


async def test_nothing_else_waits_while_it_has_us_compute_a_hash():
    async with demanding() as (asked, server), asyncio.TaskGroup() as group:
        began = time.monotonic()
        failing = group.create_task(failure(server))
        await asked.wait()
        longest, last = 0.0, time.monotonic()
        while not failing.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        took = time.monotonic() - began
    assert isinstance(failing.result(), AuthenticationFailed)
    assert longest < took / 3


async def test_it_is_not_connected_to_again_while_we_compute_for_what_was_given_up():
    async with demanding() as (asked, patient):
        server, limits = replace(patient, connect_timeout=0.3), Limits()

        async def told(server):
            with pytest.raises(DatabaseError) as caught:
                async with connect(server, limits=limits):
                    pass
            return caught.value

        assert "no answer within 0.3 s" in str(await told(server))
        assert asked.is_set()
        assert "for a login that was given up" in str(error := await told(server))
        assert isinstance(error, ServerUnreachable)
        (left,) = limits._threads._left.values()
        await asyncio.wrap_future(left)
        assert isinstance(await told(patient), AuthenticationFailed)


async def test_what_it_says_is_not_passed_on_at_any_length():
    async with hostile(OPEN, refusal(b"no room " * 100_000)) as (_, server):
        error = await failure(server)
    assert "no room no room" in str(error)
    assert len(str(error)) < 2000
