"""The fence at the API server: a real one takes it, and refuses every write of a pod that does not hold the Lease.

The tokens are real ones, bound to pods; the operator may do everything by RBAC, so that what is refused is refused by
the fence. Order matters: at the end the Lease is deleted.
"""

import asyncio
import contextlib
import http.client
import json
import secrets
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import Fenced
from asyncctl.generate.fence import fence_name, fence_yaml
from asyncctl.ha.refusal import probe_name
from asyncctl.objects import ConfigMap
from asyncctl.operator import LeaseLost, Operator as Program, parts
from tests.unit.harness import quick_settings
from tests.unit.support import Log, until as until_true

MANIFESTS = Path(__file__).parents[2] / "manifests"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{0}/leases"
PATHS = {
    "Lease": LEASES,
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
POD_SPEC = {"containers": [{"name": "c", "image": "none"}]}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC},
    },
}
FENCE = list(yaml.safe_load_all((MANIFESTS / "fence" / "operator.yaml").read_text()))
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
CORE, APPS = "/api/v1/namespaces/{0}", "/apis/apps/v1/namespaces/{0}"
NEW = {"metadata": {"generateName": "new-"}}
CHANGE = {"data": {"changed": "yes"}}
APPLIED = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}}
SCALE = {"spec": {"replicas": 2}}
CONDITIONS = {"status": {"replicas": 0}}

# In an order in which each can be done, once.
WRITES = [
    ("create", "POST", f"{CORE}/configmaps", NEW, ""),
    ("create, dry run", "POST", f"{CORE}/configmaps?dryRun=All", NEW, ""),
    ("create by apply", "PATCH", f"{CORE}/configmaps/applied?fieldManager=x", APPLIED, APPLY),
    ("update", "PUT", f"{CORE}/configmaps/there", {"metadata": {"name": "there"}}, ""),
    ("merge patch", "PATCH", f"{CORE}/configmaps/there", CHANGE, MERGE),
    ("strategic merge patch", "PATCH", f"{CORE}/configmaps/there", CHANGE, STRATEGIC),
    ("JSON patch", "PATCH", f"{CORE}/configmaps/there", [{"op": "add", "path": "/data", "value": {}}], JSON_PATCH),
    ("status", "PATCH", f"{APPS}/deployments/d/status", CONDITIONS, MERGE),
    ("scale", "PATCH", f"{APPS}/deployments/d/scale", SCALE, MERGE),
    ("token of an account", "POST", f"{CORE}/serviceaccounts/default/token", {"spec": {}}, ""),
    ("cluster-scoped", "POST", "/api/v1/namespaces?dryRun=All", NEW, ""),
    ("evict", "POST", f"{CORE}/pods/evicted/eviction", EVICTION, ""),
    ("delete", "DELETE", f"{CORE}/configmaps/there", None, ""),
    ("delete collection", "DELETE", f"{CORE}/configmaps?labelSelector=many", None, ""),
    ("another Lease", "POST", LEASES, {"metadata": {"name": "other"}}, ""),
]
REVIEWS = {
    "authentication.k8s.io/v1/selfsubjectreviews": {},
    "authentication.k8s.io/v1/tokenreviews": {"spec": {"token": "none"}},
    "authorization.k8s.io/v1/selfsubjectaccessreviews": {
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}
    },
    "authorization.k8s.io/v1/subjectaccessreviews": {
        "spec": {"user": "x", "nonResourceAttributes": {"path": "/", "verb": "get"}}
    },
    "authorization.k8s.io/v1/selfsubjectrulesreviews": {"spec": {"namespace": "default"}},
}


class Server:
    """One connection to the API server, kept: as its admin, or with any other token."""

    def __init__(self, kube):
        address, tls = urlsplit(kube.url).netloc, ssl.create_default_context(cafile=kube.ca_file)
        self._connection = http.client.HTTPSConnection(address, timeout=30, context=tls)
        self._admin = kube.admin_token

    def ask(self, method, path, body=None, content_type="", token=""):
        """Return the code and the decoded answer."""
        headers = {
            "Authorization": f"Bearer {token or self._admin}",
            "Content-Type": content_type or "application/json",
        }
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def do(self, method, path, body=None, content_type=""):
        code, answer = self.ask(method, path, body, content_type)
        assert code < 300, answer
        return answer

    def close(self):
        self._connection.close()


