import pytest

from asyncctl.apiserver.resources import ScalePaths, builtins, from_crd
from tests.unit.apiserver.golden import definition


def crd(**version):
    body = definition()
    body["spec"]["versions"][0].update(version)
    return body


@pytest.mark.parametrize(
    ("plural", "resource", "api_version"),
    [
        ("configmaps", "configmaps", "v1"),
        ("leases", "leases.coordination.k8s.io", "coordination.k8s.io/v1"),
        ("customresourcedefinitions", "customresourcedefinitions.apiextensions.k8s.io", "apiextensions.k8s.io/v1"),
    ],
)
def test_names_of_built_in_kinds(plural, resource, api_version):
    kind = next(kind for kind in builtins() if kind.plural == plural)
    assert (kind.resource, kind.api_version) == (resource, api_version)


def test_every_kind_of_the_first_version_is_there():
    assert {kind.kind for kind in builtins()} == {
        *("ConfigMap", "CustomResourceDefinition", "Deployment", "Event", "Lease", "Namespace"),
        *("PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount", "StatefulSet"),
    }


def test_no_two_kinds_share_an_address():
    addresses = [(kind.api_version, kind.plural) for kind in builtins()]
    assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize(
    ("flag", "kinds"),
    [
        ("create_on_update", {"Lease", "Event", "Service"}),
        ("has_generation", {"Deployment", "StatefulSet", "Pod", "CustomResourceDefinition"}),
        ("scale", {"Deployment", "StatefulSet"}),
    ],
)
def test_who_has_what(flag, kinds):
    assert {kind.kind for kind in builtins() if getattr(kind, flag)} == kinds


def test_a_put_needs_a_version_where_the_real_server_wants_one():
    assert {kind.kind for kind in builtins() if not kind.unconditional_update} == {"Lease", "CustomResourceDefinition"}


def test_a_definition_makes_a_kind():
    (kind,) = from_crd(crd(selectableFields=[{"jsonPath": ".spec.color"}]))
    assert (kind.resource, kind.api_version, kind.list_kind) == (
        "things.probe.example.com",
        "probe.example.com/v1",
        "ThingList",
    )
    assert kind.custom
    assert kind.has_generation
    assert not kind.unconditional_update
    assert kind.status
    assert kind.scale_paths == ScalePaths(".spec.replicas", ".status.n")
    assert kind.selectable_fields == ("spec.color",)
    assert kind.definition == "com.example.probe.v1.Thing"


def test_only_served_versions_make_kinds():
    body = definition()
    body["spec"]["versions"].append({"name": "v2", "served": False, "storage": False})
    body["spec"]["versions"].append({"name": "v3", "served": True, "storage": False})
    assert [(kind.version, kind.storage) for kind in from_crd(body)] == [("v1", True), ("v3", False)]


def test_names_have_defaults():
    body = definition()
    body["spec"]["names"] = {"plural": "things", "kind": "Thing"}
    (kind,) = from_crd(body)
    assert (kind.singular, kind.list_kind, kind.short_names) == ("thing", "ThingList", ())


def test_a_deprecated_version_says_so():
    assert from_crd(definition())[0].deprecation_warning == ""
    assert from_crd(crd(deprecated=True))[0].deprecation_warning == "probe.example.com/v1 Thing is deprecated"
    assert from_crd(crd(deprecated=True, deprecationWarning="use v2"))[0].deprecation_warning == "use v2"
