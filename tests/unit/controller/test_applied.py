"""When an apply may be skipped, also where the server says nothing of who owns what."""

import orjson
import pytest

from asyncctl.cache.header import read_entry
from asyncctl.controller.applied import ANNOTATION, Applied, covers, digest, shown_digest
from asyncctl.objects import ConfigMap, Secret
from asyncctl.operator import Operator
from tests.unit.forwarder import forwarding
from tests.unit.harness import Widget, working
from tests.unit.support import until

KIND = ConfigMap.resource_type
FIELDS = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:containers": {
            'k:{"name":"main"}': {
                ".": {},
                "f:name": {},
                "f:args": {},
                "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
            }
        },
        "f:finalizers": {'v:"a"': {}},
    },
}


@pytest.mark.parametrize(
    ("wanted", "covered"),
    [
        ({"metadata": {"labels": {"app": "x"}}}, True),
        ({"metadata": {"labels": {"app": "x", "tier": "y"}}}, False),
        ({"spec": {"selector": {"matchLabels": {"app": "x"}}}}, True),  # owned as a whole
        ({"spec": {"paused": True}}, False),
        ({"spec": {"containers": [{"name": "main", "args": ["a"]}]}}, True),
        ({"spec": {"containers": [{"name": "other"}]}}, False),
        ({"spec": {"containers": [{"name": "main", "image": "x"}]}}, False),
        ({"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]}}, False),  # it can't be told
        (
            {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}},
            False,  # the protocol is the server's
        ),
        ({"spec": {"finalizers": ["a"]}}, True),
        ({"spec": {"finalizers": ["a", "b"]}}, False),
        ({"spec": {"replicas": 1, "containers": "odd"}}, False),
    ],
)
def test_what_a_manager_owns_of_what_is_wanted(wanted, covered):
    assert covers(FIELDS, wanted) is covered


def stored(version, data, *, told=None, uid="u", managed=None):
    metadata = {"name": "c", "namespace": "n", "uid": uid, "resourceVersion": str(version)}
    metadata["annotations"] = {ANNOTATION: told} if told else {}
    if managed is not None:
        metadata["managedFields"] = [{"manager": "test", "operation": "Apply", "fieldsV1": managed}]
    return read_entry(orjson.dumps({"metadata": metadata, "data": data}), "test")


WANTED = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {"a": "1"}}
TOLD = digest(WANTED)


def test_without_a_record_only_the_very_version_of_the_answer_is_current():
    applied = Applied()
    entry = stored(5, {"a": "1"}, told=TOLD)
    assert not applied.is_current(KIND, entry, WANTED, TOLD, 7)
    applied.answered(KIND, entry, TOLD, 7)
    assert applied.is_current(KIND, entry, WANTED, TOLD, 7)
    for other in (stored(6, {"a": "1"}, told=TOLD), stored(5, {"a": "1"}, told=TOLD, uid="v")):
        assert not applied.is_current(KIND, other, WANTED, TOLD, 7)
    other = WANTED | {"data": {"a": "2"}}
    assert not applied.is_current(KIND, entry, other, digest(other), 7)
    applied.forget(KIND, ("n", "c"))
    assert not applied.is_current(KIND, entry, WANTED, TOLD, 7)


def test_a_record_of_nothing_is_no_record():
    applied = Applied()
    applied.answered(KIND, stored(5, {"a": "1"}, told=TOLD, managed={}), TOLD, 7)
    assert not applied.is_current(KIND, stored(6, {"a": "9"}, told=TOLD, managed={}), WANTED, TOLD, 7)


def test_what_looks_the_same_is_current_at_the_very_version_only():
    applied = Applied()
    entry = stored(5, {"a": "1"}, told=TOLD, managed={"f:data": {"f:a": {}}})
    assert not applied.looks_current(KIND, entry, 7)
    applied.answered(KIND, entry, TOLD, 7)
    assert applied.looks_current(KIND, entry, 7)
    later = stored(6, {"a": "1"}, told=TOLD, managed={"f:data": {"f:a": {}}})
    for other, look in ((entry, 8), (later, 7), (stored(5, {"a": "1"}, uid="v"), 7)):
        assert not applied.looks_current(KIND, other, look)
    assert applied.is_current(KIND, later, WANTED, TOLD, 8)  # the same wish in another form, and only a status changed
    assert applied.looks_current(KIND, later, 8)
    applied.answered(KIND, entry, TOLD, 0)  # it can't be told how it looks
    assert not applied.looks_current(KIND, entry, 0)


