"""An API server that is never the bottleneck: canned answers of one 2.8 KB ConfigMap, over HTTP and over TLS.

`python -m bench.canned FOLDER` prints one line of JSON when it is ready: the two addresses and the CA's file, which it
writes to FOLDER. A GET and a PATCH are answered with the object, a watch with one event a second for as long as it is
open, each watch at a moment of its own. It parses no more of a request than where it ends.
"""

import asyncio
import json
import random
import ssl
import sys
from pathlib import Path
from typing import cast

import trustme

SIZE = 2800  # bytes of the object, as it is sent
PERIOD = 1.0  # seconds between two events of one watch


def config_map(name: str = "bench", namespace: str = "default") -> dict[str, object]:
    """An object of a usual form, and of `SIZE` bytes."""
    managed = {
        "manager": "bench", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {f"f:key-{number}": {} for number in range(10)}},
    }  # fmt: skip
    made: dict[str, object] = {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": namespace, "uid": "0b5cf1f4-9d63-4c5a-8a39-3a1de7f9b1aa",
            "resourceVersion": "1000", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "bench", "app.kubernetes.io/managed-by": "bench"},
            "managedFields": [managed],
        },
        "data": {f"key-{number}": "" for number in range(10)},
    }  # fmt: skip
    room = SIZE - len(_compact(made))
    made["data"] = {f"key-{number}": "v" * (room // 10) for number in range(10)}
    return made


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


# What a kube-apiserver says beside the object: a client has to parse it all.
HEAD = (
    "HTTP/1.1 200 OK\r\nAudit-Id: 5b1d9ae2-32ac-4f3e-a0b8-0d7e0f0a4b11\r\nCache-Control: no-cache, private\r\n"
    "Content-Type: application/json\r\nX-Kubernetes-Pf-Flowschema-Uid: 8d0b1a53-5dd1-4b54-b44e-8e1f3cf0c9a5\r\n"
    "X-Kubernetes-Pf-Prioritylevel-Uid: 2f8f2c4e-9b2f-4b63-8c0e-7f3d2a6b8e21\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
)
OBJECT = _compact(config_map())
ANSWER = f"{HEAD}Content-Length: {len(OBJECT)}\r\n\r\n".encode() + OBJECT
EVENT = b'{"type":"MODIFIED","object":' + OBJECT + b"}\n"
CHUNK = f"{len(EVENT):x}\r\n".encode() + EVENT + b"\r\n"
STREAM = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()


class Canned(asyncio.Protocol):
    """One connection: each complete request gets its answer."""

    def __init__(self) -> None:
        self._waiting = b""
        self._event: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting + data if self._waiting else data
        while (end := waiting.find(b"\r\n\r\n")) >= 0:
            head = waiting[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(waiting) < end + 4 + length:
                break
            waiting = waiting[end + 4 + length :]
            if b"watch=" in head.split(b"\r\n", 1)[0]:
                self._transport.write(STREAM)
                self._event = asyncio.get_running_loop().call_later(random.random() * PERIOD, self._trickle)
            else:
                self._transport.write(ANSWER)
        self._waiting = waiting

    def _trickle(self) -> None:
        self._transport.write(CHUNK)
        self._event = asyncio.get_running_loop().call_later(PERIOD, self._trickle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._event is not None:
            self._event.cancel()


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(Canned, "127.0.0.1", 0)
    secure = await loop.create_server(Canned, "127.0.0.1", 0, ssl=tls)
    http, https = (server.sockets[0].getsockname()[1] for server in (plain, secure))
    print(
        json.dumps({"http": f"http://127.0.0.1:{http}", "https": f"https://127.0.0.1:{https}", "ca": str(ca)}),
        flush=True,
    )
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(Path(sys.argv[1])))
    else:
        uvloop.run(serve(Path(sys.argv[1])))
