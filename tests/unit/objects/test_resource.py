import copy

import pytest

from asyncctl.objects import (
    ConfigMap,
    Namespace,
    ObjectMeta,
    OwnerReference,
    Resource,
    ResourceType,
    Secret,
    Spec,
    Status,
    Unstructured,
    controller_of,
    field,
    owner_reference,
    resource_type_of,
)


class GadgetSpec(Spec):
    size: int = 1


class Gadget(Resource, group="example.com", version="v1", short_names=["gd"], categories=["all"]):
    spec: GadgetSpec = field(default_factory=GadgetSpec)
    status: Status = field(default_factory=Status)


def test_a_class_names_its_kind():
    found = Gadget.resource_type
    assert (found.group, found.version, found.kind, found.list_kind) == ("example.com", "v1", "Gadget", "GadgetList")
    assert (found.plural, found.singular, found.short_names, found.categories) == (
        "gadgets",
        "gadget",
        ("gd",),
        ("all",),
    )
    assert (found.api_version, found.resource, str(found)) == (
        "example.com/v1",
        "gadgets.example.com",
        "example.com/v1 Gadget",
    )


def test_the_core_group_has_no_name():
    assert (ConfigMap.resource_type.api_version, ConfigMap.resource_type.resource) == ("v1", "configmaps")


def test_a_kind_has_a_status_if_its_class_has_the_field():
    assert Gadget.resource_type.has_status
    assert not ConfigMap.resource_type.has_status


@pytest.mark.parametrize(
    "kind, plural",
    [("Policy", "policies"), ("Gateway", "gateways"), ("Ingress", "ingresses"), ("Box", "boxes"), ("Match", "matches")],
)
def test_a_plural_is_english(kind, plural):
    assert Unstructured("v1", kind).resource_type.plural == plural


def test_names_of_a_kind_can_be_given():
    class Odd(Resource, group="g", version="v1", kind="Endpoints", plural="endpoints", singular="endpoint"):
        pass

    found = Odd.resource_type
    assert (found.kind, found.plural, found.singular) == ("Endpoints", "endpoints", "endpoint")


def test_half_a_name_is_refused():
    with pytest.raises(TypeError, match="class Half: a kind needs both group= and version="):

        class Half(Resource, group="example.com"):
            pass


def test_a_misspelt_class_keyword_is_refused():
    with pytest.raises(TypeError, match="shortnames"):

        class Misspelt(Resource, group="example.com", version="v1", shortnames=["m"]):
            pass


def test_two_types_are_equal_if_they_are_served_at_the_same_place():
    assert Unstructured("example.com/v1", "Gadget").resource_type == Gadget.resource_type
    assert hash(Unstructured("example.com/v1", "Gadget").resource_type) == hash(Gadget.resource_type)
    assert Unstructured("example.com/v2", "Gadget").resource_type != Gadget.resource_type


def test_names_are_folded_into_metadata():
    gadget = Gadget(name="g", namespace="team", labels={"a": "1"}, annotations={"b": "2"}, spec=GadgetSpec(size=3))
    assert gadget.metadata == ObjectMeta(name="g", namespace="team", labels={"a": "1"}, annotations={"b": "2"})
    assert (gadget.name, gadget.namespace, gadget.uid) == ("g", "team", "")
    assert (gadget.labels, gadget.annotations) == ({"a": "1"}, {"b": "2"})


def test_names_and_metadata_together_are_refused():
    with pytest.raises(TypeError, match="Gadget: give name or metadata, not both"):
        Gadget(name="g", metadata=ObjectMeta(name="h"))


def test_a_name_is_written_through_to_metadata():
    gadget = Gadget(name="g")
    gadget.name = "h"
    gadget.labels = {"a": "1"}
    assert gadget.metadata == ObjectMeta(name="h", labels={"a": "1"})


def test_a_misspelt_field_is_refused():
    with pytest.raises(TypeError, match="sise"):
        GadgetSpec(sise=1)


def test_a_copy_shares_nothing():
    gadget = Gadget(name="g", labels={"a": "1"})
    other = copy.deepcopy(gadget)
    assert other == gadget
    other.labels["a"] = "2"
    other.status.conditions.set("Ready", True, "Done")
    assert gadget == Gadget(name="g", labels={"a": "1"})


