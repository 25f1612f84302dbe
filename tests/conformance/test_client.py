"""The client against an API server, embedded and real: every verb, every subresource, and two who write at once."""

import asyncio
import base64
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from urllib.parse import unquote

import aiohttp
import pytest
import yaml

from asyncctl.apiserver import ApiServer
from asyncctl.client.changes import Bookmark, Change
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import (
    AlreadyExists,
    ApplyConflict,
    BadRequest,
    Conflict,
    DisruptionBudgetExceeded,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from asyncctl.client.patch import Patch
from asyncctl.objects import ConfigMap, Namespace, Resource, Secret, Unstructured
from tests.unit.harness import Widget, cluster_at
from tests.unit.support import Log, answered, connected

POD = Unstructured("v1", "Pod")
DEPLOYMENT = Unstructured("apps/v1", "Deployment")
ACCOUNT = Unstructured("v1", "ServiceAccount")
BUDGET = Unstructured("policy/v1", "PodDisruptionBudget")
CONFIG = Unstructured("v1", "ConfigMap")
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


class Partial(Resource, group="", version="v1", kind="ConfigMap", has_generation=False, omit_empty=True):
    """A class that does not know all of a ConfigMap."""

    immutable: bool | None = None


@pytest.fixture
async def server(backend):
    """An embedded server of the test's own, or None for the real one."""
    if backend.name == "embedded":
        async with ApiServer() as server:
            yield server
    else:
        yield None


@pytest.fixture
async def cluster(backend, server):
    token = f"Bearer {backend.token}" if backend.token else None
    config = ClusterConfig(
        server=server.url if server else backend.url, ca_file=backend.ca or None, authorization=token
    )
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(cluster_at(config))


@pytest.fixture
def client(cluster):
    return cluster.client


@pytest.fixture
def team(cluster):
    return cluster.namespace


def config(team, name="c", **data):
    return ConfigMap(name=name, namespace=team, data=data)


def as_dict(team, name="c", **data):
    return {"metadata": {"name": name, "namespace": team}, "data": data}


async def test_a_class_and_a_dict_are_created_read_replaced_and_deleted_alike(client, team):
    typed = await client.create(config(team, "typed", a="1"))
    plain = await client.create(as_dict(team, "plain", a="1"), CONFIG)
    assert (typed.data, plain["data"]) == ({"a": "1"}, {"a": "1"})
    assert (plain["apiVersion"], plain["kind"]) == ("v1", "ConfigMap")
    typed.data["b"] = "2"
    plain["data"]["b"] = "2"
    assert (await client.replace(typed)).data == {"a": "1", "b": "2"}
    assert (await client.replace(plain, CONFIG))["data"] == {"a": "1", "b": "2"}
    assert (await client.get(ConfigMap, "plain", namespace=team)).data == {"a": "1", "b": "2"}
    assert (await client.get(CONFIG, "typed", namespace=team))["data"] == {"a": "1", "b": "2"}
    for name in ("typed", "plain"):
        assert await client.delete(ConfigMap, name, namespace=team)
        with pytest.raises(
            NotFound, match=rf'get configmaps {team}/{name}: 404 NotFound: configmaps "{name}" not found$'
        ):
            await client.get(ConfigMap, name, namespace=team)


async def test_a_name_can_be_left_to_the_server(client, team):
    made = await client.create({"metadata": {"generateName": "x-", "namespace": team}}, CONFIG)
    assert re.fullmatch("x-[a-z0-9]{5}", made["metadata"]["name"])


async def test_what_is_there_already_is_not_made_again(client, team):
    await client.create(config(team))
    with pytest.raises(AlreadyExists, match=f"create configmaps {team}/c: 409"):
        await client.create(config(team))


async def test_a_replace_of_what_has_changed_is_a_conflict(client, team):
    typed = await client.create(config(team, a="1"))
    plain = await client.get(CONFIG, "c", namespace=team)
    await client.patch(ConfigMap, "c", {"data": {"a": "2"}}, patch=Patch.MERGE, namespace=team)
    with pytest.raises(Conflict, match=f"update configmaps {team}/c: 409 Conflict: it is at resourceVersion"):
        await client.replace(typed)
    with pytest.raises(Conflict, match="the object has been modified"):
        await client.replace(plain, CONFIG)
    assert (await client.get(ConfigMap, "c", namespace=team)).data == {"a": "2"}


async def test_a_replace_by_a_class_keeps_the_fields_that_it_does_not_know(client, team):
    await client.create(config(team, a="1"))
    partial = await client.get(Partial, "c", namespace=team)
    partial.labels["l"] = "1"
    await client.replace(partial)
    found = await client.get(ConfigMap, "c", namespace=team)
    assert (found.data, found.labels) == ({"a": "1"}, {"l": "1"})
    await client.update_with_retry(Partial, "c", lambda one: one.labels.clear(), namespace=team)
    found = await client.get(ConfigMap, "c", namespace=team)
    assert (found.data, found.labels) == ({"a": "1"}, {})


async def test_each_patch_changes_what_it_names_and_nothing_else(client, team):
    await client.create(config(team, a="1", b="2"))

    async def patched(change, patch, **options):
        return (await client.patch(ConfigMap, "c", change, patch=patch, namespace=team, **options)).data

    assert await patched({"data": {"a": None, "c": "3"}}, Patch.MERGE) == {"b": "2", "c": "3"}
    assert await patched({"data": {"b": None}}, Patch.STRATEGIC) == {"c": "3"}
    assert (
        await patched(
            [{"op": "test", "path": "/data/c", "value": "3"}, {"op": "remove", "path": "/data/c"}], Patch.JSON
        )
        == {}
    )
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"d": "4"}}
    assert await patched(wanted, Patch.APPLY) == {"d": "4"}
    with pytest.raises(Conflict):
        await patched([{"op": "test", "path": "/data/d", "value": "5"}], Patch.JSON)
    with pytest.raises(Conflict):
        await patched({"metadata": {"resourceVersion": "1"}, "data": {"d": "5"}}, Patch.MERGE)


