"""The fence at the API server, for the length of a block."""

import contextlib
from collections.abc import Iterator

import yaml

from asyncctl.generate.fence import fence_yaml
from asyncctl.ha.refusal import probe_name
from tests.e2e.cluster import LEASES, Cluster
from tests.e2e.waiting import until
from tests.faults.contest import Contest

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "Lease": LEASES,
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}


@contextlib.contextmanager
def in_force(contest: Contest) -> Iterator[None]:
    """Have the API server refuse the contenders' writes but those of the holder; it does so when this begins."""
    account, lease = contest.account.name, contest.lease
    with _made(
        contest.cluster, fence_yaml(account, namespace="controllers", lease=lease, lease_namespace="controllers")
    ):
        until(lambda: _refuses(contest))
        yield


@contextlib.contextmanager
def anchor(cluster: Cluster) -> Iterator[None]:
    """Keep a policy that has a Lease for its parameter, and concerns nobody.

    When the last such policy, or its binding, is gone, kube-apiserver (1.36) stops to watch Leases for policies, and
    never begins again: one that is made later sees them as they were then (`policy_source.go`, where the informer of a
    built-in kind is shared, and a shared informer starts once).
    """
    with _made(cluster, fence_yaml("anchor", namespace="controllers", lease="anchor", lease_namespace="controllers")):
        yield


@contextlib.contextmanager
def _made(cluster: Cluster, text: str) -> Iterator[None]:
    documents = list(yaml.safe_load_all(text))
    for each in documents:
        cluster.call("POST", PATHS[each["kind"]], each)
    try:
        yield
    finally:
        for each in reversed(documents):
            cluster.call("DELETE", f"{PATHS[each['kind']]}/{each['metadata']['name']}")


def _refuses(contest: Contest) -> bool:
    """Whether what nobody of this account may write is refused; it is only tried."""
    status, text = contest.cluster.answer(
        "POST", f"{LEASES}?dryRun=All", {"metadata": {"name": probe_name(contest.lease)}}, token=contest.account.token()
    )
    return status == 403 and "asyncctl-fenced" in text
