"""Leases as no elector writes them, and one that may not be read: on a real API server, which refuses the worst.

What reaches an elector from other servers, a holder that is a number say, is for the unit tests of its record.
"""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.operator import Operator
from asyncctl.settings import Settings
from asyncctl.settings.values import Address
from tests.controlplane.controlplane import ControlPlane
from tests.e2e.cluster import LEASES, MERGE, Cluster
from tests.e2e.waiting import until as until_seen
from tests.unit.support import Log, until

SOAK = "ASYNCCTL_TEST_SOAK" in os.environ
RETRY = 0.1  # seconds
CONFIGMAPS = "/api/v1/namespaces/controllers/configmaps"
THEIRS = {
    "labels": {"app": "another"},
    "annotations": {"note": "mine"},
}


@asynccontextmanager
async def candidate(plane, lease, *, token=None, namespace="controllers", **settings):
    """An operator that campaigns for a Lease; `running.log` has what it says."""
    config = ClusterConfig(
        server=plane.url, ca_file=str(plane.ca_file), authorization=f"Bearer {token or plane.admin_token}"
    )
    log = Log()
    chosen = Settings(**{
        "lease_name": lease, "lease_namespace": namespace, "lease_duration": 1.0, "renew_deadline": 0.8,
        "retry_period": RETRY, "http_address": Address("127.0.0.1", 0), "debug_address": None,
        "pod_name": "pod",
    } | settings)  # fmt: skip
    async with Operator("test").running(settings=chosen, logger=log.logger, config=config) as running:
        running.log = log
        yield running


def make(cluster, lease, spec, **metadata):
    cluster.call("POST", LEASES, {"metadata": {"name": lease} | metadata, "spec": spec})


def change(cluster, lease, spec):
    cluster.call("PATCH", f"{LEASES}/{lease}", {"spec": spec}, content_type=MERGE)


def live(cluster, lease):
    return cluster.call("GET", f"{LEASES}/{lease}")


@pytest.mark.parametrize(
    "spec, told",
    [
        ({"holderIdentity": 3}, "cannot unmarshal number"),
        ({"leaseDurationSeconds": 0}, "must be greater than 0"),
        ({"leaseDurationSeconds": -15}, "must be greater than 0"),
        ({"leaseTransitions": -1}, "must be greater than or equal to 0"),
    ],
)
def test_the_server_lets_the_worst_not_in(cluster, spec, told):
    code, answer = cluster.plane.request("POST", f"{LEASES}?dryRun=All", {"metadata": {"name": "bad"}, "spec": spec})
    assert code in {400, 422}
    assert told in answer["message"]


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": ""}, {"renewTime": "2020-01-01T00:00:00.000000Z"}])
async def test_a_lease_without_a_holder_is_taken_at_once_and_the_takeover_counted(cluster, lease, spec):
    make(cluster, lease, spec)
    async with candidate(cluster.plane, lease, lease_duration=60.0) as running:
        await until(lambda: running.leading, seconds=10)
        taken = live(cluster, lease)["spec"]
        assert taken["holderIdentity"].startswith("pod_")
        assert taken["leaseDurationSeconds"] == 60
        assert taken["leaseTransitions"] == 1
    assert live(cluster, lease)["spec"]["holderIdentity"] == ""


async def test_of_a_holder_that_names_no_duration_our_own_is_waited_for(cluster, lease):
    make(cluster, lease, {"holderIdentity": "ghost"})
    async with candidate(cluster.plane, lease) as running:
        begun = asyncio.get_running_loop().time()
        await until(lambda: running.leading, seconds=10)
        assert asyncio.get_running_loop().time() - begun > 0.9
        assert live(cluster, lease)["spec"]["leaseTransitions"] == 1


