"""Whether the API server itself refuses what replicas write that do not lead; and whether it would refuse all of them.

Asked as the operator asks it at its start (`asyncctl.ha.probe`): nothing is stored. The fence is for one
ServiceAccount, so that nobody else can tell.
"""

from asyncctl.client.transport.transport import Transport
from asyncctl.clock import Clock
from asyncctl.ha.probe import State as Found, probe
from asyncctl.operator.checking import Row, State

_ACCOUNT = "system:serviceaccount:"
_STATES = {Found.IN_FORCE: State.OK, Found.WRONG: State.FAILED, Found.OFF: State.WARNING, Found.UNKNOWN: State.SKIPPED}


async def check_fence(
    transport: Transport, namespace: str, lease: str, pod_name: str, user: str, *, clock: Clock
) -> Row:
    """One row.

    Args:
        transport: As whoever runs the check.
        namespace: Of the Lease.
        lease: Its name.
        pod_name: How the operator's identity in the Lease begins.
        user: Whom the server takes us for.
        clock: Time.
    """
    name = f"fence {namespace}/{lease}"
    found = await probe(transport, namespace, lease, pod_name, clock=clock)
    details = {"state": str(found.state)}
    if found.state is Found.OFF and not user.startswith(_ACCOUNT):
        text = f"can't tell as {user or 'this user'}: it is for the operator's ServiceAccount; run this with its token"
        return Row(name, State.SKIPPED, text, details | {"state": str(Found.UNKNOWN)})
    return Row(name, _STATES[found.state], found.text, details)
