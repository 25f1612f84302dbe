"""The rules come from the declarations; and an operator at work asks for these, and for nothing else."""

import re
from collections import defaultdict

import pytest

from asyncctl.apiserver import ApiServer
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.transport.transport import Transport
from asyncctl.controller.sources import Watch, to_every
from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.generate.rbac import Rule, rules
from asyncctl.objects import ConfigMap, Namespace, Secret, Unstructured
from asyncctl.operator import Operator
from asyncctl.settings import Address, Settings
from tests.unit.harness import Widget, cluster_at, working

GROUP = "runtime.example.com"
READ = ("get", "list", "watch")


async def nothing(ctx, obj):
    pass


def needed(operator, settings=None, **values):
    """The rules as {(namespace, resource, names): verbs}, without the Lease's unless it is asked for."""
    settings = settings or Settings(**({"leader_election": False} | values))
    found = rules(operator, settings, lease_namespace="home")
    assert len({(rule.namespace, str(rule), rule.names, rule.optional) for rule in found}) == len(found)
    return {(rule.namespace, str(rule), rule.names): rule.verbs for rule in found}


def declared(**options):
    operator = Operator("test")
    return operator, operator.controller(Widget, **options)(nothing)


def test_a_kind_that_is_reconciled_is_read_and_its_status_patched():
    operator, _ = declared()
    assert needed(operator) == {
        (None, f"widgets.{GROUP}", ()): READ,
        (None, f"widgets.{GROUP}/status", ()): ("patch",),
        (None, "events.events.k8s.io", ()): ("create", "patch"),
    }


def test_reviews_are_needed_cluster_wide_where_metrics_ask_for_tokens_and_nowhere_else():
    operator, _ = declared()
    reviews = {
        (None, "tokenreviews.authentication.k8s.io", ()): ("create",),
        (None, "subjectaccessreviews.authorization.k8s.io", ()): ("create",),
    }
    address = Address("0.0.0.0", 8443)
    found = needed(operator, metrics_address=address, namespaces=("team",))
    assert reviews.items() <= found.items()
    for settings in ({}, {"metrics_address": address, "metrics_auth": "none"}):
        assert not reviews.keys() & needed(operator, **settings).keys()


def test_a_finalizer_is_a_patch():
    operator, widgets = declared()
    widgets.finalizer("example.com/x")(nothing)
    assert needed(operator)[None, f"widgets.{GROUP}", ()] == (*READ, "patch")


def test_a_kind_without_a_status_has_none_to_patch():
    operator = Operator("test")
    operator.controller(Unstructured("v1", "ConfigMap", has_status=False))(nothing)
    assert (None, "configmaps/status", ()) not in needed(operator)


@pytest.mark.parametrize("owned", [ConfigMap, Watch(ConfigMap, labels="a=b")])
def test_what_is_owned_is_made_changed_and_deleted(owned):
    operator, _ = declared(owns=[owned], reads=[Secret], watches=[Watch(Namespace, to=to_every)])
    found = needed(operator)
    assert found[None, "configmaps", ()] == (*READ, "create", "patch", "delete")
    assert found[None, "secrets", ()] == READ
    assert found[None, "namespaces", ()] == READ
    assert found[None, f"widgets.{GROUP}/finalizers", ()] == ("update",)


def test_what_an_operator_says_it_needs_is_joined_with_what_it_declares():
    operator, _ = declared(reads=[Secret])
    operator.needs(Secret, "patch", "create")
    operator.needs(Namespace, "get", names=["kube-system"])
    operator.needs(Unstructured("apps/v1", "Deployment"), "patch", subresource="scale")
    operator.needs(ConfigMap, "delete", when=lambda settings: settings.workers > 10)
    found = needed(operator)
    assert found[None, "secrets", ()] == (*READ, "create", "patch")
    assert found[None, "namespaces", ("kube-system",)] == ("get",)
    assert found[None, "deployments.apps/scale", ()] == ("patch",)
    assert (None, "configmaps", ()) not in found
    assert (None, "configmaps", ()) in needed(operator, workers=11)


def test_what_is_needed_once_is_not_optional_elsewhere():
    operator, _ = declared(reads=[Secret])
    operator.needs(Secret, "list", "delete", optional=True)
    found = [rule for rule in rules(operator, Settings(), lease_namespace="home") if rule.resource == "secrets"]
    assert [(rule.verbs, rule.optional) for rule in found] == [(READ, False), (("delete",), True)]


def test_a_need_without_a_verb_is_refused():
    with pytest.raises(ValueError, match="v1 Secret: say which verbs"):
        Operator("test").needs(Secret)


def test_with_namespaces_the_rules_are_those_of_each_and_cluster_kinds_stay_in_the_cluster():
    operator, _ = declared(reads=[Namespace])
    found = needed(operator, namespaces=("a", "b"))
    assert {namespace for namespace, resource, _ in found if resource != "namespaces"} == {"a", "b"}
    assert found[None, "namespaces", ()] == READ
    assert found["b", "events.events.k8s.io", ()] == ("create", "patch")


def test_a_watch_that_names_its_own_namespaces_has_its_rules_there():
    operator = Operator("test")
    operator.controller(
        Watch(Widget, namespaces=["w"]),
        owns=[Watch(ConfigMap, namespaces=["c", "d"])],
        reads=[Watch(Secret, metadata_only=True, labels="a=b")],
    )(nothing)
    found = needed(operator)
    assert {place for place, resource, _ in found if resource.startswith("widgets.")} == {"w"}
    assert {place for place, resource, _ in found if resource == "configmaps"} == {"c", "d"}
    assert found["c", "configmaps", ()] == (*READ, "create", "patch", "delete")
    assert found[None, "secrets", ()] == READ  # neither a selector nor the metadata alone is a smaller right
    assert {place for place, resource, _ in needed(operator, namespaces=["x"]) if resource == "secrets"} == {"x"}