async def test_a_lease_of_another_controller_is_left_alone_while_it_holds_it_and_keeps_what_it_has(cluster, lease):
    owner = until_seen(lambda: cluster.call("GET", f"{CONFIGMAPS}/kube-root-ca.crt"))["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
    theirs = THEIRS | {"ownerReferences": [reference]}
    make(
        cluster, lease, {"holderIdentity": "ghost", "leaseDurationSeconds": 2**31 - 1, "leaseTransitions": 6}, **theirs
    )
    before = live(cluster, lease)
    async with candidate(cluster.plane, lease) as running:
        await until(lambda: running.log.said("ghost leads"), seconds=10)
        await until(lambda: requests(running) > 15)  # that is longer than our own duration: theirs counts
        assert not running.leading
        assert running.log.said("the Lease has labels or owners, which are kept; if it is another program's, set")
        assert live(cluster, lease) == before
        change(cluster, lease, {"holderIdentity": ""})
        await until(lambda: running.leading, seconds=10)
        taken = live(cluster, lease)["spec"]["renewTime"]
        await until(lambda: live(cluster, lease)["spec"]["renewTime"] != taken)
        held = live(cluster, lease)
        assert held["spec"]["leaseTransitions"] == 7
    for found in (held, live(cluster, lease)):
        assert {key: found["metadata"].get(key) for key in theirs} == theirs
    assert live(cluster, lease)["spec"]["holderIdentity"] == ""


async def test_without_rights_it_says_which_are_missing_and_leads_when_they_are_there(cluster, lease):
    token = account(cluster, lease)
    async with candidate(cluster.plane, lease, token=token, lease_duration=60.0) as running:
        for verbs, missing in ((["get"], "cannot get resource"), (["get", "create"], "cannot create resource")):
            (said,) = await until(lambda missing=missing: running.log.said(missing, "warning"))
            assert said["msg"] == "not leading"
            assert "Role in namespace 'controllers' with get, create and update on leases.coordination" in said["cause"]
            assert lease in said["cause"]
            assert not running.leading
            code, text = await probe(running, "/readyz")
            assert code == 500
            assert missing in text
            allow(cluster, lease, verbs)
        await until(lambda: live(cluster, lease))  # made, and never renewed
        allow(cluster, lease, ["get", "create", "update"])
        await until(lambda: running.leading)
        assert running.log.said("became the leader")
        await until(running.ready.is_set)
        assert (await probe(running, "/readyz"))[0] == 200


@pytest.mark.skipif(not SOAK, reason="an API server of its own: with ASYNCCTL_TEST_SOAK")
async def test_what_coordinated_elections_keep_in_a_lease_is_kept(kube, lease):
    gate = ("--feature-gates=CoordinatedLeaderElection=true", "--runtime-config=coordination.k8s.io/v1beta1=true")
    with ControlPlane(kube.programs, apiserver_flags=gate) as plane:
        cluster = Cluster(plane)
        cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": "controllers"}})
        theirs = {"strategy": "OldestEmulationVersion", "preferredHolder": "somebody"}
        make(cluster, lease, theirs | {"holderIdentity": "ghost", "leaseDurationSeconds": 1})
        async with candidate(plane, lease) as running:
            await until(lambda: running.leading, seconds=10)
            taken = live(cluster, lease)["spec"]["renewTime"]
            await until(lambda: live(cluster, lease)["spec"]["renewTime"] != taken)
            held = live(cluster, lease)["spec"]
        for found in (held, live(cluster, lease)["spec"]):
            assert {key: found.get(key) for key in theirs} == theirs


async def probe(running, path):
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{running.port}{path}") as answer:
        return answer.status, await answer.text()


def account(cluster, name):
    """Make a ServiceAccount that may do nothing; returns a token of it."""
    accounts = "/api/v1/namespaces/controllers/serviceaccounts"
    cluster.call("POST", accounts, {"metadata": {"name": name}})
    answer = cluster.call("POST", f"{accounts}/{name}/token", {"spec": {}})
    return answer["status"]["token"]


def allow(cluster, name, verbs):
    """Let the account do this, and no more, with Leases."""
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/controllers"
    role = {"metadata": {"name": name}, "rules": [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}
    ]}  # fmt: skip
    if cluster.call("GET", f"{rbac}/roles/{name}"):
        cluster.call("PUT", f"{rbac}/roles/{name}", role)
        return
    cluster.call("POST", f"{rbac}/roles", role)
    cluster.call("POST", f"{rbac}/rolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "controllers"}],
    })  # fmt: skip


def requests(running):
    """How many requests have been answered."""
    families = running.metrics.registry.collect()
    return sum(
        sample.value for family in families for sample in family.samples if sample.name == "rest_client_requests_total"
    )
