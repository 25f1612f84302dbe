"""The RBAC rules that an operator needs, from its declarations alone.

Least privilege: what the runtime sends for what is declared, what the operator says it needs beside that, its Lease,
its events and, where `/metrics` asks for tokens, their reviews; nothing else. With `ASYNCCTL_NAMESPACES`, or where a
`Watch` names its own, the rules are of those namespaces (Roles), else of all (a ClusterRole). Whoever runs with exactly
these rules can do the operator's work. A selector narrows no rule: RBAC knows none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from asyncctl.controller.declaration import Declaration
from asyncctl.controller.sources import Watch
from asyncctl.objects import Event, JsonObject, ResourceType, resource_type_of
from asyncctl.operator import Operator
from asyncctl.operator.parts import lease_name
from asyncctl.settings import Settings

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
"""In the order in which rules have them; others follow."""
READ = ("get", "list", "watch")
OWN = (*READ, "create", "patch", "delete")
"""Server-side apply is a patch; where it makes the object, the API server asks for `create` too."""
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, of one resource.

    Attributes:
        group: "" for the core group.
        resource: The plural, with its subresource where it is about one: `widgets/status`.
        verbs: What is done.
        names: Only objects of these names; empty for all.
        namespace: Where; None for the whole cluster, which takes a ClusterRole and a ClusterRoleBinding.
        optional: The program does its work without it, if less well.
        why: What it is for.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    namespace: str | None = None
    optional: bool = False
    why: str = ""

    def __str__(self) -> str:
        plural, slash, subresource = self.resource.partition("/")
        return f"{plural}.{self.group}{slash}{subresource}" if self.group else self.resource

    def as_json(self) -> JsonObject:
        """The rule as a Role or ClusterRole has it (rbac.authorization.k8s.io/v1 PolicyRule)."""
        rule: JsonObject = {"apiGroups": [self.group], "resources": [self.resource]}
        if self.names:
            rule["resourceNames"] = list(self.names)
        return rule | {"verbs": list(self.verbs)}


def rules(operator: Operator, settings: Settings, *, lease_namespace: str) -> list[Rule]:
    """Return what `operator` needs when it runs with `settings`.

    Args:
        operator: What is declared.
        settings: Of the operator's class; which namespaces, whether there is a Lease.
        lease_namespace: Where the Lease is, when the settings do not say.
    """
    placed = [
        replace(rule, namespace=namespace)
        for kind, watch, rule in _of_the_work(operator, settings)
        for namespace in _places(kind, watch, settings)
    ]
    if settings.leader_election:
        lease = settings.lease_namespace or lease_namespace
        placed += [replace(rule, namespace=lease) for rule in _of_the_lease(lease_name(operator.name, settings))]
    if settings.metrics_address is not None and settings.metrics_auth == "token":
        placed += _of_the_metrics()
    return _joined(placed)


def rbac_yaml(rules: Iterable[Rule], name: str, *, namespace: str) -> str:
    """Return what binds a ServiceAccount to these rules, as YAML for a repository: the same text for the same rules.

    Args:
        rules: As `rules` gives them.
        name: Of the ServiceAccount, and of its roles and bindings.
        namespace: Of the ServiceAccount.
    """
    meta, account = {"name": name, "namespace": namespace}, {"kind": "ServiceAccount"}
    documents: list[JsonObject] = [{"apiVersion": "v1", **account, "metadata": meta}]
    by_place: dict[str | None, list[JsonObject]] = {}
    for rule in rules:
        by_place.setdefault(rule.namespace, []).append(rule.as_json())
    for place, written in by_place.items():
        prefix, where = ("", {"namespace": place}) if place else ("Cluster", {})
        head: JsonObject = {"apiVersion": f"{_RBAC}/v1", "kind": f"{prefix}Role", "metadata": {"name": name, **where}}
        reference = {"apiGroup": _RBAC, "kind": head["kind"], "name": name}
        documents.append(head | {"rules": written})
        documents.append(
            head | {"kind": f"{prefix}RoleBinding", "roleRef": reference, "subjects": [{**account, **meta}]}
        )
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)


def _places(kind: ResourceType, watch: Watch[Any] | None, settings: Settings) -> tuple[str | None, ...]:
    if not kind.namespaced:
        return (None,)
    own = watch.namespaces if watch is not None else None
    return own or settings.namespaces or (None,)


Placed = tuple[ResourceType, Watch[Any] | None, Rule]
"""A rule, of which kind it is, and the watch that may say where."""


def _of_the_work(operator: Operator, settings: Settings) -> Iterator[Placed]:
    for declaration in operator.declared(settings):
        yield from _of_a_controller(declaration)
    if operator.declarations:
        event = Event.resource_type
        yield event, None, _rule(event, "create", "patch", optional=True, why="says what happened to an object")
    for need in operator.needed:
        if need.when(settings):
            rule = _rule(need.kind, *need.verbs, subresource=need.subresource, optional=need.optional, why=need.why)
            yield need.kind, None, replace(rule, names=need.names)


def _of_a_controller(declaration: Declaration[Any]) -> Iterator[Placed]:
    primary, where = resource_type_of(declaration.kind), declaration.primary
    writes = ("patch",) if declaration.finalizers else ()
    yield primary, where, _rule(primary, *READ, *writes, why="is reconciled")
    if primary.has_status:
        yield primary, where, _rule(primary, "patch", subresource="status", why="has a status")
    for watch in declaration.watches:
        kind = resource_type_of(watch.kind)
        if kind in declaration.owns:
            yield kind, watch, _rule(kind, *OWN, why=f"is made for {primary.plural}")
        elif kind != primary:  # of its own kind it is told by the same cache
            yield kind, watch, _rule(kind, *READ, why=f"is read for {primary.plural}")
    if declaration.owns:
        yield primary, where, _owner_rule(primary)


def _owner_rule(primary: ResourceType) -> Rule:
    """What `blockOwnerDeletion` takes where the admission plugin OwnerReferencesPermissionEnforcement is on."""
    return _rule(
        primary, "update", subresource="finalizers", optional=True,
        why="needed on OpenShift, and wherever OwnerReferencesPermissionEnforcement is on",
    )  # fmt: skip


def _of_the_lease(name: str) -> Iterator[Rule]:
    group, why = "coordination.k8s.io", "leader election"
    yield Rule(group=group, resource="leases", verbs=("create",), why=why)  # a name can't narrow it
    yield Rule(group=group, resource="leases", verbs=("get", "update"), names=(name,), why=why)


def _of_the_metrics() -> Iterator[Rule]:
    why = "says who may read /metrics"
    for group, resource in (("authentication", "tokenreviews"), ("authorization", "subjectaccessreviews")):
        yield Rule(group=f"{group}.k8s.io", resource=resource, verbs=("create",), why=why)


def _rule(kind: ResourceType, *verbs: str, subresource: str = "", optional: bool = False, why: str = "") -> Rule:
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    return Rule(group=kind.group, resource=resource, verbs=verbs, optional=optional, why=why)


def _joined(found: list[Rule]) -> list[Rule]:
    """One rule for each resource in each place; what is needed anywhere is needed."""
    joined: dict[tuple[object, ...], Rule] = {}
    needed = {(*_place(rule), verb) for rule in found if not rule.optional for verb in rule.verbs}
    for rule in found:
        verbs = tuple(verb for verb in rule.verbs if not (rule.optional and (*_place(rule), verb) in needed))
        key = (*_place(rule), rule.optional)
        known = joined.get(key)
        if known is not None:
            verbs = (*known.verbs, *verbs)
            why = "; ".join(dict.fromkeys(filter(None, (known.why, rule.why))))
            rule = replace(known, why=why)  # noqa: PLW2901 - the same rule, grown
        if verbs:
            joined[key] = replace(rule, verbs=_in_order(verbs))
    return list(joined.values())


def _place(rule: Rule) -> tuple[object, ...]:
    return rule.namespace, rule.group, rule.resource, rule.names


def _in_order(verbs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(verbs), key=lambda verb: (VERBS.index(verb) if verb in VERBS else len(VERBS), verb)))
