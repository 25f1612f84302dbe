"""Who held a Lease and when, as the API server's audit log has it; and whether anybody took it who might not.

The log must hold requests and answers (level RequestResponse) of writes of Leases. Writes are in the order in which
they were stored, that of their resourceVersions. When one was stored is known to lie between its arrival and its
answer; whoever judges a record has read it after it was stored, and sends after that.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

Object = dict[str, Any]
ROUNDING = timedelta(milliseconds=2)  # electors that keep time in milliseconds may be early by that much
OF_THE_ELECTION = {"holderIdentity", "acquireTime", "renewTime", "leaseDurationSeconds", "leaseTransitions"}


@dataclass(frozen=True)
class Write:
    """One write of the Lease that was stored."""

    version: int
    verb: str
    user: str
    received: datetime
    answered: datetime
    lease: Object  # as it was stored

    @property
    def spec(self) -> Object:
        found: Object = self.lease.get("spec") or {}
        return found

    @property
    def holder(self) -> str:
        """Empty when nobody holds it."""
        return self.spec.get("holderIdentity") or ""

    @property
    def kind(self) -> str:
        """What the holder's identity begins with."""
        return self.holder.partition("_")[0]

    def __str__(self) -> str:
        return f"{self.received.isoformat()} {self.verb} by {self.user}, version {self.version}: {self.spec}"


@dataclass(frozen=True)
class Term:
    """From the write that took the Lease to the one that ended it; the holder's last write is `renewed`."""

    holder: str
    taken: Write
    renewed: Write
    ended: Write | None  # None: held still
    released: bool

    @property
    def kind(self) -> str:
        """What the holder's identity begins with, before an underscore."""
        return self.taken.kind


def audited(log: Path) -> list[Object]:
    """All events of an audit log, but for a last one that is still being written."""
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def writes(events: Iterable[Mapping[str, Any]], namespace: str, name: str) -> list[Write]:
    """The writes of one Lease that were stored; a write that changed nothing has no version of its own."""
    found: dict[int, Write] = {}
    for event in events:
        about, lease = event.get("objectRef") or {}, event.get("responseObject") or {}
        metadata = lease.get("metadata") or {}
        if about.get("resource") != "leases" or about.get("namespace") != namespace or metadata.get("name") != name:
            continue
        if event["verb"] not in {"create", "update", "patch"} or event["responseStatus"]["code"] >= 300:
            continue
        if event["stage"] == "ResponseComplete" and not event["requestURI"].count("dryRun="):
            version = int(metadata["resourceVersion"])
            write = Write(
                version, event["verb"], event["user"]["username"],
                _time(event["requestReceivedTimestamp"]), _time(event["stageTimestamp"]), lease,
            )  # fmt: skip
            if version not in found or write.received < found[version].received:
                found[version] = write
    return [found[version] for version in sorted(found)]


def terms(found: list[Write]) -> list[Term]:
    """Who held the Lease, one after the other; a Lease that was deleted and made again begins anew."""
    held: list[Term] = []
    begin = last = None
    for write in found:
        if begin is not None and last is not None and write.holder != begin.holder:
            held.append(Term(begin.holder, begin, last, write, released=not write.holder))
            begin = None
        if write.holder and begin is None:
            begin = write
        last = write
    if begin is not None and last is not None:
        held.append(Term(begin.holder, begin, last, None, released=False))
    return held


def breaches(
    found: list[Write],
    *,
    uncounted: frozenset[str] = frozenset(),
    early: Mapping[str, timedelta] = MappingProxyType({}),
    trusted: str | None = None,
) -> list[str]:
    """What in these writes no elector may do.

    Args:
        found: what `writes` returned.
        uncounted: kinds of holders known not to count `leaseTransitions`; they must keep it.
        early: kinds of holders known to take a Lease before its record has run out, and by how much.
        trusted: a user whose writes are a test's own doing, and are not judged.
    """
    wrong = []
    said = found[0] if found else None  # the write since which the record says what it says
    for before, after in pairwise(found):
        assert said is not None
        if after.verb != "create" and after.user != trusted:
            allowed = early.get(after.kind, ROUNDING)
            wrong += [f"{problem}\n  before: {before}\n  after:  {after}" for problem in _judge(said, after, allowed)]
            wrong += [f"{problem}\n  after:  {after}" for problem in _count(before, after, uncounted)]
            wrong += [f"{lost} was lost\n  after:  {after}" for lost in _lost(before.lease, after.lease)]
        if after.spec != before.spec:
            said = after
    return wrong


def _judge(said: Write, after: Write, allowed: timedelta) -> Iterable[str]:
    if not said.holder or after.holder == said.holder:
        return
    if not after.holder:
        if after.user != said.user:
            yield f"released by another than its holder {said.holder}"
        return
    left = said.received + timedelta(seconds=said.spec.get("leaseDurationSeconds") or 0) - after.received
    if left > allowed:
        yield f"taken {left.total_seconds():.3f} s before the record had run out"


def _count(before: Write, after: Write, uncounted: frozenset[str]) -> Iterable[str]:
    counted = [write.spec.get("leaseTransitions") or 0 for write in (before, after)]
    takes = bool(after.holder) and after.holder != before.holder
    due = 1 if takes and after.kind not in uncounted else 0
    if counted[1] - counted[0] != due:
        yield f"leaseTransitions went from {counted[0]} to {counted[1]}, and should have grown by {due}"


def _lost(before: Object, after: Object) -> Iterable[str]:
    for place in ("labels", "annotations"):
        values = after["metadata"].get(place) or {}
        for key, value in (before["metadata"].get(place) or {}).items():
            if values.get(key) != value:
                yield f"{place[:-1]} {key}"
    if before["metadata"].get("ownerReferences") != after["metadata"].get("ownerReferences"):
        yield "an ownerReference"
    for key, value in (before.get("spec") or {}).items():
        if key not in OF_THE_ELECTION and (after.get("spec") or {}).get(key) != value:
            yield f"spec.{key}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
