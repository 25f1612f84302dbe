"""The pages for the kubelet and for Prometheus: `/livez`, `/healthz`, `/readyz` and `/metrics`.

A probe looks at state that is there already. A scrape is rendered in a thread of its own, one after the other, so that
a large one, or a collector that hangs, holds up the next scrape and no probe.
"""

import asyncio
import contextlib
import gzip
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from asyncctl.http.probes import Answer, Probes
from asyncctl.http.server import HEADERS, Page, text

__all__ = ["OneThread", "metrics_page", "probe_pages"]

T = TypeVar("T")
_WORTH_PACKING = 1024  # bytes; below that gzip adds more than it takes


def probe_pages(probes: Probes) -> dict[str, Page]:
    """The kubelet's: what `/livez` (`/healthz` the same) and `/readyz` ask is in `probes`."""

    async def livez(request: web.BaseRequest) -> web.Response:
        return _probed(request, probes.livez)

    async def readyz(request: web.BaseRequest) -> web.Response:
        return _probed(request, probes.readyz)

    return {"/livez": livez, "/healthz": livez, "/readyz": readyz}


def metrics_page(registry: CollectorRegistry) -> dict[str, Page]:
    """Prometheus': all that is on `registry`, in the form that is asked for (text or OpenMetrics), packed or not."""
    thread = OneThread("scrape")  # one after the other: more would only share the interpreter

    async def metrics(request: web.BaseRequest) -> web.Response:
        encoder, content_type = _encoder(",".join(request.headers.getall("Accept", ())))
        packed = gzip_accepted(",".join(request.headers.getall("Accept-Encoding", ())))

        def render() -> tuple[bytes, bool]:
            body = encoder(registry)
            pack = packed and len(body) >= _WORTH_PACKING
            return gzip.compress(body, compresslevel=1) if pack else body, pack

        body, pack = await thread.run(render)
        headers = {**HEADERS, "Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if pack:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    return {"/metrics": metrics}


def _encoder(accepted: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accepted)
    except (TypeError, ValueError):  # a version that is no number: its sender's fault, and no error of ours
        return choose_encoder("")


class OneThread:
    """Runs steps in a thread, one at a time.

    A step that hangs is left alone: who waits for it, or for its turn, can be cancelled, and neither the loop nor the
    process's end waits for the thread. That is why it is none of a pool's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: asyncio.Future[Any] | None = None

    async def run(self, step: Callable[[], T]) -> T:
        """Return what `step` returns, once those before it have ended."""
        while self._last is not None and not self._last.done():
            await asyncio.wait({self._last})
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._last = done
        threading.Thread(target=_work, args=(step, done), name=self._name, daemon=True).start()
        return await asyncio.shield(done)


def _work(step: Callable[[], T], done: "asyncio.Future[T]") -> None:
    loop = done.get_loop()
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        try:
            result = step()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, result)


def _probed(request: web.BaseRequest, ask: Callable[..., Answer]) -> web.Response:
    query = request.query
    answer = ask(verbose="verbose" in query, exclude=query.getall("exclude", []))
    return text(200 if answer.ok else 500, answer.text)
