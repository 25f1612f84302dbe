"""How the API server refuses a write of this operator: the words of the shipped admission policy, and what they mean.

The policy is made of these words (`asyncctl.generate.fence`), so that who writes them and who reads them can't differ.
"""

WRITER = "writer "
UNBOUND = "(no pod-bound token)"
HELD_BY = ", the Lease is held by "
NOBODY = "nobody"
IN_FORCE = "in force"


def probe_name(lease: str) -> str:
    """The name of a Lease that nobody may write where the policy is in force, not even the leader."""
    return f"{lease}-fence-probe"