async def test_a_strategic_patch_of_a_custom_resource_is_told(cluster, client, team):
    await cluster.create(Widget, "w")
    with pytest.raises(UnsupportedMediaType, match=f"patch widgets.runtime.example.com {team}/w: 415"):
        await client.patch(Widget, "w", {"spec": {"size": 2}}, patch=Patch.STRATEGIC, namespace=team)


async def test_apply_owns_what_it_says(client, team):
    assert (await client.apply(config(team, a="1", b="1"))).data == {"a": "1", "b": "1"}
    other = {"field_manager": "other"}
    with pytest.raises(ApplyConflict, match=f"apply configmaps {team}/c: 409") as caught:
        await client.apply(config(team, a="2"), **other)
    assert [(cause.reason, cause.field) for cause in caught.value.causes] == [("FieldManagerConflict", ".data.a")]
    assert (await client.apply(config(team, a="2"), force=True, **other)).data == {"a": "2", "b": "1"}
    assert (await client.apply(config(team, b="2"))).data == {"a": "2", "b": "2"}
    assert (await client.apply(as_dict(team), CONFIG))["data"] == {"a": "2"}


async def test_what_was_read_can_be_applied(client, team):
    made = await client.create(config(team, a="1"))
    made.data["a"] = "2"
    assert (await client.apply(made, force=True)).data == {"a": "2"}
    plain = await client.get(CONFIG, "c", namespace=team)
    plain["data"]["a"] = "3"
    assert (await client.apply(plain, CONFIG, force=True))["data"] == {"a": "3"}


