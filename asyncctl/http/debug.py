"""The debug pages: what a process is doing now, as JSON, for a person with `kubectl port-forward` or a shell beside it.

Nothing is computed until somebody asks. A page is made by a function that is given here; it shows names, numbers and
states, never what an object holds, and what looks like a credential is replaced. The listener is on loopback, and a
request has to say so too: a browser that a foreign page has led here names that page's host, and what comes by way of a
proxy says where from.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import orjson
from aiohttp import web

from asyncctl.http.pages import OneThread
from asyncctl.http.server import HEADERS, Page, text
from asyncctl.observe.logs import without_secrets
from asyncctl.settings import is_loopback

__all__ = ["Look", "debug_pages", "only_from_here"]

ROOT = "/debug/"
_BY_A_PROXY = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")


class Look(NamedTuple):
    """One page."""

    meaning: str
    """In a line, for the index."""
    look: Callable[[], Awaitable[object]] | Callable[[], object]
    """Returns JSON values. A coroutine function runs in the event loop, any other in a thread."""
    in_loop: bool = False


def debug_pages(looks: Mapping[str, Look]) -> dict[str, Page]:
    """A page for each look, below `/debug/`, and an index that lists them."""
    thread = OneThread("debug page")

    def page(look: Look) -> Page:
        async def show(_: web.BaseRequest) -> web.Response:
            found = await look.look() if look.in_loop else None  # type: ignore[misc]  # as `in_loop` says

            def render() -> bytes:
                return _json(found if look.in_loop else look.look())

            body = await thread.run(render)
            return web.Response(body=body, headers={**HEADERS, "Content-Type": "application/json"})

        return show

    index = Look("this list", lambda: {f"{ROOT}{name}": look.meaning for name, look in looks.items()})
    pages = {ROOT: page(index)}
    return pages | {f"{ROOT}{name}": page(look) for name, look in looks.items()}


def _json(found: object) -> bytes:
    shown = orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    return without_secrets(shown.decode()).encode() + b"\n"


async def only_from_here(request: web.BaseRequest) -> web.Response | None:
    """Refuse what was not meant for a loopback address, or came through a proxy."""
    by = next((name for name in _BY_A_PROXY if name in request.headers), None)
    if by is not None:
        return text(403, f"not through a proxy (the request has {by}): use kubectl port-forward\n")
    host = request.headers.get("Host", "")
    if not is_loopback(_name(host)):
        return text(403, f"ask as localhost or 127.0.0.1, not as {host[:100]!r}: use kubectl port-forward\n")
    return None


def _name(host: str) -> str:
    """The `Host` header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
