"""How the API server refuses a write of this operator: the words of the shipped admission policy, and what they mean.

The policy is made of these words (`asyncctl.generate.fence`), so that who writes them and who reads them can't differ.
A refusal is the loss of the Lease, with one exception: a server judges by its own watch of the Lease, and one that has
not seen yet that it was taken refuses its new holder too. That passes, and ends nobody.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from asyncctl.clock import Clock
from asyncctl.observe.logs import Logger

WRITER = "writer "
UNBOUND = "(no pod-bound token)"
HELD_BY = ", the Lease is held by "
NOBODY = "nobody"
IN_FORCE = "in force"
BEHIND = 5.0  # seconds after a takeover, within which a server that works has seen it; measured: 0.13
_TOLD = re.compile(f"{WRITER}(.*?){HELD_BY}(.*)", re.DOTALL)


def probe_name(lease: str) -> str:
    """The name of a Lease that nobody may write where the policy is in force, not even the leader."""
    return f"{lease}-fence-probe"


class Told(NamedTuple):
    """What a refusal says: whose write it was, a pod's or `UNBOUND`, and who holds the Lease as that server knows."""

    writer: str
    holder: str


def read(message: str) -> Told | None:
    """Return what a refusal says; None where it says no more than that it is one."""
    found = _TOLD.search(message)
    return Told(found[1], found[2]) if found is not None else None


def unfit(writer: str, pod_name: str) -> str | None:
    """Why the policy refuses all that this process writes, whoever holds the Lease; None where it does not.

    Args:
        writer: Whom the API server takes it for.
        pod_name: Whom it takes itself for: the beginning of its identity in the Lease.
    """
    if writer == UNBOUND:
        return (
            "the token of this process is bound to no pod; use the one that is mounted into the pod "
            "(automountServiceAccountToken, or a projected volume), not one out of a Secret or a file"
        )
    if writer != pod_name:
        return (
            f"the token of this process is bound to pod {writer}, and ASYNCCTL_POD_NAME is {pod_name}; set that from "
            "the downward API (fieldRef: metadata.name)"
        )
    return None


class Refusals:
    """What this process does when the API server's fence refuses a write of it. Call it with the message.

    Args:
        identity: Of this process in the Lease; None where there is no leader election.
        lose: Has the Lease count as lost, for a reason; harmless when this process does not lead.
        patience: Seconds, from winning the Lease on, for which a server may be behind.
        clock: Time.
        logger: Where it is told.
    """

    def __init__(
        self, identity: str | None, lose: Callable[[str], object], *, patience: float, clock: Clock, logger: Logger
    ) -> None:
        self._identity = identity
        self._lose = lose
        self._patience = patience
        self._clock = clock
        self._logger = logger
        self._won = float("-inf")
        self._said = False

    def won(self) -> None:
        """This process has just got the Lease."""
        self._won = self._clock.monotonic()
        self._said = False

    def __call__(self, message: str) -> bool:
        """Whether the refusal is going to pass, so that the write may be sent again."""
        if self._identity is None:
            self._say(
                "the API server refuses our writes", message,
                "ASYNCCTL_LEADER_ELECTION is false, so that nothing here holds the Lease that this fence asks for: "
                "set validationActions of the ValidatingAdmissionPolicyBinding that the cause names to [Audit], or "
                "turn leader election on",
            )  # fmt: skip
            return False
        told = read(message)
        if told is not None and told.holder == self._identity:
            why = unfit(told.writer, self._identity.rpartition("_")[0])
            self._lose(f"the API server refuses our writes though we hold the Lease: {why or message}")
            return False
        if self._clock.monotonic() - self._won < self._patience:
            self._say("the API server has not seen yet that we hold the Lease", message, "the write is sent again")
            return True
        self._lose(f"the API server refuses our writes: {message}")
        return False

    def _say(self, what: str, message: str, advice: str) -> None:
        if not self._said:
            self._said = True
            self._logger.warning(what, cause=message, advice=advice)