async def test_the_status_is_a_thing_of_its_own(client, team):
    made = await client.create(Widget(name="w", namespace=team))
    made.status.note, made.spec.size = "new", 5
    assert (await client.replace(made, subresource="status")).spec.size == 1
    found = await client.get(Widget, "w", namespace=team, subresource="status")
    assert (found.status.note, found.spec.size) == ("new", 1)
    await client.patch(Widget, "w", {"status": {"parts": 3}}, patch=Patch.MERGE, namespace=team, subresource="status")
    await client.update_with_retry(
        Widget, "w", lambda widget: setattr(widget.status, "note", "newer"), namespace=team, subresource="status"
    )
    wanted = Widget(name="w", namespace=team)
    wanted.status.conditions.set("Ready", True, "Made")
    wanted.status.condition_list[0].last_transition_time = made.metadata.creation_timestamp
    found = await client.apply(wanted, subresource="status")
    assert (found.status.note, found.status.parts) == ("newer", 3)
    assert found.status.conditions.get("Ready").status == "True"
    assert found.spec.size == 1


async def test_a_scale_is_read_and_set(client, team):
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    await client.create({"metadata": {"name": "d", "namespace": team}, "spec": spec}, DEPLOYMENT)
    scale = await client.get_scale(DEPLOYMENT, "d", namespace=team)
    assert (scale.replicas, scale.actual, scale.selector) == (2, 0, "a=b")
    with pytest.raises(Conflict):
        await client.set_scale(DEPLOYMENT, "d", 9, namespace=team, resource_version="1")
    await client.set_scale(DEPLOYMENT, "d", 8, namespace=team, dry_run=True)
    assert (await client.get_scale(DEPLOYMENT, "d", namespace=team)).replicas == 2
    assert (
        await client.set_scale(DEPLOYMENT, "d", 3, namespace=team, resource_version=scale.resource_version)
    ).replicas == 3
    assert (await client.set_scale(DEPLOYMENT, "d", 0, namespace=team)).replicas == 0
    assert (await client.get(DEPLOYMENT, "d", namespace=team))["spec"]["replicas"] == 0
    with pytest.raises(NotFound):
        await client.get_scale(DEPLOYMENT, "e", namespace=team)


async def make_pod(client, team, name="p", **labels):
    spec = TEMPLATE["spec"] | {"nodeName": "n"}
    pod = await client.create({"metadata": {"name": name, "namespace": team, "labels": labels}, "spec": spec}, POD)
    await client.patch(
        POD, name, {"status": {"phase": "Running"}}, patch=Patch.MERGE, namespace=team, subresource="status"
    )
    return pod


async def test_a_pod_is_evicted(client, team):
    pod = await make_pod(client, team)
    await client.evict("p", namespace=team, dry_run=True)
    assert "deletionTimestamp" not in (await client.get(POD, "p", namespace=team))["metadata"]
    with pytest.raises(Conflict):
        await client.evict("p", namespace=team, uid="00000000-0000-0000-0000-000000000000")
    await client.evict("p", namespace=team, uid=pod["metadata"]["uid"], grace_period=7)
    found = await client.get(POD, "p", namespace=team)
    assert found["metadata"]["deletionGracePeriodSeconds"] == 7
    assert [each["reason"] for each in found["status"]["conditions"]] == ["EvictionByEvictionAPI"]
    await client.delete(POD, "p", namespace=team, grace_period=0)
    with pytest.raises(NotFound, match=f"create pods/eviction {team}/p: 404"):
        await client.evict("p", namespace=team)


async def test_a_disruption_budget_is_told_as_what_it_is(backend, client, team):
    if backend.name == "embedded":
        pytest.skip("PodDisruptionBudgets: see differences.md")
    await make_pod(client, team, app="web")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await client.create({"metadata": {"name": "web", "namespace": team}, "spec": spec}, BUDGET)
    with pytest.raises(DisruptionBudgetExceeded, match="budget web is still being processed"):
        await client.evict("p", namespace=team)
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    await client.patch(BUDGET, "web", {"status": status}, patch=Patch.MERGE, namespace=team, subresource="status")
    with pytest.raises(DisruptionBudgetExceeded) as caught:
        await client.evict("p", namespace=team)
    assert str(caught.value) == (
        f"create pods/eviction {team}/p: 429 TooManyRequests: Cannot evict pod as it would violate the pod's disruption"
        " budget. The disruption budget web needs 1 healthy pods and has 0 currently; wait until more of its pods are"
        " healthy, or change the PodDisruptionBudget"
    )
    change = {"status": {"disruptionsAllowed": 1}}
    await client.patch(BUDGET, "web", change, patch=Patch.MERGE, namespace=team, subresource="status")
    await client.evict("p", namespace=team)