def test_what_a_secret_says_of_its_wish_does_not_depend_on_its_values_and_another_value_is_another_wish():
    kind = Secret.resource_type
    one, other = (WANTED | {"kind": "Secret", "data": {"a": value}} for value in ("MQ==", "Mg=="))
    more = one | {"data": {"a": "MQ==", "b": "MQ=="}}
    shown = shown_digest(one, kind)
    assert shown == shown_digest(other, kind) != shown_digest(more, kind)
    assert shown_digest(one, KIND) != shown_digest(other, KIND)
    entry = stored(5, {"a": "MQ=="}, told=shown, managed={"f:metadata": {"f:annotations": {}}, "f:data": {"f:a": {}}})
    fresh, known = Applied(), Applied()
    known.answered(kind, entry, digest(one), 7)
    for applied in (fresh, known):
        assert not applied.is_current(kind, entry, other, digest(other), 8, shown=shown)
        assert applied.is_current(kind, entry, one, digest(one), 7, shown=shown)


def test_an_object_without_a_version_is_never_current():
    applied = Applied()
    entry = stored(0, {"a": "1"}, told=TOLD)
    applied.answered(KIND, entry, TOLD, 7)
    assert not applied.is_current(KIND, entry, WANTED, TOLD, 7)


@pytest.mark.parametrize("managed", [{"f:data": {"f:a": {}}}, {"f:data": {}}], ids=["leaf", "whole"])
def test_with_a_record_what_we_own_and_its_values_count_and_nothing_else(managed):
    applied = Applied()
    applied.answered(KIND, stored(5, {"a": "1"}, told=TOLD, managed=managed), TOLD, 7)
    whole = managed == {"f:data": {}}
    assert applied.is_current(KIND, stored(6, {"a": "1"}, told=TOLD, managed=managed), WANTED, TOLD, 7)
    foreign = stored(7, {"a": "1", "b": "2"}, told=TOLD, managed=managed)
    assert applied.is_current(KIND, foreign, WANTED, TOLD, 7) is not whole
    assert not applied.is_current(KIND, stored(8, {"a": "9"}, told=TOLD, managed=managed), WANTED, TOLD, 7)
    assert not applied.is_current(KIND, stored(9, {"a": "1"}, told="other", managed=managed), WANTED, TOLD, 7)
    lost = stored(10, {"a": "1"}, told=TOLD, managed={"f:data": {"f:b": {}}})  # taken over, and put back
    assert not applied.is_current(KIND, lost, WANTED, TOLD, 7)
    assert not applied.is_current(KIND, stored(11, {"a": "1"}, told=TOLD), WANTED, TOLD, 7)  # the record is gone


def without_managed_fields(value):
    """As an aggregated server may answer."""
    if isinstance(value, dict):
        return {key: without_managed_fields(each) for key, each in value.items() if key != "managedFields"}
    return [without_managed_fields(each) for each in value] if isinstance(value, list) else value


async def test_where_the_server_keeps_no_record_an_object_costs_two_requests_and_no_more(cluster):
    passes, size = [], ["1"]

    def operate():
        operator = Operator("test")

        @operator.controller(Widget, owns=[ConfigMap])
        async def reconcile(ctx, widget):
            await ctx.apply(ConfigMap(name=widget.name, data={"size": size[0]}))
            passes.append(widget.name)

        return operator

    async def passing(running):
        count = len(passes)
        running._controllers[0].queue.add((cluster.namespace, "w"))
        await until(lambda: len(passes) > count)

    def writes(running):
        samples = running.metrics.families.requests.collect().samples
        return sum(sample.value for sample in samples if sample.labels["method"] != "GET")

    async with forwarding(cluster) as (stripped, forwarder):
        forwarder.change = without_managed_fields
        await stripped.create(Widget, "w")
        async with working(operate(), stripped) as running:
            await until(lambda: len(passes) >= 2)  # the second is woken by the ConfigMap
            for _ in range(3):
                await passing(running)
            assert writes(running) == 2
            await stripped.patch(ConfigMap, "w", {"data": {"size": "9"}})
            await stripped.until(ConfigMap, "w", lambda found: found.data == {"size": "1"})
            await passing(running)
            assert writes(running) == 3
            await stripped.patch(ConfigMap, "w", {"data": {"theirs": "1"}})  # it can't be told whether it is ours
            await until(lambda: writes(running) == 4)
            size[0] = "2"
            for _ in range(3):
                await passing(running)
            assert writes(running) == 5
        async with working(operate(), stripped) as running:
            for _ in range(3):
                await passing(running)
            assert writes(running) == 1
        assert (await stripped.get(ConfigMap, "w")).data == {"size": "2", "theirs": "1"}
