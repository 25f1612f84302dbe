"""The fence at the API server, taken away and brought back: what a real one knows of the Lease afterwards.

It watches Leases for its policies alone. When the last one that has a Lease for its parameter is gone, or the last
binding of it, that watch ends, and is never begun again: what is made later judges by the Lease as it was then. So the
order matters here, too: this begins with a server that has just started, and ends with one that has stopped to watch.
"""

import secrets

import pytest

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.clock import SystemClock
from asyncctl.generate.fence import fence_name
from asyncctl.ha import probe as module
from asyncctl.ha.probe import State, probe
from tests.manifests.test_fence import ADMISSION, CORE, FENCE, LEASES, MERGE, NEW, Operator, Server, until
from tests.unit.support import make_transport


@pytest.fixture(scope="module")
def operator(kube):
    """One whose pod `again-0` holds the Lease, by a server that was started after the fence was made."""
    server, namespace = Server(kube), f"fence-{secrets.token_hex(3)}"
    server.do("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    until(lambda: server.ask("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")[0] == 200)
    made = Operator(server, namespace, "again")
    server.close()
    kube.stop_apiserver(kill=True)
    kube.start_apiserver()
    made.binding_path = f"{ADMISSION}/validatingadmissionpolicybindings/{fence_name(made.name, namespace)}"
    made.hold("again-0_first")
    yield made
    made.clear()
    server.do("DELETE", f"/api/v1/namespaces/{namespace}")
    server.close()


def take(operator, identity):
    path = f"{LEASES}/{operator.lease}".format(operator.namespace)
    operator.server.do("PATCH", path, {"spec": {"holderIdentity": identity}}, MERGE)


async def found(kube, operator, token, pod):
    config = ClusterConfig(server=kube.url, ca_file=kube.ca_file, authorization=f"Bearer {token}")
    async with make_transport(config) as transport:
        return await probe(transport, operator.namespace, operator.lease, pod, clock=SystemClock())


def test_a_binding_that_only_audits_refuses_nobody_and_sees_each_takeover(operator):
    def act(*actions):
        operator.server.do("PATCH", operator.binding_path, {"spec": {"validationActions": actions}}, MERGE)

    path = f"{CORE}/configmaps".format(operator.namespace)
    assert operator.server.ask("POST", path, NEW, token=operator.standby)[0] == 403
    act("Audit")
    until(lambda: operator.probe(operator.standby)[0] == 201)
    for token in (operator.leader, operator.standby, operator.unbound):
        assert operator.server.ask("POST", path, NEW, token=token)[0] == 201
    take(operator, "again-1_second")
    act("Deny")
    until(lambda: operator.probe(operator.standby)[0] == 403)
    until(lambda: operator.probe(operator.standby)[1].endswith("held by again-1_second"))
    assert operator.server.ask("POST", path, NEW, token=operator.leader)[0] == 403
    assert operator.server.ask("POST", path, NEW, token=operator.standby)[0] == 201


async def test_a_binding_that_is_made_again_judges_by_an_old_lease_and_that_is_told(kube, operator, monkeypatch):
    monkeypatch.setattr(module, "BEHIND", 1.0)
    assert (await found(kube, operator, operator.standby, "again-1")).state is State.IN_FORCE
    operator.server.do("DELETE", operator.binding_path)
    until(lambda: operator.probe(operator.standby)[0] == 201)
    take(operator, "again-0_third")
    binding = FENCE[2]["spec"] | {"policyName": fence_name(operator.name, operator.namespace)}
    binding["paramRef"] = binding["paramRef"] | {"name": operator.lease, "namespace": operator.namespace}
    path, _, name = operator.binding_path.rpartition("/")
    operator.server.do("POST", path, {"metadata": {"name": name}, "spec": binding})
    until(lambda: operator.probe(operator.standby)[0] == 403)
    for token, pod in ((operator.leader, "again-0"), (operator.standby, "again-1")):
        told = await found(kube, operator, token, pod)
        assert told.state is State.WRONG
        assert "to be held by again-1_second, and again-0_third holds it" in told.text