@pytest.mark.parametrize(
    "parts, path",
    [
        ((), "/apis/example.com/v1/gadgets"),
        (("",), "/apis/example.com/v1/gadgets"),
        (("team",), "/apis/example.com/v1/namespaces/team/gadgets"),
        (("team", "g"), "/apis/example.com/v1/namespaces/team/gadgets/g"),
        (("team", "g", "status"), "/apis/example.com/v1/namespaces/team/gadgets/g/status"),
        (("team", "a b/c?d#e%"), "/apis/example.com/v1/namespaces/team/gadgets/a%20b%2Fc%3Fd%23e%25"),
    ],
)
def test_a_path_leads_to_what_is_named(parts, path):
    assert Gadget.resource_type.path(*parts) == path


def test_paths_of_the_core_group_and_of_cluster_scoped_kinds():
    assert ConfigMap.resource_type.path("team", "c") == "/api/v1/namespaces/team/configmaps/c"
    assert Namespace.resource_type.path(name="team") == "/api/v1/namespaces/team"
    assert Namespace.resource_type.path("", "team") == "/api/v1/namespaces/team"


def test_a_colon_in_a_name_stays():
    roles = Unstructured("rbac.authorization.k8s.io/v1", "ClusterRole", namespaced=False).resource_type
    assert roles.path(name="system:node").endswith("/clusterroles/system:node")


@pytest.mark.parametrize(
    "kind, parts, said",
    [
        (Gadget, (None, "g"), "is namespaced: say in which namespace"),
        (Gadget, ("team", None, "status"), "needs a name"),
        (Gadget, ("team", ".."), "can't stand in a path"),
        (Gadget, (".", "g"), "can't stand in a path"),
        (Gadget, ("team", ""), "can't stand in a path"),
        (Namespace, ("team", "x"), "is cluster-scoped: leave out the namespace 'team'"),
    ],
)
def test_a_path_that_would_lead_elsewhere_is_refused(kind, parts, said):
    with pytest.raises(ValueError, match=said):
        kind.resource_type.path(*parts)


def test_a_kind_without_a_class_has_a_type_all_the_same():
    deployment = Unstructured("apps/v1", "Deployment")
    assert resource_type_of(deployment) == ResourceType("apps", "v1", "Deployment", "deployments", "", "")
    assert deployment == Unstructured("apps/v1", "Deployment")
    assert {deployment: 1}[Unstructured("apps/v1", "Deployment")] == 1
    assert repr(deployment) == "Unstructured('apps/v1', 'Deployment')"


@pytest.mark.parametrize(
    "api_version, kind, has_generation",
    [
        ("apps/v1", "Deployment", True),
        ("example.com/v1", "Gadget", True),
        ("v1", "Service", False),
        ("storage.k8s.io/v1", "StorageClass", False),
    ],
)
def test_a_generation_is_counted_on_only_where_there_is_one(api_version, kind, has_generation):
    assert Unstructured(api_version, kind).resource_type.has_generation is has_generation


def test_a_base_class_is_no_kind():
    class Base(Resource):
        note: str = ""

    class Real(Base, group="example.com", version="v1"):
        pass

    with pytest.raises(TypeError, match="is no kind: declare it as class Base"):
        resource_type_of(Base)
    assert resource_type_of(Real).kind == "Real"


def test_an_owner_is_named_by_uid():
    gadget = Gadget(metadata=ObjectMeta(name="g", uid="u-1"))
    owner = owner_reference(gadget)
    assert owner == OwnerReference(
        api_version="example.com/v1", kind="Gadget", name="g", uid="u-1", controller=True, block_owner_deletion=True
    )


def test_only_the_owner_that_controls_is_the_controller():
    other = OwnerReference(api_version="v1", kind="ConfigMap", name="c", uid="u-2")
    mine = owner_reference(Gadget(metadata=ObjectMeta(name="g", uid="u-1")))
    assert controller_of(ObjectMeta(owner_references=[other, mine])) == mine
    assert controller_of(ObjectMeta(owner_references=[other])) is None


def test_a_secret_shows_no_value():
    secret = Secret(name="s", namespace="team", data={"password": b"hunter2"}, annotations={"note": "hunter2"})
    shown = repr(secret), str(secret), f"{[secret]}", str(secret.__rich_repr__())
    assert shown[0] == "Secret(name='s', namespace='team', …)"
    assert not [each for each in shown if "hunter2" in each]


def test_other_kinds_show_what_they_hold():
    assert repr(Gadget(name="g", spec=GadgetSpec(size=3))).startswith("Gadget(metadata=ObjectMeta(name='g')")
