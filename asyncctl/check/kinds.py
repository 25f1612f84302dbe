"""Whether the kinds of an operator are served as it declares them, and its own CRDs are those of its code."""

from collections.abc import Iterable, Iterator
from typing import Any

import anyio.to_thread
import msgspec

from asyncctl.check.definition import Difference, differences, schema_differences, schema_of
from asyncctl.check.link import ask
from asyncctl.client.discovery import Served, ServedResource, discover, path_of
from asyncctl.client.errors import Forbidden, KubernetesError, NotFound, Target
from asyncctl.client.transport.transport import Lane, Request, Transport
from asyncctl.client.transport.warnings import parse_warnings
from asyncctl.controller.sources import Watch, kind_of
from asyncctl.generate import crd
from asyncctl.generate.rbac import Rule
from asyncctl.ha.lease import LEASE
from asyncctl.objects import Event, JsonObject, Resource, ResourceType, resource_type_of
from asyncctl.operator import Operator
from asyncctl.operator.checking import Row, State
from asyncctl.settings import Settings

_NOT_SERVED = frozenset({"finalizers"})  # a name in RBAC only
_SHOWN = 4  # differences in a message; all are in the details
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_APPLY = "apply the CRD of this program's version (the shipped controller's: kubectl apply -f manifests/crd/bases)"


async def check_kinds(transport: Transport, operator: Operator, settings: Settings, rules: Iterable[Rule]) -> list[Row]:
    """One row for each kind in its version, then one for each CRD that is the operator's own."""
    kinds = list(dict.fromkeys(_kinds(operator, settings)))
    try:
        served = await discover(transport, groups={kind.group for kind in kinds})
    except KubernetesError as error:
        rest = "not reached because the server did not tell what it serves"
        return [Row("api", State.FAILED, str(error)), Row("crd", State.SKIPPED, rest)]
    untold = [_untold(path, kinds, served.problems[path]) for path in ("/api", "/apis") if path in served.problems]
    kinds = [kind for kind in kinds if path_of(kind.group) not in served.problems]
    rows = [_served(kind, served, rules) for kind in kinds]
    listed = {kind_of(watch): watch for each in operator.declared(settings) for watch in (*each.watches, each.primary)}
    rows = [
        await _listed(transport, listed[kind], row, settings)
        if kind in listed and row.state is not State.FAILED
        else row
        for kind, row in zip(kinds, rows, strict=True)
    ]
    return [*untold, *rows, *[await _check_definition(transport, kind) for kind in own_kinds(operator)]]


def _kinds(operator: Operator, settings: Settings) -> Iterator[ResourceType]:
    for declaration in operator.declarations:
        yield resource_type_of(declaration.kind)
    for declaration in operator.declared(settings):
        yield from (resource_type_of(watch.kind) for watch in declaration.watches)
    yield from (need.kind for need in operator.needed if need.when(settings))
    yield Event.resource_type
    if settings.leader_election:
        yield LEASE


def own_kinds(operator: Operator) -> Iterator[type[Resource]]:
    """The kinds whose CRDs come with the operator: those that it reconciles and has a class for."""
    for declaration in operator.declarations:
        kind = declaration.kind
        group = resource_type_of(kind).group
        if isinstance(kind, type) and "." in group and not group.endswith(".k8s.io"):
            yield kind


def _untold(path: str, kinds: Iterable[ResourceType], problem: str) -> Row:
    """What ends the question for all kinds below `path`, told once."""
    unknown = [str(kind) for kind in kinds if path_of(kind.group) == path]
    text = f"{problem}; so it is not known whether these are served: {', '.join(unknown)}"
    return Row(f"api {path}", State.FAILED, text, {"unknown": unknown})


def _served(kind: ResourceType, served: Served, rules: Iterable[Rule]) -> Row:
    name = f"api {kind}"
    version = served.version(kind.group, kind.version)
    found = served.resource(kind)
    group = served.groups.get(kind.group)
    others = served.versions_of(kind.group, kind.kind)
    details: JsonObject = {
        "apiVersion": kind.api_version, "kind": kind.kind, "served": found is not None, "servedVersions": list(others),
        "preferred": group.preferred if group else None,
    }  # fmt: skip
    if found is None:
        if version is not None and version.problem:
            return Row(name, State.FAILED, version.problem, details)
        if others:
            text = f"{kind.api_version} is not served; {kind.kind} is in {', '.join(others)}: update the CRD, or us"
        else:
            text = f"the server does not know {kind.resource}: install its CRD, or what brings it"
        return Row(name, State.FAILED, text, details)
    wrong = list(_wrong(kind, found, rules))
    if wrong:
        return Row(name, State.FAILED, "; ".join(wrong), details)
    if version is not None and version.problem:
        return Row(name, State.WARNING, version.problem, details)
    preferred = group.preferred if group else kind.version
    if preferred == kind.version or preferred not in others:
        return Row(name, State.OK, "served, and preferred", details)
    return Row(name, State.OK, f"served; the server prefers {preferred}", details)


