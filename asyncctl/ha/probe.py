"""Whether the fence at the API server is in force, asked in the one way that takes no right to read policies.

A dry run of a Lease that the policy lets nobody write, whoever leads (`asyncctl.ha.refusal`): what is refused, and how,
shows whether there is a fence, whose it is, whom it takes this process for, and who holds the Lease by what that server
knows. One that has stopped to watch Leases goes on judging by what it saw last (`docs/high-availability.md`), and names
a holder that is none any more. Nothing is stored.
"""

import enum
from dataclasses import dataclass

import orjson

from asyncctl.client.errors import FENCE_MARK, AlreadyExists, Fenced, Forbidden, KubernetesError, NotFound, Target
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.clock import Clock
from asyncctl.ha import lease as record
from asyncctl.ha.refusal import BEHIND, IN_FORCE, NOBODY, probe_name, read, unfit

_AGAIN = 0.5  # seconds between two looks at who holds the Lease
_INSTALL = "install what `asyncctl manifests` makes in fence/ for this operator's ServiceAccount and Lease"


class State(enum.StrEnum):
    """What is known of the fence."""

    IN_FORCE = "in force"
    WRONG = "in force, and wrong"
    OFF = "not in force"
    UNKNOWN = "can't tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        state: Whether there is a fence; `WRONG` is one that refuses what this process writes though it should not.
        text: That in words, with what to do.
    """

    state: State
    text: str


async def probe(transport: Transport, namespace: str, lease: str, pod_name: str, *, clock: Clock) -> Finding:
    """Ask whether the fence for the Lease `namespace`/`lease` is in force.

    Args:
        transport: Of the process, or with its credentials.
        namespace: Of the Lease.
        lease: Its name.
        pod_name: How the process's identity in the Lease begins.
        clock: Time: a server that names another holder than there is may see it yet.
    """
    until = clock.monotonic() + BEHIND
    while True:
        found, named = await _asked(transport, namespace, lease, pod_name)
        held = await _holder(transport, namespace, lease) if named is not None else None
        if named is None or held is None or named == held:
            return found
        if clock.monotonic() >= until:
            return Finding(State.WRONG, (
                f"in force, but by an old state of the Lease {namespace}/{lease}: the API server takes it to be held "
                f"by {named}, and {held} holds it. It has stopped to watch Leases, as it does for good when the last "
                "policy that has one for its parameter, or its binding, is deleted: restart it, and until then set "
                "validationActions of the ValidatingAdmissionPolicyBinding to [Audit]"
            ))  # fmt: skip
        await clock.sleep(_AGAIN)


async def _asked(transport: Transport, namespace: str, lease: str, pod_name: str) -> tuple[Finding, str | None]:
    """What one try has found, and whom a fence that is as it should be names as the holder."""
    name = probe_name(lease)
    request = Request(
        target=Target("create", record.LEASE.resource, namespace, name), method="POST",
        path=f"{record.LEASE.path(namespace)}?dryRun=All", lane=Lane.READ, repeatable=True,
        body=orjson.dumps(record.new(namespace, name)),
    )  # fmt: skip
    try:
        await transport.request(request)
    except Fenced as error:
        return _refused(str(error), f"{namespace}/{lease}", pod_name)
    except AlreadyExists:
        pass
    except Forbidden as error:
        return Finding(State.UNKNOWN, f"can't tell, since a Lease may not be created, as a dry run: {error}"), None
    except KubernetesError as error:
        return Finding(State.UNKNOWN, f"can't tell: {error}"), None
    text = f"not in force for whom this process writes as, or the Lease {namespace}/{lease} is gone; {_INSTALL}"
    return Finding(State.OFF, text), None


def _refused(message: str, lease: str, pod_name: str) -> tuple[Finding, str | None]:
    told = read(message)
    if f"{FENCE_MARK} {IN_FORCE}" not in message:
        text = f"in force, but not for the Lease {lease}, or made by hand ({message}); {_INSTALL}"
        return Finding(State.WRONG, text), None
    why = unfit(told.writer, pod_name) if told is not None else None
    if why is not None:
        return Finding(State.WRONG, f"in force, and refuses all that this process writes: {why}"), None
    return Finding(State.IN_FORCE, f"in force, for the Lease {lease}"), told.holder if told else None


async def _holder(transport: Transport, namespace: str, lease: str) -> str | None:
    """Who holds the Lease, as a policy names them; None where nobody can tell."""
    request = Request(
        target=Target("get", record.LEASE.resource, namespace, lease), method="GET",
        path=record.LEASE.path(namespace, lease), lane=Lane.READ, repeatable=True,
    )  # fmt: skip
    try:
        found = orjson.loads((await transport.request(request)).body)
    except NotFound:
        return NOBODY
    except (KubernetesError, orjson.JSONDecodeError):
        return None
    if not record.is_lease(found):
        return None
    holder = record.holder(found) or NOBODY
    return holder if record.held_by(found, holder) or holder == NOBODY else None  # a message has no strange one whole
