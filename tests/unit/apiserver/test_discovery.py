import pytest

from asyncctl.apiserver import discovery
from asyncctl.apiserver.resources import builtins
from tests.unit.apiserver.golden import cases, kinds, load

ANSWERS = {case["path"]: case["answer"] for case in cases("discovery")}
# Kinds and subresources that the real server has and this one does not.
SERVED = {kind.plural for kind in kinds()} | {f"{kind.plural}/status" for kind in kinds() if kind.status}
SERVED |= {f"{kind.plural}/scale" for kind in kinds() if kind.scale}
SERVED |= {f"{kind.plural}/{action.name}" for kind in kinds() for action in kind.actions}


@pytest.mark.parametrize("path", [path for path in ANSWERS if path.count("/") >= 2 and path[-3:] == "/v1"])
def test_resources_are_those_of_the_real_server(path):
    group, _, version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")
    want = ANSWERS[path]
    want["resources"] = [each for each in want["resources"] if each["name"] in SERVED]
    assert discovery.api_resource_list(kinds(), group, version) == want


@pytest.mark.parametrize("group", ["apps", "probe.example.com"])
def test_a_group_is_that_of_the_real_server(group):
    assert discovery.api_group(kinds(), group) == ANSWERS[f"/apis/{group}"]


def test_groups_come_in_the_order_of_the_real_server():
    made = [group["name"] for group in discovery.api_group_list(kinds())["groups"]]
    assert made == [name for name in load("discovery")["groups"] if name in made]


def test_what_has_no_kind_is_not_there():
    assert discovery.api_group(kinds(), "nope") is None
    assert discovery.api_resource_list(kinds(), "apps", "v2") is None


def test_core_versions_name_the_address_of_the_server():
    body = discovery.api_versions("127.0.0.1:1")
    assert body["versions"] == ANSWERS["/api"]["versions"]
    assert body["serverAddressByClientCIDRs"] == [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:1"}]


def served_only(group):
    for version in group["versions"]:
        resources = [each for each in version["resources"] if each["resource"] in SERVED]
        for each in resources:
            found = each.pop("subresources", [])
            if kept := [one for one in found if f"{each['resource']}/{one['subresource']}" in SERVED]:
                each["subresources"] = kept
        version["resources"] = resources
    group["versions"] = [version for version in group["versions"] if version["resources"]]
    return group


@pytest.mark.parametrize("core", [True, False])
def test_aggregated_discovery_is_that_of_the_real_server(core):
    want = ANSWERS["aggregated /api" if core else "aggregated /apis"]
    served = {kind.group for kind in kinds()}
    groups = [served_only(group) for group in want["items"] if group["metadata"].get("name", "") in served]
    made = discovery.aggregated(kinds(), core=core)
    assert made["items"] == groups
    assert {key: made[key] for key in ("kind", "apiVersion", "metadata")} == {
        key: want[key] for key in ("kind", "apiVersion", "metadata")
    }


def test_versions_come_best_first():
    given = ["v1alpha1", "foo", "v1", "v1beta2", "v10", "v2", "v1beta1"]
    assert sorted(given, key=discovery.version_priority) == ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]


def test_built_in_groups_have_no_custom_kinds():
    assert all(not kind.custom for kind in builtins())