async def test_a_token_is_issued(client, team):
    await client.create({"metadata": {"name": "s", "namespace": team}}, ACCOUNT)
    token = await client.create_token("s", namespace=team, audiences=("me",), seconds=1200)
    assert token.token.count(".") == 2
    assert token.token not in repr(token)
    assert token.expires.tzinfo is not None
    with pytest.raises(Invalid, match=f"create serviceaccounts/token {team}/s: 422"):
        await client.create_token("s", namespace=team, seconds=1)
    with pytest.raises(NotFound):
        await client.create_token("t", namespace=team)


async def test_a_deletion_with_a_wrong_precondition_deletes_nothing(client, team):
    made = await client.create(config(team))
    for wrong in ({"uid": "00000000-0000-0000-0000-000000000000"}, {"resource_version": "1"}):
        with pytest.raises(Conflict, match=f"delete configmaps {team}/c: 409"):
            await client.delete(ConfigMap, "c", namespace=team, **wrong)
    assert await client.delete(
        ConfigMap, "c", namespace=team, uid=made.uid, resource_version=made.metadata.resource_version
    )


async def test_a_deletion_says_what_becomes_of_what_is_owned(client, team):
    await client.create(config(team))
    assert not await client.delete(ConfigMap, "c", namespace=team, propagation="Orphan", dry_run=True)
    assert (await client.get(ConfigMap, "c", namespace=team)).metadata.finalizers == []
    await client.create(config(team, "d"))
    assert not await client.delete(CONFIG, "c", namespace=team, propagation="Foreground")


async def test_delete_all_takes_what_is_selected_in_one_namespace(client, team):
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await client.create(ConfigMap(name=name, namespace=team, labels={"l": label}))
    would = await client.delete_all(ConfigMap, namespace=team, labels={"l": "x"}, dry_run=True)
    assert sorted(each.name for each in would) == ["a", "b"]
    gone = await client.delete_all(CONFIG, namespace=team, labels="l in (x)")
    assert sorted(each["metadata"]["name"] for each in gone) == ["a", "b"]
    assert [each.name async for each in client.list(ConfigMap, namespace=team, labels="l")] == ["c"]
    gone = await client.delete_all(ConfigMap, namespace=team, fields={"metadata.name": "c"})
    assert [each.name for each in gone] == ["c"]
    await client.create(Widget(name="w", namespace=team))
    assert [each.name for each in await client.delete_all(Widget, namespace=team)] == ["w"]
    assert await client.delete_all(Widget, namespace=team) == []


async def test_a_dry_run_changes_nothing(client, team):
    before = await client.create(config(team, a="1"))
    dry = {"dry_run": True}
    assert (await client.create(config(team, "new"), **dry)).name == "new"
    assert (await client.apply(config(team, "new"), **dry)).name == "new"
    before.data["a"] = "2"
    assert (await client.replace(before, **dry)).data == {"a": "2"}
    assert (
        await client.patch(ConfigMap, "c", {"data": {"a": "2"}}, patch=Patch.MERGE, namespace=team, **dry)
    ).data == {"a": "2"}
    changed = await client.update_with_retry(ConfigMap, "c", lambda one: one.data.clear(), namespace=team, **dry)
    assert changed.data == {}
    assert await client.delete(ConfigMap, "c", namespace=team, **dry)
    assert [
        each.name for each in await client.delete_all(ConfigMap, namespace=team, fields={"metadata.name": "c"}, **dry)
    ] == ["c"]
    after = await client.get(ConfigMap, "c", namespace=team)
    assert (after.data, after.metadata.resource_version) == ({"a": "1"}, before.metadata.resource_version)
    with pytest.raises(NotFound):
        await client.get(ConfigMap, "new", namespace=team)