def test_a_watch_that_is_not_wanted_with_the_settings_takes_no_rule():
    operator, _ = declared(owns=[Watch(ConfigMap, wanted=lambda settings: settings.workers > 10)], reads=[Secret])
    few, all_of_them = needed(operator), needed(operator, workers=11)
    assert (None, "configmaps", ()) not in few
    assert (None, f"widgets.{GROUP}/finalizers", ()) not in few  # it owns nothing else
    assert all_of_them[None, "configmaps", ()] == (*READ, "create", "patch", "delete")
    assert few.items() < all_of_them.items()


def test_its_own_kind_that_is_watched_too_takes_no_other_rule():
    operator, _ = declared(watches=[Watch(Widget, to=to_every)])
    assert needed(operator) == needed(declared()[0])


def test_the_lease_is_taken_by_name_in_its_own_namespace():
    found = needed(Operator("test"), Settings(lease_name="mine"))
    lease = "leases.coordination.k8s.io"
    assert found == {("home", lease, ()): ("create",), ("home", lease, ("mine",)): ("get", "update")}
    assert set(needed(Operator("test"), Settings(lease_namespace="there"))) == {
        ("there", lease, ()),
        ("there", lease, ("test-leader",)),
    }


def test_a_rule_is_written_as_a_role_has_it():
    rule = Rule(group="", resource="secrets", verbs=("get",), names=("a",), namespace="b")
    assert rule.as_json() == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}


def test_the_shipped_operator_reads_kube_system_only_where_it_has_no_other_name_for_the_cluster():
    key = (None, "namespaces", ("kube-system",))
    assert needed(database_operator(), DatabaseSettings())[key] == ("get",)
    assert key not in needed(database_operator(), DatabaseSettings(cluster_id="c1"))


VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PATH = re.compile(
    r"/apis?/(?:([^/]+\.[^/]+|apps)/)?v1/(?:namespaces/[^/]+/(?=\w))?([^/?]+)(?:/([^/?]+))?(?:/(\w+))?(\?.*)?"
)


def asked_for(method, path):
    """The (resource, verb) that a request is authorised by."""
    group, plural, name, subresource, query = PATH.fullmatch(path).groups()
    resource = f"{plural}.{group}" if group else plural
    verb = VERBS.get(method) or ("watch" if "watch=1" in (query or "") else "get" if name else "list")
    return resource + (f"/{subresource}" if subresource else ""), verb


@pytest.fixture
def asked(monkeypatch):
    """What each transport was asked for: {transport: {(resource, verb)}}."""
    asked = defaultdict(set)
    request, stream = Transport.request, Transport.stream

    async def noting(self, sent):
        asked[self].add(asked_for(sent.method, sent.path))
        return await request(self, sent)

    def noting_stream(self, sent):
        asked[self].add(asked_for(sent.method, sent.path))
        return stream(self, sent)

    monkeypatch.setattr(Transport, "request", noting)
    monkeypatch.setattr(Transport, "stream", noting_stream)
    return asked


async def test_an_operator_at_work_asks_for_its_rules_and_nothing_else(asked):
    operator = Operator("test")

    @operator.controller(Widget, owns=[ConfigMap], reads=[Secret])
    async def reconcile(ctx, widget):
        known = ctx.get(ConfigMap, "c")
        if widget.spec.size == 1:
            await ctx.apply(ConfigMap(name="c", data={"size": "1"}))
        elif known is not None:
            await ctx.delete(known)
        ctx.normal("Seen", "it was seen")
        widget.status.parts = widget.spec.size

    @reconcile.finalizer("example.com/x")
    async def clean_up(ctx, widget):
        pass

    async with ApiServer() as server, cluster_at(ClusterConfig(server=server.url)) as cluster:
        lease = {"leader_election": True, "lease_namespace": cluster.namespace}
        async with working(operator, cluster, **lease) as running:
            await cluster.create(Widget, "w")
            await cluster.until(Widget, "w", lambda found: found.status.parts == 1)
            await cluster.patch(Widget, "w", {"spec": {"size": 2}})
            await cluster.until_gone(ConfigMap, "c")
            await cluster.until_said("w")
            await cluster.delete(Widget, "w")
            await cluster.until_gone(Widget, "w")
        del asked[cluster.client._transport]
    sent = set().union(*asked.values())
    found = rules(operator, running.settings, lease_namespace="")
    allowed = {(str(rule), verb) for rule in found for verb in rule.verbs}
    assert sent <= allowed
    assert allowed - sent == {
        (f"widgets.{GROUP}", "get"), ("configmaps", "get"),  # after a conflict
        ("secrets", "get"),  # for an author's own live read
        ("configmaps", "create"),  # what a real server asks for, where an apply makes the object
        (f"widgets.{GROUP}/finalizers", "update"),  # what it asks for, where an owner blocks deletion
    }  # fmt: skip


def test_the_shipped_operators_lease_has_its_own_name_and_the_same_variable():
    lease = "leases.coordination.k8s.io"
    for environ, name in (({}, "db-controller-leader"), ({"ASYNCCTL_LEASE_NAME": "mine"}, "mine")):
        settings = DatabaseSettings.from_environment(environ)
        assert ("home", lease, (name,)) in needed(database_operator(), settings)
