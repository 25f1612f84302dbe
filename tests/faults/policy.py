"""The fence at the API server, for the length of a block."""

import contextlib
from collections.abc import Iterator

import yaml

from tests.e2e.cluster import LEASES, Cluster
from tests.e2e.waiting import until
from tests.faults.contest import Contest

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
POD = "authentication.kubernetes.io/pod-name"


@contextlib.contextmanager
def anchor(cluster: Cluster) -> Iterator[None]:
    """Keep a policy that has a Lease for its parameter and concerns nobody.

    When the last such policy, or its binding, is gone, kube-apiserver (1.36) stops to watch Leases for policies, and
    never begins again: one that is made later sees them as they were then (`policy_source.go`, where the informer of a
    built-in kind is shared, and a shared informer starts once).
    """
    spec = {
        "paramKind": {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"},
        "matchConstraints": {
            "resourceRules": [{"apiGroups": ["none"], "apiVersions": ["*"], "operations": ["*"], "resources": ["none"]}],
        },
        "validations": [{"expression": "true"}],
    }  # fmt: skip
    binding = {"policyName": "anchor", "paramRef": {"name": "anchor", "parameterNotFoundAction": "Allow"}}
    cluster.call("POST", POLICIES, {"metadata": {"name": "anchor"}, "spec": spec})
    cluster.call("POST", BINDINGS, {"metadata": {"name": "anchor"}, "spec": binding | {"validationActions": ["Deny"]}})
    yield
    cluster.call("DELETE", f"{BINDINGS}/anchor")
    cluster.call("DELETE", f"{POLICIES}/anchor")


@contextlib.contextmanager
def in_force(contest: Contest) -> Iterator[None]:
    """Have the API server refuse the contenders' writes but those of the Lease's holder; it does so when this begins."""
    name, lease = contest.name, {"name": contest.lease, "namespace": "controllers"}
    about = {"apiGroups": ["coordination.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"]}
    spec = {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"},
        "matchConstraints": {
            "resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}],
            "excludeResourceRules": [about | {"resources": ["leases"], "resourceNames": [contest.lease]}],
        },
        "matchConditions": [{"name": "ours", "expression": f"request.userInfo.username == '{contest.account.username}'"}],
        "validations": [{
            "expression": f"params.spec.?holderIdentity.orValue('').startsWith(request.userInfo.extra['{POD}'][0] + '_')",
            "message": "asyncctl-fenced: another holds the Lease",
            "reason": "Forbidden",
        }],
    }  # fmt: skip
    binding = {
        "policyName": name,
        "paramRef": lease | {"parameterNotFoundAction": "Allow"},
        "validationActions": ["Deny"],
    }
    contest.cluster.call("POST", POLICIES, {"metadata": {"name": name}, "spec": spec})
    contest.cluster.call("POST", BINDINGS, {"metadata": {"name": name}, "spec": binding})
    try:
        until(lambda: _refuses(contest))
        yield
    finally:
        contest.cluster.call("DELETE", f"{BINDINGS}/{name}")
        contest.cluster.call("DELETE", f"{POLICIES}/{name}")


def _refuses(contest: Contest) -> bool:
    """Whether a standby's write is refused: here of another Lease, and only tried."""
    standby = next(each for each in contest.contenders if each.pod != contest.holder())
    config = yaml.safe_load((standby.folder / "kubeconfig").read_text())
    status, text = contest.cluster.answer(
        "POST", f"{LEASES}?dryRun=All", {"metadata": {"name": f"{contest.lease}-other"}},
        token=config["users"][0]["user"]["token"],
    )  # fmt: skip
    return status == 403 and "asyncctl-fenced" in text
