"""Request scripts: what is sent, and what a real kube-apiserver answered to it, word for word.

A script is a YAML list of cases; a case is a list of steps; a step sends one request (`do`) and holds the answer
against `code`, `answer`, `warnings` and `headers`. What differs from run to run is replaced by names in order of their
first appearance in the case: `rv1`, `uid1`, `time1`; an answer that says `rv1` twice therefore says that the
resourceVersion stayed. A request may use such a name as `$rv1`. `$ns` is the case's own namespace.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import yaml

from asyncctl.client.config.cluster import ClusterConfig
from tests.unit.support import answered

JSON = "application/json"
PATCHES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Backend:
    """A server to ask: where it is and how to get in."""

    name: str
    url: str
    token: str = ""
    ca: str = ""
    compact: Callable[[], Awaitable[object]] | None = None
    """Makes it forget its history, so that whoever asks for what has been gets 410."""

    def config(self, server="", **options):
        """How our client is to reach it, perhaps by a proxy in front of it at `server`."""
        if server:
            return ClusterConfig(server=server, **options)
        token = f"Bearer {self.token}" if self.token else None
        return ClusterConfig(server=self.url, ca_file=self.ca or None, **({"authorization": token} | options))

    def session(self, **options):
        headers = {"User-Agent": "conformance/1"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        context = ssl.create_default_context(cafile=self.ca) if self.ca else False
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        return aiohttp.ClientSession(self.url, headers=headers, connector=connector, **options)


@dataclass
class Reply:
    code: int
    body: object
    headers: dict
    warnings: list = field(default_factory=list)


@dataclass
class Names:
    """The values that differ from run to run, by the names they are given."""

    values: dict = field(default_factory=dict)

    def name(self, kind, value):
        for name, known in self.values.items():
            if known == value and name.startswith(kind):
                return name
        name = f"{kind}{1 + sum(1 for known in self.values if known.rstrip('0123456789') == kind)}"
        self.values[name] = value
        return name

    def fill(self, text):
        return re.sub(r"\$(\w+)", lambda found: str(self.values.get(found[1], found[0])), text)


class Client:
    """Sends requests and gives their answers in the form in which scripts hold them."""

    def __init__(self, session, namespace, *, managed=False):
        self.session = session
        self.names = Names({"ns": namespace})
        self.managed = managed

    async def send(self, line, body=None, *, patch="", content_type="", accept="", raw=None):
        method, _, path = line.partition(" ")
        headers = {}
        if raw is not None or body is not None:
            headers["Content-Type"] = content_type or PATCHES.get(patch, JSON)
        if accept:
            headers["Accept"] = accept
        data = self.names.fill(raw if raw is not None else json.dumps(body)) if headers.get("Content-Type") else None
        async with asyncio.timeout(60):
            async with self.session.request(method, self.names.fill(path), data=data, headers=headers) as response:
                text = await response.text()
                return Reply(response.status, text, response.headers, response.headers.getall("Warning", []))

    def normal(self, reply, *, exact=False):
        """Return the answer as a script holds it: JSON, the lines of a watch, or text.

        The resourceVersion of a list is `now`, since others write to a real cluster too; with `exact` it has a name.
        """
        text = reply.body
        try:
            answer = json.loads(text)  # some answers are indented
        except ValueError:
            pass
        else:
            listed = isinstance(answer, dict) and answer.get("kind", "").endswith(("List", "Table"))
            if listed and not exact and answer.get("metadata", {}).get("resourceVersion", "").isdigit():
                answer["metadata"]["resourceVersion"] = "now"
            return self._value(answer)
        try:
            lines = [json.loads(line) for line in text.splitlines() if line]
        except ValueError:
            return self._value(text)
        return self._value(lines)

    def _value(self, value, key=""):
        if isinstance(value, dict):
            # Names are given in the order of keys, which differs between servers: first the plain order of metadata.
            for first in ("metadata", "uid", "resourceVersion"):
                if first in value:
                    self._value(value[first], first)
            return {
                self._value(name) if name.startswith("k:") else name: self._value(each, name)
                for name, each in sorted(value.items())
                if self.managed or name != "managedFields"
            }
        if isinstance(value, list) and key in {"causes", "managedFields", "resources"}:
            # The first and last come from maps, which have no order; owners are sorted by the second they wrote in.
            return sorted((self._value(each) for each in value), key=json.dumps)
        if isinstance(value, list):
            return [self._value(each, key) for each in value]
        if not isinstance(value, str):
            return value
        if key == "resourceVersion" and value.isdigit():
            return self.names.name("rv", value)
        if _MICRO_TIME.fullmatch(value):
            return "microtime"
        if _TIME.fullmatch(value):
            return "time"
        if _UID.fullmatch(value) and key in {"uid", "jobID"}:
            return self.names.name("uid", value)
        if key == "token" and value.count(".") == 2:
            return "jwt"
        if key == "continue" and value:
            return "token"
        if key == "cells" and re.fullmatch(r"(\d+[smhd])+|<invalid>", value):
            return "age"
        for name, known in self.names.values.items():
            if name == "ns" or name.startswith("uid") or (key == "message" and name.startswith("rv")):
                value = re.sub(rf"(?<![\w.-]){re.escape(known)}(?!\w)", name if name != "ns" else "$ns", value)
        return value


def _has_code(code, reply):
    return reply.code == code


async def run(client, case):
    """Send a case's requests; yield each step with what it got, in the form of the script."""
    for step in case["steps"]:
        if "until" in step:
            # The real garbage collector looks for new kinds only every 30 s.
            await answered(partial(client.send, step["do"]), partial(_has_code, step["until"]), seconds=60)
            yield step, {}
            continue
        extra = {name: step[name] for name in ("patch", "content_type", "accept", "raw") if name in step}
        reply = await client.send(step["do"], step.get("body"), **extra)
        got = {"code": reply.code}
        if reply.warnings:
            got["warnings"] = reply.warnings
        for name in step.get("headers", ()):
            got.setdefault("headers", {})[name] = reply.headers.get(name, "")
        if step.get("keep"):
            # A continue token is used by a later step under the name the step gives it.
            client.names.values[step["keep"]] = json.loads(reply.body)["metadata"]["continue"]
        answer = client.normal(reply, exact=step.get("exact", False))
        if not step.get("only_code"):
            got["answer"] = answer
        yield step, got


def load(path):
    return yaml.safe_load(path.read_text())


def save(path, cases):
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, _):
            return True

    path.write_text(
        yaml.dump(cases, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
    )
