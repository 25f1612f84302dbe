"""What may be declared of a Watch, and what can't be meant is refused with the fix."""

import pytest

from asyncctl import Operator, Watch, generation_changed, labels_changed, of_header, of_object, to_every, to_indexed
from asyncctl.controller.sources import default_predicate
from asyncctl.objects import ConfigMap, Namespace, Secret, Unstructured
from tests.unit.harness import Widget


async def nothing(ctx, obj):
    pass


def keys(_):
    return []


def test_selectors_may_be_maps_and_namespaces_are_said_once():
    watch = Watch(Secret, keys, labels={"app": "a"}, fields={"type": "a,b"}, namespaces=["a", "b", "a"])
    assert (watch.labels, watch.fields, watch.namespaces) == ("app=a", r"type=a\,b", ("a", "b"))


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"labels": ""}, "Watch of v1 Secret: labels='': an empty selector selects everything"),
        ({"fields": {}}, "fields='': an empty selector"),
        ({"labels": {"a b": "c"}}, "is no label"),
        ({"namespaces": ()}, "namespaces is empty, so that nothing would be watched; leave it out"),
        ({"metadata_only": True, "to": of_object(keys)}, "to reads the object, and metadata_only leaves nothing of it"),
        ({"metadata_only": True, "indexes": {"size": keys}}, "size reads the object"),
    ],
)
def test_what_can_not_be_meant_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Watch(Secret, **options)


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"namespaces": "team"}, "namespaces='team' is a text, and each of its letters would be taken: write a tuple"),
        ({"to": "widgets"}, "Watch of v1 Secret: to is 'widgets', and no function"),
        ({"indexes": {"size": "spec.size"}}, "size is 'spec.size', and no function"),
        ({"wanted": True}, "wanted is True, and no function"),
        ({"when": lambda old, new: True}, "is no Predicate; wrap a function of"),
    ],
)
def test_what_is_of_the_wrong_sort_is_refused(options, problem):
    with pytest.raises(TypeError, match=problem):
        Watch(Secret, **options)


def test_a_kind_that_is_in_no_namespace_can_not_be_narrowed_to_some():
    with pytest.raises(
        ValueError, match=r"Watch of v1 Namespace: it is in no namespace; leave out namespaces=\('a',\)"
    ):
        Watch(Namespace, namespaces=["a"])


def test_a_header_is_enough_for_an_index_of_metadata():
    Watch(Secret, metadata_only=True, indexes={"app": of_header(lambda header: [header.labels["app"]])})


@pytest.mark.parametrize(
    "options, problem",
    [
        (
            {"watches": [Watch(Secret)]},
            r"watches v1 Secret, and whom to wake is not said: Watch\(…, to=…\), or put it in",
        ),
        ({"watches": [Secret]}, "whom to wake is not said"),
        (
            {"reads": [Watch(Secret, to=keys)]},
            "reads v1 Secret, which wakes nobody; with to= and when= put it in watches=",
        ),
        ({"reads": [Watch(Secret, when=labels_changed)]}, "reads v1 Secret, which wakes nobody"),
        ({"owns": [Watch(Secret, metadata_only=True)]}, "can't own v1 Secret by its metadata alone"),
        ({"reads": [Watch(Widget, labels="a=b")]}, r"do that where it is declared: operator.controller\(Watch\(Widget"),
        ({"reads": [Watch(Widget, indexes={"a": keys})]}, "can't narrow or index its own kind"),
        ({"watches": [Watch(Secret, to=to_indexed("secret"))]}, "'secret'.* needs an index of that name"),
        ({"rate": 0.0}, "rate=0.0 passes a second is no limit; leave it out for none"),
        ({"rate": float("inf")}, "rate=inf"),
    ],
)
def test_sources_that_do_not_go_together_are_refused_by_the_controllers_name(options, problem):
    with pytest.raises(ValueError, match=f"controller 'widgets'.*{problem}"):
        Operator("test").controller(Widget, **options)


@pytest.mark.parametrize(
    "primary, when, problem",
    [
        (Watch(Widget, to=keys), None, "a change of .* wakes the object itself; leave out to="),
        (Watch(Widget, metadata_only=True), None, "is given the whole object; leave out metadata_only"),
        (Watch(Widget, wanted=lambda settings: True), None, "is always there, and so is what it reconciles"),
        (Watch(Widget, when=labels_changed), generation_changed, "when= is said twice"),
    ],
)
def test_a_primary_kind_that_can_not_be_meant_so_is_refused(primary, when, problem):
    with pytest.raises(ValueError, match=f"controller 'widgets'.*{problem}"):
        Operator("test").controller(primary, when=when)


def test_the_primary_kind_may_be_narrowed_indexed_and_have_its_predicate_in_the_watch():
    watch = Watch(Widget, labels="a=b", indexes={"size": lambda widget: [str(widget.spec.size)]}, when=labels_changed)
    declared = Operator("test").controller(watch, watches=[Watch(Widget, to=to_every)])(nothing)
    assert declared.kind is Widget
    assert declared.primary == watch
    operator = Operator("test")
    assert operator.controller(Widget, when=generation_changed)(nothing).primary.when is generation_changed


def test_a_kind_whose_status_would_wake_its_own_writer_is_refused_with_the_fix():
    """Without a status subresource each write of a status is a new generation."""
    gadget = Unstructured("example.com/v1", "Gadget", has_status=False)
    with pytest.raises(ValueError, match=r"Declare `subresources: \{status: \{\}\}` in its CRD") as refused:
        Operator("test").controller(gadget)
    assert "controller 'gadgets'" in str(refused.value)
    Operator("test").controller(gadget, when=generation_changed)
    Operator("test").controller(Unstructured("v1", "ConfigMap", has_status=False))


def test_a_kind_without_a_generation_is_woken_by_any_change():
    from tests.unit.controller.test_mapping import entry

    old, new = entry("a", 1).header, entry("a", 2).header
    assert default_predicate(ConfigMap.resource_type)(old, new)
    assert not default_predicate(Widget.resource_type)(old, new)