async def test_unknown_fields_are_refused_warned_of_or_dropped(cluster, team):
    wrong = as_dict(team) | {"dat": {"a": "1"}}
    log = Log()
    async with connected(cluster.config, log=log) as client:
        with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "dat"'):
            await client.create(wrong, CONFIG)
        await cluster.create(Widget, "w")
        with pytest.raises(Invalid, match="strict decoding error"):
            await client.patch(Widget, "w", {"spec": {"siz": 1}}, patch=Patch.MERGE, namespace=team)
        assert not log.said("the API server warns")
        assert "dat" not in await client.create(wrong, CONFIG, field_validation="Warn")
        assert [line["warning"] for line in log.said("the API server warns")] == ['unknown field "dat"']
        await client.apply(as_dict(team), CONFIG, field_validation="Ignore")
        assert len(log.said("the API server warns")) == 1


async def test_fields_are_owned_by_who_is_named(client, team):
    made = await client.create(as_dict(team, a="1"), CONFIG, field_manager="somebody")
    assert [each["manager"] for each in made["metadata"]["managedFields"]] == ["somebody"]


async def test_a_list_comes_in_pages_and_says_its_moment(client, team):
    for number in range(7):
        await client.create(ConfigMap(name=f"p{number}", namespace=team, labels={"l": str(number % 2)}))
    listing = client.list(ConfigMap, namespace=team, labels="l", limit=3)
    assert listing.resource_version == ""
    assert [each.name async for each in listing] == [f"p{number}" for number in range(7)]
    assert int(listing.resource_version) > 0
    listing = client.list(CONFIG, namespace=team, labels={"l": "1"}, limit=2)
    assert [each["metadata"]["name"] for each in await listing.all()] == ["p1", "p3", "p5"]
    assert {(each["apiVersion"], each["kind"]) async for each in listing} == {("v1", "ConfigMap")}
    found = client.list(ConfigMap, namespace=team, fields={"metadata.name": "p4"}, resource_version="0")
    assert [each.name async for each in found] == ["p4"]


@pytest.fixture
def forget(request, cluster, server):
    """Make the server forget all that was before a version. What kube has in its caches it still answers from, and so
    continuations there go on from the first version there ever was: the server answers them with a 410 of its own."""

    async def compact(version):
        if server is not None:
            server.compact()
            return
        etcd = f"http://127.0.0.1:{request.getfixturevalue('kube')._ports['etcd']}"
        body = {"revision": version, "physical": True}
        async with aiohttp.ClientSession() as session, session.post(f"{etcd}/v3/kv/compaction", json=body) as answer:
            assert answer.status == 200, await answer.text()
        transport = cluster.client._transport
        send = transport.request
        transport.request = lambda asked: send(
            replace(asked, path=re.sub(r"(?<=[?&]continue=)[^&]+", _from_the_beginning, asked.path))
        )

    return compact


def _from_the_beginning(found):
    token = json.loads(base64.urlsafe_b64decode(unquote(found[0]) + "=="))
    return base64.urlsafe_b64encode(json.dumps(token | {"rv": 1}).encode()).rstrip(b"=").decode()


