"""The fixtures `plane` and `cluster`: a control plane with an audit log, for tests that judge by it or take it away."""

import pytest

from tests.controlplane.controlplane import ControlPlane
from tests.e2e.cluster import AUDIT_POLICY, Cluster

USERS = {"a": ["system:masters"], "b": ["system:masters"], "c": [], "d": ["system:masters"]}


@pytest.fixture(scope="session")
def plane(kube, tmp_path_factory):
    """A control plane that tests may hurt; `kube` has built its programs, or skips."""
    policy = tmp_path_factory.mktemp("audit") / "policy.yaml"
    policy.write_text(AUDIT_POLICY)
    with ControlPlane(kube.programs, users=USERS, audit_policy=policy) as plane:
        yield plane


@pytest.fixture(scope="session")
def cluster(plane):
    """What tests ask of it, with the namespace of Leases and the CRD of Databases."""
    cluster = Cluster(plane)
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": "controllers"}})
    cluster.install_crd()
    return cluster
