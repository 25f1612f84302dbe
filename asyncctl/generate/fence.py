"""The fence at the API server: every write of an operator is refused there unless its pod holds the Lease.

A ValidatingAdmissionPolicy whose parameter is the Lease itself, and its binding. The writer's pod is what the server
knows of a token that is bound to one, as every pod's own is; the Lease's holder begins with that name. It fences pods,
not processes, and is for all verbs and all kinds that the API server itself serves; it has no say on anyone else's
writes. One ServiceAccount goes with one Lease: two operators need two of each, and share nothing here.

What may not be changed about it. A Lease that is not there has to allow: the parameter is looked up before it is known
whose request it is, so that `Deny` would refuse everybody's writes in the whole cluster. For the same reason a failure
of that look-up is ignored: such a server has not seen the takeover yet. Creating and updating that one Lease is exempt,
or nobody could take it; and so are events, which a standby sends too. The expressions can't fail: a token that is bound
to no pod is refused with a word that says so.

What is deleted must not simply be made again: kube-apiserver (1.36.3, `policy_source.go`) ends its watch of Leases with
the last policy or binding that needs it, and never begins it again. `docs/high-availability.md` has what to do instead.
"""

import re

import yaml

from asyncctl.client.errors import FENCE_MARK
from asyncctl.ha.lease import LEASE
from asyncctl.ha.refusal import HELD_BY, IN_FORCE, NOBODY, UNBOUND, WRITER, probe_name
from asyncctl.objects.json import JsonObject

_ADMISSION = "admissionregistration.k8s.io/v1"  # KEP-3488; there from Kubernetes 1.30 on
_POD = "authentication.kubernetes.io/pod-name"  # of a token that is bound to a pod
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST = 253  # characters of an object's name


def fence_yaml(account: str, *, namespace: str, lease: str, lease_namespace: str) -> str:
    """Return what fences an operator at the API server, as YAML for a repository: the same text for the same names.

    Args:
        account: The operator's ServiceAccount. It may be no other operator's.
        namespace: Of the ServiceAccount.
        lease: The name of the operator's Lease.
        lease_namespace: Of the Lease.

    Returns:
        The Lease, with no holder; the policy; its binding.

    Raises:
        ValueError: One of these can't be the name of an object.
    """
    made = [
        {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": lease, "namespace": lease_namespace},
        },
        *_fence(account, namespace, lease, lease_namespace),
    ]
    return yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, width=120)


def fence_name(account: str, namespace: str) -> str:
    """The name of the policy and its binding, which are in no namespace: no other ServiceAccount's has the same."""
    return f"asyncctl-fence.{namespace}.{account}"


def _fence(account: str, namespace: str, lease: str, lease_namespace: str) -> list[JsonObject]:
    name = fence_name(account, namespace)
    for each in (account, namespace, lease, lease_namespace, name):
        if len(each) > _LONGEST or _NAME.fullmatch(each) is None:
            raise ValueError(f"{each!r} can't be the name of an object: small letters, digits, - and ., at most 253")
    probe = probe_name(lease)
    policy: JsonObject = {
        "failurePolicy": "Ignore",
        "paramKind": {"apiVersion": LEASE.api_version, "kind": LEASE.kind},
        "matchConstraints": {
            "resourceRules": [_rule(["*"], ["*"], ["*/*"])],
            "excludeResourceRules": [
                _rule(["", "events.k8s.io"], ["CREATE", "UPDATE"], ["events"]),
                _rule([LEASE.group], ["CREATE", "UPDATE"], [LEASE.plural]) | {"resourceNames": [lease]},
            ],
        },
        "matchConditions": [
            {
                "name": "written-by-the-operator",
                "expression": f'request.userInfo.username == "system:serviceaccount:{namespace}:{account}"',
            }
        ],
        "variables": [
            {"name": "pod", "expression": _WRITERS_POD},
            {"name": "holder", "expression": _HOLDER},
            {"name": "told", "expression": _TOLD},
            {"name": "probed", "expression": f'{_OF_A_LEASE} && has(request.name) && request.name == "{probe}"'},
        ],
        "validations": [
            {
                "expression": "!variables.probed",
                "message": f"{FENCE_MARK} {IN_FORCE}",
                "messageExpression": f'"{FENCE_MARK} {IN_FORCE}; " + variables.told',
                "reason": "Forbidden",
            },
            {
                "expression": 'variables.pod != "" && variables.holder.startsWith(variables.pod + "_")',
                "message": f"{FENCE_MARK} the writer's pod does not hold the Lease",
                "messageExpression": f'"{FENCE_MARK} " + variables.told',
                "reason": "Forbidden",
            },
        ],
    }
    binding: JsonObject = {
        "policyName": name,
        "paramRef": {"name": lease, "namespace": lease_namespace, "parameterNotFoundAction": "Allow"},
        "validationActions": ["Deny"],
    }
    kind = "ValidatingAdmissionPolicy"
    return [
        {"apiVersion": _ADMISSION, "kind": kind, "metadata": {"name": name}, "spec": policy},
        {"apiVersion": _ADMISSION, "kind": f"{kind}Binding", "metadata": {"name": name}, "spec": binding},
    ]


def _rule(groups: list[str], operations: list[str], resources: list[str]) -> JsonObject:
    return {"apiGroups": groups, "apiVersions": ["*"], "operations": operations, "resources": resources}


_WRITERS_POD = f"""\
has(request.userInfo.extra) && "{_POD}" in request.userInfo.extra
  && size(request.userInfo.extra["{_POD}"]) > 0
  ? request.userInfo.extra["{_POD}"][0] : ""
"""
_HOLDER = """\
has(params.spec) && has(params.spec.holderIdentity) ? params.spec.holderIdentity : ""
"""
_OF_A_LEASE = f'request.resource.resource == "{LEASE.plural}"'
_TOLD = f"""\
"{WRITER}" + (variables.pod == "" ? "{UNBOUND}" : variables.pod)
  + "{HELD_BY}" + (variables.holder == "" ? "{NOBODY}" : variables.holder)
"""


class _Dumper(yaml.SafeDumper):
    """Writes an expression as it would be written by hand."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