async def test_a_list_whose_moment_is_forgotten_half_way_goes_on_with_a_newer_one(client, team, forget):
    for number in range(7):
        await client.create(Widget(name=f"p{number}", namespace=team, labels={"l": ""}))
    page = await client.list_page(Widget.resource_type, namespace=team, labels="l", limit=3)
    listing = client.list(Widget, namespace=team, labels="l", limit=3)
    objects = aiter(listing)
    given = [(await anext(objects)).name for _ in range(3)]
    first = listing.resource_version
    await client.delete(Widget, "p0", namespace=team)
    await client.patch(Widget, "p1", {"spec": {"size": 2}}, patch=Patch.MERGE, namespace=team)
    last = await client.create(Widget(name="p9", namespace=team, labels={"l": ""}))
    await forget(last.metadata.resource_version)
    with pytest.raises(Expired):
        await client.list_page(Widget.resource_type, namespace=team, labels="l", continue_token=page.continue_token)
    given += [each.name async for each in objects]
    assert given == ["p0", "p1", "p2", "p1", "p3", "p4", "p5", "p6", "p9"]
    assert int(listing.resource_version) > int(first)


async def test_a_watch_tells_what_happens_to_objects(client, team):
    made = await client.create(config(team, a="1"))
    told = []
    async with (
        asyncio.timeout(10),
        client.watch(
            ConfigMap, namespace=team, resource_version=made.metadata.resource_version, fields={"metadata.name": "c"}
        ) as events,
    ):
        await client.patch(ConfigMap, "c", {"data": {"a": "2"}}, patch=Patch.MERGE, namespace=team)
        await client.delete(ConfigMap, "c", namespace=team)
        await client.create(config(team, a="3"))
        async for event in events:
            match event:
                case Change(kind, one):
                    told.append((kind, one.data["a"]))
                    if len(told) == 3:
                        break
    assert told == [("MODIFIED", "2"), ("DELETED", "2"), ("ADDED", "3")]


async def test_a_watch_without_a_version_begins_with_what_is_there_and_ends_with_a_bookmark(client, team):
    await client.create(as_dict(team, a="1"), CONFIG)
    async with (
        asyncio.timeout(20),
        client.watch(CONFIG, namespace=team, fields="metadata.name=c", timeout_seconds=3) as events,
    ):
        told = [event async for event in events]
    assert (told[0].type, told[0].object["data"], told[0].object["kind"]) == ("ADDED", {"a": "1"}, "ConfigMap")
    assert {type(event) for event in told[1:]} <= {Bookmark}  # none, or more than one: that is the server's affair


async def test_a_watch_from_a_forgotten_version_is_gone(cluster, client, team, forget):
    await cluster.create(Widget, "w")
    await forget((await cluster.create(Widget, "x")).metadata.resource_version)

    async def read():
        async with client.watch(Widget, namespace=team, resource_version="1", timeout_seconds=5) as events:
            async for _ in events:
                pass

    with pytest.raises(Expired, match=f"watch widgets.runtime.example.com {team}: 410 Expired"):
        await read()


async def test_any_path_can_be_read(client, team):
    assert b"gitVersion" in await client.get_raw("/version")
    assert b"ConfigMapList" in await client.get_raw(
        f"/api/v1/namespaces/{team}/configmaps", query={"limit": "1", "continue": None}
    )
    with pytest.raises(NotFound, match="get /nowhere: 404"):
        await client.get_raw("/nowhere")


async def test_no_such_kind_is_told_apart_from_no_such_object(client, team):
    asked = {
        "object": (ConfigMap, False, r'configmaps "x" not found$'),
        "custom object": (Widget, False, r'widgets.runtime.example.com "x" not found$'),
        "group": (
            Unstructured("nowhere.example.com/v1", "Thing"),
            True,
            r"install the CustomResourceDefinition things\.nowh",
        ),
        "version": (
            Unstructured("runtime.example.com/v9", "Widget"),
            True,
            "install the CustomResourceDefinition widgets",
        ),
        "plural": (
            Unstructured("runtime.example.com/v1", "Wodget"),
            True,
            "install the CustomResourceDefinition wodgets",
        ),
        "built-in": (Unstructured("v1", "Thing"), True, "does not serve things"),
        "built-in group": (Unstructured("apps/v1", "Thing"), True, "does not serve things.apps"),
        "built-in version": (Unstructured("apps/v9", "Deployment"), True, "does not serve deployments.apps"),
    }
    for what, (kind, no_such_kind, text) in asked.items():
        with pytest.raises(NotFound, match=text) as caught:
            await client.get(kind, "x", namespace=team)
        assert caught.value.no_such_kind is no_such_kind, what
        if no_such_kind:
            with pytest.raises(NotFound, match=text):
                await client.list(kind, namespace=team).all()
    with pytest.raises(NotFound, match=r'namespaces "nowhere" not found; create the namespace first$'):
        await client.create(ConfigMap(name="c", namespace="nowhere"))