class Operator:
    """A ServiceAccount that may do everything, its Lease, its fence, and its pods."""

    def __init__(self, server, namespace, name):
        self.server, self.namespace, self.name = server, namespace, name
        self.lease = f"{name}-leader"
        server.do("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        self.binding = f"{namespace}-{name}"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        body = {"metadata": {"name": self.binding}, "roleRef": role, "subjects": [subject]}
        server.do("POST", BINDINGS, body)
        text = fence_yaml(name, namespace=namespace, lease=self.lease, lease_namespace=namespace)
        for document in yaml.safe_load_all(text):
            server.do("POST", f"{PATHS[document['kind']].format(namespace)}?fieldValidation=Strict", document)
        self.leader, self.standby = (self.token(f"{name}-{number}") for number in range(2))
        self.unbound = self.token()

    def token(self, pod=""):
        core, spec = f"/api/v1/namespaces/{self.namespace}", {}
        if pod:
            body = {"metadata": {"name": pod}, "spec": POD_SPEC | {"serviceAccountName": self.name}}
            made = self.server.do("POST", f"{core}/pods", body)
            spec = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": made["metadata"]["uid"]}}
        made = self.server.do("POST", f"{core}/serviceaccounts/{self.name}/token", {"spec": spec})
        return made["status"]["token"]

    def hold(self, identity):
        path = f"{LEASES.format(self.namespace)}/{self.lease}"
        self.server.do("PATCH", path, {"spec": {"holderIdentity": identity}}, MERGE)
        until(lambda: self.probe(self.unbound)[1].endswith(identity or "nobody"))

    def probe(self, token):
        """Return the code and the message of what shows whether the fence is in force."""
        body = {"metadata": {"name": probe_name(self.lease)}}
        code, answer = self.server.ask("POST", f"{LEASES}?dryRun=All".format(self.namespace), body, token=token)
        return code, answer.get("message", "")

    def clear(self):
        for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            self.server.do("DELETE", f"{ADMISSION}/{kind}/{fence_name(self.name, self.namespace)}")
        self.server.do("DELETE", f"{BINDINGS}/{self.binding}")


def until(condition, deadline=30):
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(kube):
    server = Server(kube)
    yield server
    server.close()


@pytest.fixture(scope="module")
def namespace(server):
    name = f"fence-{secrets.token_hex(3)}"
    server.do("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    until(lambda: server.ask("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] == 200)
    yield name
    server.do("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def operators(server, namespace):
    made = [Operator(server, namespace, name) for name in ("one", "two")]
    yield made
    for each in made:
        each.clear()


@pytest.fixture(scope="module")
def operator(operators):
    """One whose pod `one-0` holds the Lease."""
    operators[0].hold("one-0_first")
    return operators[0]


@pytest.fixture(scope="module")
def there(server, namespace):
    """What the writes are about."""
    server.do("POST", f"{CORE}/configmaps".format(namespace), {"metadata": {"name": "there"}})
    for number in range(2):
        many = {"metadata": {"name": f"many-{number}", "labels": {"many": "yes"}}}
        server.do("POST", f"{CORE}/configmaps".format(namespace), many)
    server.do("POST", f"{APPS}/deployments".format(namespace), DEPLOYMENT)
    server.do("POST", f"{CORE}/pods".format(namespace), {"metadata": {"name": "evicted"}, "spec": POD_SPEC})


@pytest.fixture
def ask(server, namespace, operator, there):
    def send(token, method, path, body=None, content_type=""):
        code, answer = server.ask(method, path.format(namespace), body, content_type, token)
        return code, answer.get("message", "")

    return send


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write[0])
def test_a_write_of_a_pod_that_does_not_hold_the_lease_is_refused(ask, operator, write):
    code, message = ask(operator.standby, *write[1:])
    assert code == 403
    assert message.endswith("denied request: asyncctl-fenced: writer one-1, the Lease is held by one-0_first")


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write[0])
def test_a_write_of_the_leader_is_taken(ask, operator, write):
    code, message = ask(operator.leader, *write[1:])
    assert code < 300, message


def test_a_token_that_is_bound_to_no_pod_is_refused_and_told(ask, operator):
    code, message = ask(operator.unbound, *WRITES[0][1:])
    assert code == 403
    assert message.endswith("asyncctl-fenced: writer (no pod-bound token), the Lease is held by one-0_first")


