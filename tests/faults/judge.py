"""Who wrote what, and who held the Lease meanwhile: told from the API server's audit log alone.

The order is that of the commits: one etcd has one revision for everything, and each answer to a write carries it as
the object's resourceVersion. Times are for figures only. A contender is known by the pod that its token is bound to;
the Lease's holder by the part of its identity before the underscore.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

POD = "authentication.kubernetes.io/pod-name"


@dataclass(frozen=True)
class Commit:
    """One write of a pod, whether it ever held the Lease or not, which changed something."""

    revision: int
    who: str
    verb: str
    resource: str  # with its subresource: `counters/status`
    name: str
    at: datetime
    """When it was answered."""
    turn: int | None
    """What the object says after it."""

    @property
    def about(self) -> tuple[str, str]:
        """The object."""
        return self.resource.partition("/")[0], self.name


@dataclass(frozen=True)
class Tenure:
    """A new holder of the Lease; an empty one when it was given back."""

    revision: int
    who: str
    at: datetime


class Judge:
    """What the audit log says of one namespace and one Lease."""

    def __init__(self, entries: Iterable[dict[str, Any]], *, namespace: str, lease: str) -> None:
        """Read the log. Raises `ValueError` if it does not tell what a holder's write came to, or when it was made."""
        found = [entry for entry in entries if entry.get("stage") == "ResponseComplete" and "objectRef" in entry]
        here = [each for each in found if each["objectRef"].get("namespace") == namespace and _counts(each)]
        about = [each for each in found if _is_about(each, lease)]
        self.tenures = list(_tenures(about))
        self._renewals = {_holder(each["responseObject"]): _answered(each) for each in about}
        self.holders = {each.who for each in self.tenures if each.who}
        done = [each for each in here if _pod(each) or _who(each) in self.holders]
        if deleted := [each["objectRef"] for each in done if each["verb"] in {"delete", "deletecollection"}]:
            raise ValueError(f"a deletion is answered without a revision, and so has no place in the order: {deleted}")
        self.commits = list(_commits(done))
        self.refused = [_who(each) for each in found if _is_fenced(each)]
        """Whom the policy refused a write, in any namespace."""

    def by(self, who: str) -> list[Commit]:
        """All commits of one holder."""
        return [commit for commit in self.commits if commit.who == who]

    def tenure(self, who: str) -> Tenure:
        """When `who` came to hold the Lease, last."""
        return [each for each in self.tenures if each.who == who][-1]

    def end_of(self, who: str) -> Tenure | None:
        """What took the Lease from `who`; None while nothing has."""
        began = self.tenure(who).revision
        return next((each for each in self.tenures if each.revision > began), None)

    def renewed(self, who: str) -> datetime:
        """When `who` had its last renewal answered."""
        return self._renewals[who]

    @property
    def late(self) -> list[Commit]:
        """Writes of those who did not hold the Lease: it was another's, or given back; or they never did."""
        return [each for each in self.commits if not self._held(each.who, each.revision)]

    @property
    def after_the_next(self) -> list[Commit]:
        """Late writes that came after the first write of whoever held the Lease then."""
        return [
            late for late in self.late
            if any(self._took_over_from(late.who, other) <= other.revision < late.revision for other in self.commits)
        ]  # fmt: skip

    @property
    def overwrites(self) -> list[Commit]:
        """Late writes to what a later holder had made or changed since it took over: there must never be one."""
        return [
            late for late in self.late
            if any(
                other.about == late.about and self._took_over_from(late.who, other) <= other.revision < late.revision
                for other in self.commits
            )
        ]  # fmt: skip

    @property
    def steps_back(self) -> list[Commit]:
        """Writes that put an older turn in the place of a newer one: made from what was not true any more."""
        newest: dict[tuple[str, str], int] = {}
        found = []
        for commit in self.commits:
            if commit.turn is None:
                continue
            if commit.turn < newest.get(commit.about, commit.turn):
                found.append(commit)
            newest[commit.about] = commit.turn
        return found

    def _held(self, who: str, revision: int) -> bool:
        """Whether `who` held it when `revision` was made."""
        before = [each.who for each in self.tenures if each.revision < revision]
        return bool(before) and before[-1] == who

    def _took_over_from(self, who: str, other: Commit) -> float:
        """The revision at which the maker of `other` came to hold the Lease after `who` did; never, for all else."""
        if other.who == who:
            return float("inf")
        began = min((each.revision for each in self.tenures if each.who == who), default=-1)
        later = (each.revision for each in self.tenures if each.who == other.who and each.revision > began)
        return min(later, default=float("inf"))


def _pod(entry: dict[str, Any]) -> str:
    return str(((entry["user"].get("extra") or {}).get(POD) or [""])[0])


def _who(entry: dict[str, Any]) -> str:
    return _pod(entry) or str(entry["user"].get("username", ""))


def _counts(entry: dict[str, Any]) -> bool:
    """Events are nobody's work, and a dry run changes nothing."""
    return (
        entry["objectRef"]["resource"] not in {"events", "leases"}
        and entry["responseStatus"]["code"] < 300
        and "dryRun" not in entry["requestURI"]
    )


def _is_about(entry: dict[str, Any], lease: str) -> bool:
    """Whether it wrote this Lease. A deletion takes it from nobody: its holder loses it by itself."""
    about = entry["objectRef"]
    return (
        about["resource"] == "leases"
        and (entry.get("responseObject") or {}).get("metadata", {}).get("name") == lease
        and entry["responseStatus"]["code"] < 300
        and entry["verb"] != "delete"
    )


def _is_fenced(entry: dict[str, Any]) -> bool:
    status = entry["responseStatus"]
    return (
        status["code"] == 403 and "asyncctl-fenced" in status.get("message", "") and "dryRun" not in entry["requestURI"]
    )


def _commits(entries: Iterable[dict[str, Any]]) -> Iterator[Commit]:
    """In their order; what changed nothing is answered with the version that was there, and is none."""
    found = [_commit(entry) for entry in entries]
    seen: set[int] = set()
    for commit in sorted(found, key=lambda each: (each.revision, each.at)):
        if commit.revision not in seen:
            seen.add(commit.revision)
            yield commit


def _commit(entry: dict[str, Any]) -> Commit:
    about, answer = entry["objectRef"], entry.get("responseObject") or {}
    version = answer.get("metadata", {}).get("resourceVersion")
    if version is None:
        raise ValueError(f"the audit policy keeps no answers, and so no order; it takes level RequestResponse: {about}")
    said = (answer.get("data") or {}) if about["resource"] == "configmaps" else (answer.get("status") or {})
    return Commit(
        revision=int(version),
        who=_who(entry),
        verb=entry["verb"],
        resource="/".join(filter(None, (about["resource"], about.get("subresource")))),
        name=answer["metadata"]["name"],
        at=_answered(entry),
        turn=int(said["turn"]) if said.get("turn") is not None else None,
    )


def _tenures(entries: Iterable[dict[str, Any]]) -> Iterator[Tenure]:
    last = None
    for entry in sorted(entries, key=lambda each: int(each["responseObject"]["metadata"]["resourceVersion"])):
        lease = entry["responseObject"]
        identity = (lease.get("spec") or {}).get("holderIdentity") or ""
        if identity != last:
            last = identity
            yield Tenure(int(lease["metadata"]["resourceVersion"]), _holder(lease), _answered(entry))


def _holder(lease: dict[str, Any]) -> str:
    identity = (lease.get("spec") or {}).get("holderIdentity") or ""
    return identity.rpartition("_")[0] or identity


def _answered(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["stageTimestamp"])