async def test_what_the_server_can_not_do_has_a_name(client, team):
    with pytest.raises(MethodNotAllowed):
        await client.delete_all(Namespace, labels="x=y")
    with pytest.raises(RequestEntityTooLarge):
        await client.create(config(team, a="x" * (3 * 2**20)))


# What RBAC forbids.

ROLE = "rbac.authorization.k8s.io/v1"
PROPOSED = re.compile(
    r"; a (?:Role in namespace (?P<namespace>\S+)|ClusterRole) would allow it with the rule (?P<rule>\{.*\}), "
    r"bound to this user by a (?P<binding>\w+)$"
)


@asynccontextmanager
async def restricted(cluster):
    """A client that is a service account which may do nothing; yields it and how to grant it what a text proposes."""
    admin, team = cluster.client, cluster.namespace
    await admin.create({"metadata": {"name": "s", "namespace": team}}, ACCOUNT)
    token = await admin.create_token("s", namespace=team)
    subject = {"kind": "ServiceAccount", "name": "s", "namespace": team}
    granted = []

    async def grant(text):
        found = PROPOSED.search(text)
        assert found, text
        wide = found["namespace"] is None
        assert found["binding"] == ("ClusterRoleBinding" if wide else "RoleBinding")
        name = f"{team}-{len(granted)}"
        meta = {"metadata": {"name": name} | ({} if wide else {"namespace": found["namespace"]})}
        kind = "ClusterRole" if wide else "Role"
        role, binding = (Unstructured(ROLE, each, namespaced=not wide) for each in (kind, f"{kind}Binding"))
        await admin.create(meta | {"rules": [yaml.safe_load(found["rule"])]}, role)
        reference = {"apiGroup": ROLE.partition("/")[0], "kind": kind, "name": name}
        await admin.create(meta | {"roleRef": reference, "subjects": [subject]}, binding)
        granted.append((role, binding, name, None if wide else found["namespace"]))

    config = replace(cluster.config, authorization=f"Bearer {token.token}")
    async with connected(config) as client:
        try:
            yield client, grant
        finally:
            for role, binding, name, namespace in granted:
                await admin.delete(binding, name, namespace=namespace)
                await admin.delete(role, name, namespace=namespace)


async def watched(client, team):
    async with client.watch(ConfigMap, namespace=team, timeout_seconds=1):
        pass


ASKED = {
    "get": lambda client, team: client.get(Secret, "c", namespace=team),
    "list": lambda client, team: client.list(Secret, namespace=team).all(),
    "list everywhere": lambda client, team: client.list(Widget).all(),
    "create": lambda client, team: client.create(config(team, "new")),
    "apply": lambda client, team: client.apply(config(team, "new", a="1")),
    "apply what is there": lambda client, team: client.apply(config(team, a="1"), force=True),
    "merge": lambda client, team: client.patch(Widget, "c", {}, patch=Patch.MERGE, namespace=team),
    "replace": lambda client, team: client.replace(as_dict(team, a="2"), CONFIG),
    "delete": lambda client, team: client.delete(Widget, "c", namespace=team),
    "delete all": lambda client, team: client.delete_all(ConfigMap, namespace=team),
    "status": lambda client, team: client.patch(
        Widget, "c", {"status": {"note": "x"}}, patch=Patch.MERGE, namespace=team, subresource="status"
    ),
    "apply status": lambda client, team: client.apply(Widget(name="c", namespace=team), subresource="status"),
    "scale": lambda client, team: client.set_scale(DEPLOYMENT, "c", 3, namespace=team),
    "evict": lambda client, team: client.evict("c", namespace=team),
    "token": lambda client, team: client.create_token("s", namespace=team),
    "a namespace": lambda client, team: client.get(Namespace, team),
    "a kind that is in none": lambda client, team: client.get(
        Unstructured(ROLE, "ClusterRole", namespaced=False), "system:node"
    ),
    "a path": lambda client, team: client.get_raw("/metrics"),
    "a raw object": lambda client, team: client.get_raw(f"/api/v1/namespaces/{team}/pods/c/status"),
    "watch": watched,
}