@pytest.mark.parametrize("path", REVIEWS, ids=lambda path: path.rpartition("/")[2])
def test_who_does_not_hold_the_lease_may_ask_what_it_may(ask, operator, path):
    code, message = ask(operator.standby, "POST", f"/apis/{path}", REVIEWS[path])
    assert code == 201, message


@pytest.mark.parametrize("api", [f"{CORE}/events", CORE.replace("/api/v1", "/apis/events.k8s.io/v1") + "/events"])
def test_who_does_not_hold_the_lease_may_tell_events(ask, operator, namespace, api):
    about = {"kind": "ConfigMap", "name": "there", "namespace": namespace}
    event = {"metadata": {"name": f"e{len(api)}"}, "reason": "r", "type": "Normal"}
    if "events.k8s.io" in api:
        event |= {
            "regarding": about, "action": "a", "reportingController": "c", "reportingInstance": "i",
            "eventTime": "2026-01-02T03:04:05.000000Z",
        }  # fmt: skip
    else:
        event |= {"involvedObject": about}
    code, message = ask(operator.standby, "POST", api, event)
    assert code == 201, message
    code, message = ask(operator.standby, "PATCH", f"{api}/e{len(api)}", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert code == 200, message
    assert ask(operator.standby, "DELETE", f"{api}/e{len(api)}")[0] == 403


def test_its_own_lease_may_be_written_by_all_its_pods_but_not_deleted(ask, operator):
    path = f"{LEASES}/{operator.lease}"
    for token in (operator.leader, operator.standby, operator.unbound):
        assert ask(token, "PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)[0] == 200
        assert ask(token, "POST", f"{LEASES}?dryRun=All", {"metadata": {"name": operator.lease}})[0] == 409
    for what in (path, f"{LEASES}?labelSelector=a"):
        code, message = ask(operator.standby, "DELETE", what)
        assert (code, "asyncctl-fenced: writer one-1" in message) == (403, True)


def test_others_are_unharmed(kube, server, operators, operator, there, namespace):
    """The admin, a user without rights, another operator with its own Lease, the controllers of the cluster."""
    path = f"{CORE}/configmaps".format(namespace)
    assert server.ask("POST", path, NEW)[0] == 201
    code, answer = kube.request("POST", path, NEW, user="nobody")
    assert (code, "asyncctl-fenced" in answer["message"]) == (403, False)
    second = operators[1]
    second.hold("two-0_first")
    assert server.ask("POST", path, NEW, token=second.leader)[0] == 201
    assert server.ask("POST", path, NEW, token=second.standby)[0] == 403
    owned = {"metadata": {"name": "orphan", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}
    ]}}  # fmt: skip
    server.do("POST", path, owned)
    until(lambda: server.ask("GET", f"{path}/orphan")[0] == 404)


def test_whether_it_is_in_force_is_told_to_the_leader_too(operator):
    for token, writer in (
        (operator.leader, "one-0"), (operator.standby, "one-1"), (operator.unbound, "(no pod-bound token)"),
    ):  # fmt: skip
        code, message = operator.probe(token)
        assert code == 403
        assert message.endswith(f"asyncctl-fenced: in force; writer {writer}, the Lease is held by one-0_first")


def test_after_a_takeover_the_old_leader_is_refused_and_the_new_one_is_not(ask, operator):
    operator.hold("one-1_second")
    assert ask(operator.standby, *WRITES[0][1:])[0] == 201
    code, message = ask(operator.leader, *WRITES[0][1:])
    assert (code, message.rpartition(": ")[2]) == (403, "writer one-0, the Lease is held by one-1_second")
    for identity in ("", "one-1", "x\ny" * 2000):  # given back; no incarnation; nothing that a message could hold
        operator.server.do("PATCH", f"{LEASES}/{operator.lease}".format(operator.namespace),
                           {"spec": {"holderIdentity": identity}}, MERGE)  # fmt: skip
        until(lambda: ask(operator.standby, *WRITES[0][1:])[0] == 403)
    assert "asyncctl-fenced: " in ask(operator.standby, *WRITES[0][1:])[1]


