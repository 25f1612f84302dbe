"""Whether the user may do what the operator needs, rule by rule, and whether there is a place for its Lease.

The API server is asked by SelfSubjectAccessReview, as whoever runs the check: run it with the operator's own
credentials to know what the operator may.
"""

import asyncio
from collections.abc import Iterable

import yaml

from asyncctl.check.link import ask
from asyncctl.client.errors import AlreadyExists, Forbidden, KubernetesError, NotFound, Target
from asyncctl.client.transport.transport import Transport
from asyncctl.generate.rbac import Rule
from asyncctl.ha.lease import LEASE, holder, new
from asyncctl.objects.json import JsonObject
from asyncctl.operator.checking import Row, State

_AT_ONCE = 8  # reviews
_Answer = bool | KubernetesError
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def check_rules(transport: Transport, rules: Iterable[Rule], user: str) -> list[Row]:
    """One row for each rule: what of it is missing, and what would allow it."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def check(rule: Rule) -> Row:
        async with asyncio.TaskGroup() as tasks:
            asked = [
                (verb, tasks.create_task(_allowed(transport, turns, rule, verb, name), name=f"may {verb} {rule}"))
                for verb in rule.verbs
                for name in rule.names or ("",)
            ]
        return _row(rule, [(verb, task.result()) for verb, task in asked], user)

    async with asyncio.TaskGroup() as tasks:
        checks = [tasks.create_task(check(rule), name=f"check {rule}") for rule in rules]
    return [task.result() for task in checks]


def _name(rule: Rule) -> str:
    named = f" {', '.join(rule.names)}" if rule.names else ""
    return f"rbac {rule}{named}" + (f" in {rule.namespace}" if rule.namespace else "")


async def _allowed(transport: Transport, turns: asyncio.Semaphore, rule: Rule, verb: str, name: str) -> _Answer:
    plural, _, subresource = rule.resource.partition("/")
    attributes = {
        "verb": verb, "group": rule.group, "resource": plural, "subresource": subresource,
        "namespace": rule.namespace or "", "name": name,
    }  # fmt: skip
    body: JsonObject = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    target = Target("create", "selfsubjectaccessreviews.authorization.k8s.io")
    try:
        async with turns:
            status = (await ask(transport, "POST", _REVIEWS, target, body)).get("status")
    except KubernetesError as error:
        return error
    return isinstance(status, dict) and status.get("allowed") is True


def _row(rule: Rule, answers: list[tuple[str, _Answer]], user: str) -> Row:
    name = _name(rule)
    missing = [verb for verb in rule.verbs if (verb, False) in answers]
    details: JsonObject = {
        "rule": rule.as_json(), "namespace": rule.namespace, "missing": missing, "optional": rule.optional,
    }  # fmt: skip
    errors = [said for _, said in answers if isinstance(said, KubernetesError)]
    if errors:
        return Row(name, State.FAILED, f"the server can't say: {errors[0]}", details)
    if not missing:
        return Row(name, State.OK, f"may {', '.join(rule.verbs)}", details)
    lacking = rule.as_json() | {"verbs": missing}
    written = yaml.safe_dump(lacking, default_flow_style=True, sort_keys=False, width=1000).strip()
    where = f"a Role in namespace {rule.namespace}" if rule.namespace else "a ClusterRole"
    why = f" ({rule.why})" if rule.why else ""
    text = f"may not {', '.join(missing)}{why}; bind {user or 'the user'} to {where} with the rule {written}"
    return Row(name, State.WARNING if rule.optional else State.FAILED, text, details)


async def check_lease(transport: Transport, namespace: str, name: str) -> Row:
    """Whether the Lease is there, or can be made; its namespace need not be readable."""
    check = f"lease {namespace}/{name}"
    try:
        found = await ask(transport, "GET", LEASE.path(namespace, name), Target("get", LEASE.resource, namespace, name))
    except NotFound:
        return await _could_make(transport, namespace, name, check)
    except Forbidden:
        return Row(check, State.SKIPPED, "not reached because the user may not get it: see its rbac row")
    except KubernetesError as error:
        return Row(check, State.FAILED, str(error))
    held = holder(found)
    return Row(check, State.OK, f"held by {held}" if held else "free", {"holder": held})


async def _could_make(transport: Transport, namespace: str, name: str, check: str) -> Row:
    """Ask by a dry run, which stores nothing: it tells a missing namespace, whoever may read namespaces."""
    target = Target("create (dry run)", LEASE.resource, namespace, name)
    path = f"{LEASE.path(namespace)}?dryRun=All"
    try:
        await ask(transport, "POST", path, target, new(namespace, name))
    except AlreadyExists:
        pass
    except NotFound:
        text = f"namespace {namespace} does not exist; create it, or set ASYNCCTL_LEASE_NAMESPACE to another"
        return Row(check, State.FAILED, text)
    except Forbidden:
        return Row(check, State.SKIPPED, "not reached because the user may not create it: see its rbac row")
    except KubernetesError as error:
        return Row(check, State.FAILED, str(error))
    return Row(check, State.OK, "not there yet; the first leader makes it", {"holder": ""})