@pytest.mark.parametrize("what", ASKED)
async def test_the_rule_that_a_forbidden_proposes_is_the_one_that_is_missing(backend, cluster, client, team, what):
    if backend.name == "embedded":
        pytest.skip("authorisation: see differences.md")
    await client.create(Secret(name="c", namespace=team))
    await client.create(config(team))
    await client.create(Widget(name="c", namespace=team))
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    await client.create({"metadata": {"name": "c", "namespace": team}, "spec": spec}, DEPLOYMENT)
    await make_pod(client, team, "c")
    async with restricted(cluster) as (servant, grant):
        with pytest.raises(Forbidden) as caught:
            await ASKED[what](servant, team)
        await grant(str(caught.value))
        # The authoriser hears of a role by a watch of its own.
        await answered(lambda: ASKED[what](servant, team), but=(Forbidden,), seconds=20)


async def test_a_refusal_by_admission_proposes_no_rule(client):
    with pytest.raises(Forbidden, match=r"this namespace may not be deleted$"):
        await client.delete(Namespace, "kube-system")


# Two who write at once.

ROUNDS = 1000


async def counters(cluster, rounds, plus, minus):
    """+50 by one client and -30 by another, at once, `rounds` times; returns how many tries there were."""
    await cluster.client.create(config(cluster.namespace, plus="0", minus="0", both="0"))
    tries = 0
    async with connected(cluster.config) as other:
        for _ in range(rounds):
            tries += sum(await asyncio.gather(plus(cluster.client), minus(other)))
    found = (await cluster.client.get(ConfigMap, "c", namespace=cluster.namespace)).data
    assert found == {"plus": str(50 * rounds), "minus": str(-30 * rounds), "both": str(20 * rounds)}
    return tries


async def test_two_who_patch_one_object_lose_nothing_a_thousand_times(cluster):
    """Each changes a field of its own, which no test guards, and one that both count in, which one does."""

    def change(field, step):
        async def once(client):
            tries = 0
            while True:
                tries += 1
                data = (await client.get(ConfigMap, "c", namespace=cluster.namespace)).data
                operations = [
                    {"op": "test", "path": "/data/both", "value": data["both"]},
                    {"op": "replace", "path": "/data/both", "value": str(int(data["both"]) + step)},
                    {"op": "replace", "path": f"/data/{field}", "value": str(int(data[field]) + step)},
                ]
                try:
                    await client.patch(ConfigMap, "c", operations, patch=Patch.JSON, namespace=cluster.namespace)
                except Conflict:
                    continue
                return tries

        return once

    tries = await counters(cluster, ROUNDS, change("plus", 50), change("minus", -30))
    assert tries > 2 * ROUNDS + 100


async def test_two_who_put_one_object_lose_nothing_a_thousand_times(cluster):
    def change(field, step):
        async def once(client):
            tries = 0

            def mutate(one):
                nonlocal tries
                tries += 1
                for key in ("both", field):
                    one.data[key] = str(int(one.data[key]) + step)

            await client.update_with_retry(ConfigMap, "c", mutate, namespace=cluster.namespace)
            return tries

        return once

    tries = await counters(cluster, ROUNDS, change("plus", 50), change("minus", -30))
    assert tries > 2 * ROUNDS + 100
