"""An author who changes what he was given changes no cache: neither objects, nor headers, nor what lists give."""

import msgspec
import pytest

from asyncctl import Operator, Predicate, Watch, of_header, of_object
from asyncctl.objects import ConfigMap, Unstructured
from tests.unit.controller.test_mapping import Cache, entry
from tests.unit.harness import Widget, WidgetSpec, working
from tests.unit.support import until

CONFIG = Unstructured("v1", "ConfigMap")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.labels.update(a="changed"),
        lambda header: header.labels.__setitem__("a", "changed"),
        lambda header: header.labels.pop("a"),
        lambda header: setattr(header, "name", "changed"),
        lambda header: setattr(header, "labels", {}),
        lambda header: setattr(header.owners[0], "name", "changed"),
        lambda header: header.finalizers.append("x/y"),
        lambda header: header.owners.clear(),
    ],
    ids=["update", "setitem", "pop", "name", "labels", "owner", "finalizers", "owners"],
)
def test_nothing_of_a_header_can_be_changed(change):
    from asyncctl.cache.header import read_entry

    owner = '{"apiVersion":"v1","kind":"A","name":"a","uid":"1"}'
    raw = (
        f'{{"metadata":{{"name":"n","labels":{{"a":"b"}},"finalizers":["f/g"],"ownerReferences":[{owner}]}}}}'.encode()
    )
    header, before = read_entry(raw).header, read_entry(raw).header
    with pytest.raises((AttributeError, TypeError)):
        change(header)
    assert header == before
    assert header.labels == {"a": "b"}


def test_what_a_mapper_of_the_object_changes_is_its_own():
    from asyncctl.controller.mapping import mapping

    def change(config):
        config.data["of"] = "changed"
        config.metadata.labels["x"] = "y"
        return [("team", "w")]

    cache, one = Cache(), entry("c", data={"of": "a"})
    before = msgspec.structs.astuple(one)
    whom = mapping(Watch(ConfigMap, to=of_object(change)), cache, Cache())
    assert cache.step(whom, None, one) == {("team", "w")}
    assert msgspec.structs.astuple(one) == before


async def test_an_author_who_changes_all_he_is_given_changes_no_cache(cluster):
    """Within a pass and from pass to pass, for classes and for dicts, in mappers, predicates and indexes."""
    operator, seen, blamed = Operator("test"), [], []

    def spoil(header):
        try:
            header.labels["spoilt"] = "yes"
        except TypeError:
            blamed.append(header.name)
        return [header.name]

    def differs(old, new):
        spoil(new)
        return True

    def whom(header):
        spoil(header)
        return [(header.namespace, "w")]

    @operator.controller(
        Watch(Widget, indexes={"name": of_header(spoil)}, when=Predicate(differs)),
        watches=[Watch(ConfigMap, to=whom)],
    )
    async def reconcile(ctx, widget):
        config, plain = ctx.get(ConfigMap, "c"), ctx.get(CONFIG, "c")
        seen.append((
            widget.spec.size, dict(widget.labels), dict(config.data), plain["data"],
            [(one.spec.size, dict(one.labels)) for one in ctx.list(Widget, index=("name", "w"))],
            [one["data"] for one in ctx.list(CONFIG, namespace=widget.namespace, labels={"kept": "yes"})],
            ctx.header.labels == {"tier": "gold"},
        ))  # fmt: skip
        widget.spec.size = 7
        widget.labels["spoilt"] = "yes"
        widget.metadata.finalizers.append("x/y")
        config.data["spoilt"] = "yes"
        plain["data"] = {"spoilt": "yes"}
        plain["metadata"]["labels"].clear()
        for one in ctx.list(Widget):
            one.spec.size = 8
        for one in ctx.list(CONFIG):
            one.clear()

    await cluster.create(ConfigMap, "c", data={"a": "b"}, labels={"kept": "yes"})
    await cluster.create(Widget, "w", labels={"tier": "gold"}, spec=WidgetSpec(size=3))
    async with working(operator, cluster) as running:
        for passes in (1, 2, 3):
            await until(lambda passes=passes: len(seen) >= passes)
            running.wake(Widget, "w", namespace=cluster.namespace)
        await cluster.patch(Widget, "w", {"metadata": {"annotations": {"any": "thing"}}})
        await until(lambda: len(blamed) > 3)
    gold, data = {"tier": "gold"}, {"a": "b"}
    assert len(seen) >= 3
    assert all(each == (3, gold, data, data, [(3, gold)], [data], True) for each in seen)
    assert {"w", "c"} <= set(blamed)


async def test_what_apply_is_given_and_gives_is_the_authors_own(cluster):
    operator, seen = Operator("test"), []

    @operator.controller(Widget, owns=[ConfigMap])
    async def reconcile(ctx, widget):
        wanted = ConfigMap(name="c", data={"a": "b"})
        made = await ctx.apply(wanted)
        seen.append((dict(made.data), dict(ctx.get(ConfigMap, "c").data), wanted.metadata.namespace))
        made.data["spoilt"] = "yes"
        wanted.data["spoilt"] = "yes"

    await cluster.create(Widget, "w")
    async with working(operator, cluster) as running:
        for passes in (1, 2, 3):
            await until(lambda passes=passes: len(seen) >= passes)
            running.wake(Widget, "w", namespace=cluster.namespace)
    assert all(each == ({"a": "b"}, {"a": "b"}, "") for each in seen)
