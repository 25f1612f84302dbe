"""Whether the API server itself refuses to delete what is protected, for each kind whose spec has `deletionProtection`.

The policy and its binding are read, since nothing else tells: nobody but who may delete an object could try. That is a
right which no operator needs, so that run with its credentials the check can't tell, and says so.
"""

from collections.abc import Iterable

import anyio.to_thread

from asyncctl.check.link import ask
from asyncctl.client.errors import Forbidden, KubernetesError, NotFound, Target
from asyncctl.client.transport.transport import Transport
from asyncctl.generate.protection import FIELD, is_protectable, protection
from asyncctl.objects import Resource
from asyncctl.objects.json import Json, JsonObject
from asyncctl.operator.checking import Row, State

_PATHS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
_DEFAULTS = {"matchPolicy": "Equivalent", "scope": "*"}  # what the server adds
_INSTALL = "Apply what `asyncctl manifests` makes in protection/ (the shipped controller's: manifests/protection)"


async def protectable(kinds: Iterable[type[Resource]]) -> list[type[Resource]]:
    """Those of these kinds that can be protected."""
    return [kind for kind in kinds if await anyio.to_thread.run_sync(is_protectable, kind)]


async def check_protection(transport: Transport, kinds: Iterable[type[Resource]], user: str) -> list[Row]:
    """One row for each of these kinds that can be protected.

    Args:
        transport: As whoever runs the check.
        kinds: Of the operator's own.
        user: Whom the server takes us for.
    """
    return [await _check(transport, kind, user) for kind in await protectable(kinds)]


async def _check(transport: Transport, kind: type[Resource], user: str) -> Row:
    resource = kind.resource_type.resource
    name = f"protection {resource}"
    try:
        wrong = [why for each in protection(kind) if (why := await _wrong(transport, each))]
    except Forbidden:
        text = f"can't tell as {user or 'this user'}, who may not read admission policies; run this as an admin"
        return Row(name, State.SKIPPED, text)
    except KubernetesError as error:
        return Row(name, State.SKIPPED, f"can't tell: {error}")
    details: JsonObject = {"inForce": not wrong, "wrong": wrong}
    if not wrong:
        return Row(name, State.OK, f"in force: the API server refuses to delete what has spec.{FIELD}", details)
    text = (
        f"{'; '.join(wrong)}: the API server may delete an object that has spec.{FIELD}, which can't be undone; what "
        f"keeps its data then is at most the operator's finalizer. {_INSTALL}"
    )
    return Row(name, State.WARNING, text, details)


async def _wrong(transport: Transport, wanted: JsonObject) -> str:
    """Why an object is not as it is wanted; empty where it is."""
    what, name = wanted["kind"], wanted["metadata"]["name"]
    path = f"/apis/{wanted['apiVersion']}/{_PATHS[what]}/{name}"
    target = Target("get", f"{_PATHS[what]}.admissionregistration.k8s.io", None, name)
    try:
        found = (await ask(transport, "GET", path, target)).get("spec")
    except NotFound:  # also from a server before 1.30, which knows no such policies
        return f"{what} {name} is not there"
    if not _holds(found, wanted["spec"]):
        return f"{what} {name} is another than this program's"
    return ""


def _holds(found: Json, wanted: Json) -> bool:
    """Whether all that is wanted is there, and nothing beside it that has it hold for less, such as a selector."""
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and all(key in found and _holds(found[key], wanted[key]) for key in wanted)
            and all(_is_nothing(key, found[key]) for key in found if key not in wanted)
        )
    if isinstance(wanted, list) and isinstance(found, list):
        return all(any(_holds(each, item) for each in found) for item in wanted)
    return found == wanted


def _is_nothing(key: str, value: Json) -> bool:
    """Whether it is left out, or as the server has it then."""
    if isinstance(value, dict):
        return all(_is_nothing(*each) for each in value.items())
    return not value or value == _DEFAULTS.get(key)