def _wrong(kind: ResourceType, found: ServedResource, rules: Iterable[Rule]) -> Iterator[str]:
    if found.kind and found.kind != kind.kind:
        yield f"{kind.resource} are of kind {found.kind} there; give the declaration another plural="
    if found.namespaced != kind.namespaced:
        there, here = (("namespaced" if each.namespaced else "cluster-scoped") for each in (found, kind))
        yield f"it is {there} there, and declared {here}"
    for rule in rules:
        plural, _, subresource = rule.resource.partition("/")
        if (rule.group, plural) != (kind.group, kind.plural) or subresource in _NOT_SERVED:
            continue
        verbs = found.subresources.get(subresource, frozenset()) if subresource else found.verbs
        if subresource and not verbs:
            yield f"it has no subresource {subresource} there"
        elif missing := [verb for verb in rule.verbs if verb not in verbs]:
            yield f"{rule} can't {', '.join(missing)} there"


async def _listed(transport: Transport, watch: Watch[Any], row: Row, settings: Settings) -> Row:
    """`row`, after a list of one object: what the server warns of there, and whether that goes at all."""
    kind, places = kind_of(watch), watch.namespaces or settings.namespaces
    namespace = places[0] if places and kind.namespaced else None
    path = f"{kind.path(namespace)}?limit=1"
    target = Target("list", kind.resource, namespace)
    try:
        reply = await transport.request(
            Request(target=target, method="GET", path=path, lane=Lane.READ, repeatable=True)
        )
    except Forbidden:  # a row of its own says so
        return row
    except KubernetesError as error:
        return Row(row.check, State.FAILED, f"it is served, but can't be listed: {error}", row.details)
    warnings = [warned.text for warned in parse_warnings(reply.headers.getall("Warning"))]
    if not warnings:
        return row
    return Row(
        row.check, State.WARNING, f"{row.message}; the server warns: {'; '.join(warnings)}",
        {**row.details, "warnings": warnings},
    )  # fmt: skip


async def _check_definition(transport: Transport, kind: type[Resource]) -> Row:
    resource = kind.resource_type
    name = f"crd {resource.resource}"
    target = Target("get", "customresourcedefinitions.apiextensions.k8s.io", None, resource.resource)
    wanted = await anyio.to_thread.run_sync(crd, kind)  # it reads the source, for the descriptions
    try:
        found = await ask(transport, "GET", f"{_DEFINITIONS}/{resource.resource}", target)
    except NotFound:
        return Row(name, State.FAILED, f"it is not there; {_APPLY}")
    except Forbidden:
        return await _check_published(transport, resource, wanted, name)
    except KubernetesError as error:
        return Row(name, State.FAILED, str(error))
    refused = [_condition(each) for each in (found.get("status") or {}).get("conditions") or () if _is_bad(each)]
    if refused:
        return Row(name, State.FAILED, f"the server does not serve it: {'; '.join(refused)}")
    return _compared(name, differences(wanted, found), "")


async def _check_published(transport: Transport, kind: ResourceType, wanted: JsonObject, name: str) -> Row:
    """Compare what the server publishes of the schema to everybody: an operator need not be let at CRDs."""
    path = f"/openapi/v3/apis/{kind.api_version}"
    try:
        answer = await ask(transport, "GET", path, Target("get", path))
        schemas = msgspec.convert(answer, _Document).components.schemas
    except NotFound:
        return Row(name, State.FAILED, f"it is not there; {_APPLY}")
    except (KubernetesError, msgspec.ValidationError) as error:
        return Row(name, State.SKIPPED, f"neither the CRD nor its published schema can be read: {error}")
    found = next((schema for schema in schemas.values() if _is_of(schema, kind)), None)
    if found is None:
        return Row(name, State.FAILED, f"it is not there; {_APPLY}")
    return _compared(name, schema_differences(schema_of(wanted), found), ", as the server publishes it (OpenAPI)")


class _Components(msgspec.Struct):
    schemas: dict[str, dict[str, Any]]


class _Document(msgspec.Struct):
    components: _Components


def _is_of(schema: JsonObject, kind: ResourceType) -> bool:
    wanted = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    return wanted in (schema.get("x-kubernetes-group-version-kind") or ())


def _compared(name: str, found: list[Difference], how: str) -> Row:
    if not found:
        return Row(name, State.OK, f"the same as this program's{how}", {"differences": []})
    older, newer = any(each.older for each in found), any(each.newer for each in found)
    which = "another than" if older == newer else "older than" if older else "newer than"
    shown = sorted(found, key=lambda each: not each.grave)
    text = "\n".join(f"- {each}" for each in shown[:_SHOWN])
    more = f"\n- and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    details: JsonObject = {"differences": [{"path": each.path, "text": each.text} for each in shown]}
    grave = any(each.grave for each in found)
    advice = f"; {_APPLY}" if grave or older else ""
    state = State.FAILED if grave else State.WARNING
    return Row(name, state, f"{which} this program's{how}{advice}:\n{text}{more}", details)


def _is_bad(condition: JsonObject) -> bool:
    good = {"NamesAccepted": "True", "Established": "True", "NonStructuralSchema": "False", "Terminating": "False"}
    return condition.get("status") != good.get(str(condition.get("type")), condition.get("status"))


def _condition(condition: JsonObject) -> str:
    return (
        f"{condition.get('type')} is {condition.get('status')}, {condition.get('message') or condition.get('reason')}"
    )
