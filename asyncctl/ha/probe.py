"""Whether the fence at the API server is in force, asked in the one way that takes no right to read policies.

A dry run of a Lease that the policy lets nobody write, whoever leads (`asyncctl.ha.refusal`): what is refused, and how,
shows whether there is a fence, whose it is, and whom it takes this process for. Nothing is stored.
"""

import enum
from dataclasses import dataclass

import orjson

from asyncctl.client.errors import FENCE_MARK, AlreadyExists, Fenced, Forbidden, KubernetesError, Target
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.ha import lease as record
from asyncctl.ha.refusal import IN_FORCE, probe_name, read, unfit

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
        state: Whether there is a fence; `WRONG` is one that refuses everything this process writes.
        text: That in words, with what to do.
    """

    state: State
    text: str


async def probe(transport: Transport, namespace: str, lease: str, pod_name: str) -> Finding:
    """Ask whether the fence for the Lease `namespace`/`lease` is in force.

    Args:
        transport: Of the process, or with its credentials.
        namespace: Of the Lease.
        lease: Its name.
        pod_name: How the process's identity in the Lease begins.
    """
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
        return Finding(State.UNKNOWN, f"can't tell, since a Lease may not be created, as a dry run: {error}")
    except KubernetesError as error:
        return Finding(State.UNKNOWN, f"can't tell: {error}")
    return Finding(
        State.OFF, f"not in force for whom this process writes as, or the Lease {namespace}/{lease} is gone; {_INSTALL}"
    )


def _refused(message: str, lease: str, pod_name: str) -> Finding:
    told = read(message)
    if f"{FENCE_MARK} {IN_FORCE}" not in message:
        text = f"in force, but not for the Lease {lease}, or made by hand ({message}); {_INSTALL}"
        return Finding(State.WRONG, text)
    why = unfit(told.writer, pod_name) if told is not None else None
    if why is not None:
        return Finding(State.WRONG, f"in force, and refuses all that this process writes: {why}")
    return Finding(State.IN_FORCE, f"in force, for the Lease {lease}")
