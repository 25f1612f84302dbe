"""Deletion protection at the API server: who deletes an object whose `spec.deletionProtection` says so is refused.

A ValidatingAdmissionPolicy and its binding, for a kind whose spec has that field. It looks at the object as it is
stored: also one that the kind's schema would refuse by now, since whatever is there and is not `false` protects.
Whoever may change the object may set it to false, and then delete it: it keeps from mistakes, and is no access rule.

`kubectl delete -l …` and the deletion of a namespace come to it object by object: others in the namespace go, the
protected one stays, and the namespace waits for it. A deletion of the CRD does not come to it at all.
"""

import yaml

from asyncctl.generate.schema import crd
from asyncctl.objects import JsonObject, Resource, resource_type_of

FIELD = "deletionProtection"
_ADMISSION = "admissionregistration.k8s.io/v1"  # KEP-3488; there from Kubernetes 1.30 on
_SPEC = 'has(oldObject.spec) && type(oldObject.spec) == map && "{0}" in oldObject.spec'
_NOT_PROTECTED = f"!({_SPEC.format(FIELD)}) || oldObject.spec.{FIELD} == false"
_FIX = f"is protected from deletion: set spec.{FIELD} to false, then delete it"


def is_protectable(kind: type[Resource]) -> bool:
    """Whether the spec of a kind has the field."""
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return FIELD in schema["properties"].get("spec", {}).get("properties", {})


def protection_yaml(kind: type[Resource]) -> str:
    """Return what protects objects of a kind at the API server, as YAML for a repository.

    Args:
        kind: Its spec has a field `deletion_protection: bool`.

    Returns:
        The policy and its binding.

    Raises:
        ValueError: The spec has no such field.
    """
    if not is_protectable(kind):
        raise ValueError(f"{kind.__qualname__} can't be protected: its spec has no field deletion_protection")
    return yaml.dump_all(protection(kind), sort_keys=False, width=120)


def protection_name(kind: type[Resource]) -> str:
    """The name of the policy and its binding, which are in no namespace."""
    return f"deletion-protection.{resource_type_of(kind).resource}"


def protection(kind: type[Resource]) -> list[JsonObject]:
    """The policy and its binding."""
    resource, name = resource_type_of(kind), protection_name(kind)
    shown = 'oldObject.metadata.namespace + "/" + ' if resource.namespaced else ""
    rule = {
        "apiGroups": [resource.group], "apiVersions": ["*"], "operations": ["DELETE"], "resources": [resource.plural],
    }  # fmt: skip
    policy: JsonObject = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [
            {
                "expression": _NOT_PROTECTED,
                "message": f"{resource.kind} {_FIX}",
                "messageExpression": f'"{resource.kind} " + {shown}oldObject.metadata.name + " {_FIX}"',
                "reason": "Forbidden",
            }
        ],
    }
    binding: JsonObject = {"policyName": name, "validationActions": ["Deny"]}
    what = "ValidatingAdmissionPolicy"
    return [
        {"apiVersion": _ADMISSION, "kind": what, "metadata": {"name": name}, "spec": policy},
        {"apiVersion": _ADMISSION, "kind": f"{what}Binding", "metadata": {"name": name}, "spec": binding},
    ]