@contextlib.asynccontextmanager
async def at_work(kube, operator, token, pod, log):
    """A program that writes in the background, as this pod; it would not look at its Lease again for 40 s."""
    program, wrote, again = Program(operator.name), asyncio.Event(), asyncio.Event()
    suffix = secrets.token_hex(3)

    @program.background
    async def write(running):
        await running.client.create(ConfigMap(name=f"first-{suffix}", namespace=operator.namespace))
        wrote.set()
        await again.wait()
        await running.client.create(ConfigMap(name=f"second-{suffix}", namespace=operator.namespace))

    settings = quick_settings(
        leader_election=True, lease_namespace=operator.namespace, pod_name=pod,
        lease_duration=60.0, renew_deadline=50.0, retry_period=40.0,
    )  # fmt: skip
    config = ClusterConfig(server=kube.url, ca_file=kube.ca_file, authorization=f"Bearer {token}")
    await asyncio.to_thread(operator.hold, "")
    async with asyncio.timeout(30), program.running(settings=settings, logger=log.logger, config=config) as running:
        running.wrote, running.again = wrote, again
        yield running


async def test_a_leader_whom_the_server_refuses_has_lost_the_lease(kube, operators, monkeypatch):
    monkeypatch.setattr(parts, "BEHIND", 0.0)
    operator, log = operators[1], Log()

    async def run():
        async with at_work(kube, operator, operator.leader, "two-0", log) as running:
            run.running = running
            await running.wrote.wait()
            (told,) = await until_true(lambda: log.said("the fence at the API server", "info"))
            assert told["state"] == "in force"
            await asyncio.to_thread(operator.hold, "two-1_other")
            running.again.set()
            await asyncio.sleep(30)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(LeaseLost, match="asyncctl-fenced: writer two-0, the Lease is held by two-1_other")
    with pytest.raises(Fenced, match="the API server refuses our writes: create configmaps") as fenced:
        run.running.fence()
    assert not fenced.value.by_server


@pytest.mark.parametrize("which, said", [("unbound", "is bound to no pod"), ("leader", "bound to pod two-0, and")])
async def test_a_token_of_no_pod_or_another_is_told_at_the_start_and_ends_a_leader(kube, operators, which, said):
    operator, log = operators[1], Log()

    async def run():
        async with at_work(kube, operator, getattr(operator, which), "two-9", log):
            await until_true(lambda: log.said("the fence at the API server"))
            await asyncio.sleep(30)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(LeaseLost, match=f"refuses our writes though we hold the Lease: .*{said}")
    (told,) = log.said("the fence at the API server", "error")
    assert said in told["cause"]


def test_what_it_can_not_look_up_refuses_nobody():
    """A Lease that is not there, and a server that can't read Leases: seen, where one can't be decoded."""
    _, policy, binding = FENCE
    assert policy["spec"]["failurePolicy"] == "Ignore"
    assert binding["spec"]["paramRef"]["parameterNotFoundAction"] == "Allow"


def test_the_lease_may_be_applied_again_and_keeps_its_holder(ask, operator):
    """As whoever installs a new version does. `kubectl apply` sends of a field that it does not have nothing either."""
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": operator.lease}}
    assert FENCE[0] | {"metadata": lease["metadata"]} == lease
    path = f"{LEASES}/{operator.lease}"
    code, message = ask("", "PATCH", f"{path}?fieldManager=kubectl", lease, APPLY)
    assert code == 200, message
    found = operator.server.do("GET", path.format(operator.namespace))
    assert found["spec"]["holderIdentity"]


def test_without_the_lease_nobody_is_refused(ask, operator):
    """Last of all. The fence at the sender holds on."""
    path = f"{LEASES}/{operator.lease}".format(operator.namespace)
    operator.server.do("DELETE", path)
    until(lambda: operator.probe(operator.standby)[0] == 201)
    for token in (operator.leader, operator.standby, operator.unbound, ""):
        assert ask(token, *WRITES[0][1:])[0] == 201
    assert ask(operator.standby, "POST", LEASES, {"metadata": {"name": operator.lease}})[0] == 201
    until(lambda: operator.probe(operator.standby)[0] == 403)
    assert ask(operator.standby, *WRITES[0][1:])[0] == 403


@pytest.mark.parametrize("bad", ["", "Upper", "a'b", 'a"b', "a b", "a/b", "-a", "a" * 254])
def test_what_can_not_be_a_name_is_refused(bad):
    good = {"account": "a", "namespace": "b", "lease": "c", "lease_namespace": "d"}
    for part in good:
        with pytest.raises(ValueError, match="can't be the name of an object"):
            fence_yaml(**good | {part: bad})
