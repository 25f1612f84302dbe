"""An API server whose audit log keeps every write of a Lease with its contents, and contenders for Leases."""

import pytest

from tests.controlplane.build import Unavailable, elector
from tests.controlplane.controlplane import ControlPlane
from tests.e2e.cluster import Cluster
from tests.faults.contender import CLIENT_GO, KINDS, NAMESPACE, QUICK, Contender
from tests.faults.rounds import anchor, contest, counters, figure, pytest_generate_tests, soak  # noqa: F401 - fixtures

USERS = {kind: ["system:masters"] for kind in KINDS}
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
  - {level: None, verbs: [get, list, watch]}
  - {level: RequestResponse, resources: [{group: coordination.k8s.io, resources: [leases]}]}
  - {level: Metadata}
"""


@pytest.fixture(scope="session")
def leases(kube, tmp_path_factory):
    """A cluster of its own, with the namespace of the Leases."""
    policy = tmp_path_factory.mktemp("audit-leases") / "policy.yaml"
    policy.write_text(AUDIT_POLICY)
    with ControlPlane(kube.programs, users=USERS, audit_policy=policy) as plane:
        cluster = Cluster(plane)
        cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield cluster


@pytest.fixture(scope="session")
def client_go():
    """The program that campaigns with client-go."""
    try:
        return elector()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def lease(request):
    """The name of this test's Lease."""
    return f"lease-{request.node.name.replace('_', '-').replace('[', '-').rstrip(']').lower()}"[:60].rstrip("-")


@pytest.fixture
def contend(request, tmp_path, leases, lease):
    """Start a contender: `contend("client-go")`. None outlives the test, and no log of ours has a blemish."""
    begun = []

    def begin(kind, *, times=QUICK, user=None, **more):
        kubeconfig = more.pop("kubeconfig", None) or tmp_path / f"kubeconfig-{user or kind}"
        if not kubeconfig.exists():
            leases.plane.kubeconfig(kubeconfig, user or kind)
        program = request.getfixturevalue("client_go") if kind == CLIENT_GO else None
        contender = Contender(
            kind, kubeconfig=kubeconfig, lease=lease, times=times, log=tmp_path / f"{len(begun)}-{kind}.log",
            program=program, **more,
        )  # fmt: skip
        begun.append(contender)
        return contender

    yield begin
    for contender in begun:
        contender.kill()
        print(f"--- {contender.log.name}\n{contender.text[-1500:]}")
    blemishes = [line for contender in begun if contender.kind == KINDS[0] for line in contender.blemishes()]
    assert not blemishes, "\n".join(blemishes)
