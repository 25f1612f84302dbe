"""What a request is about, and the RBAC rule that would allow it."""

import re

import pytest
import yaml

from asyncctl.client.target import Target


def permission(*target):
    text = Target(*target).permission()
    found = re.fullmatch(r"(.*) would allow it with the rule (\{.*\}), bound to this user by a (.*)", text)
    return found[1], yaml.safe_load(found[2]), found[3]


CORE = {"apiGroups": [""]}
WIDGETS = {"apiGroups": ["example.com"], "resources": ["widgets"]}


@pytest.mark.parametrize(
    "target, rule",
    [
        (("get", "secrets", "team", "a"), CORE | {"resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]}),
        (("list", "widgets.example.com", "team"), WIDGETS | {"verbs": ["list"]}),
        (("watch", "widgets.example.com", "team", "a"), WIDGETS | {"verbs": ["watch"]}),
        (("create", "widgets.example.com", "team", "a"), WIDGETS | {"verbs": ["create"]}),
        (("deletecollection", "widgets.example.com", "team"), WIDGETS | {"verbs": ["deletecollection"]}),
        (
            ("apply", "widgets.example.com", "team", "a"),
            WIDGETS | {"verbs": ["create", "patch"], "resourceNames": ["a"]},
        ),
        (
            ("apply", "widgets.example.com/status", "team", "a"),
            WIDGETS | {"resources": ["widgets/status"], "verbs": ["patch"], "resourceNames": ["a"]},
        ),
        (
            ("create", "pods/eviction", "team", "a"),
            CORE | {"resources": ["pods/eviction"], "verbs": ["create"], "resourceNames": ["a"]},
        ),
    ],
)  # fmt: skip
def test_what_is_in_a_namespace_needs_a_role_there(target, rule):
    assert permission(*target) == ("a Role in namespace team", rule, "RoleBinding")


@pytest.mark.parametrize(
    "target, rule",
    [
        (("list", "widgets.example.com"), WIDGETS | {"verbs": ["list"]}),
        (("get", "nodes", None, "a"), CORE | {"resources": ["nodes"], "verbs": ["get"], "resourceNames": ["a"]}),
        (("get", "/metrics"), {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}),
    ],
)
def test_what_is_in_no_namespace_or_in_all_needs_a_cluster_role(target, rule):
    assert permission(*target) == ("a ClusterRole", rule, "ClusterRoleBinding")


@pytest.mark.parametrize("name", ["on", "123", "null", "1e3", "system:node", 'a"b', "a, b]"])
def test_a_name_is_a_name_whatever_it_looks_like(name):
    assert permission("get", "nodes", None, name)[1]["resourceNames"] == [name]


@pytest.mark.parametrize(
    "resource, parts",
    [
        ("pods", ("pods", "", "")),
        ("pods/status", ("pods", "", "status")),
        ("widgets.example.com", ("widgets", "example.com", "")),
        ("widgets.example.com/scale", ("widgets", "example.com", "scale")),
    ],
)
def test_the_parts_of_a_resource(resource, parts):
    target = Target("get", resource)
    assert (target.plural, target.group, target.subresource) == parts
