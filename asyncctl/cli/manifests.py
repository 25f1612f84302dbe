"""`asyncctl manifests`: what comes from the code, as files."""

import sys
from collections.abc import Mapping
from pathlib import Path

from asyncctl.check.kinds import own_kinds
from asyncctl.cli.stdout import write
from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Provisioner
from asyncctl.generate import crd_yaml
from asyncctl.generate.fence import fence_yaml
from asyncctl.generate.protection import is_protectable, protection_yaml
from asyncctl.generate.rbac import rbac_yaml, rules
from asyncctl.objects import Resource
from asyncctl.operator import Operator
from asyncctl.operator.parts import OUTSIDE_A_POD, lease_name
from asyncctl.settings import Settings

NAME = "asyncctl"
_COMMAND = "asyncctl manifests"
_NOT_AGAIN = (
    '# Never delete the policy or the binding to make them again: docs/high-availability.md, "To take it away".\n'
)
_EXTERNAL = "# Instead of manifests/rbac, for ASYNCCTL_DATABASE_PROVISIONERS=External.\n"


def main(output: Path | None, made: Mapping[str, str]) -> int:
    """Write the files of `made` below `output`, or all to standard output; returns the exit code."""
    if output is None:
        return 0 if write("---\n".join(made.values()), _COMMAND) else 2
    paths = {output / name: text for name, text in made.items()}
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        print(f"{_COMMAND}: {error.filename} can't be written: {error.strerror}; --output names a folder",
              file=sys.stderr)  # fmt: skip
        return 2
    return 0 if write("".join(f"{path}\n" for path in paths), _COMMAND) else 2


def manifests(
    operator: Operator | None = None, settings: Settings | None = None, *, account: str = NAME,
    namespace: str = OUTSIDE_A_POD,
) -> dict[str, str]:  # fmt: skip
    """Return the text of each file, by its path.

    Args:
        operator: What is declared; the shipped one, unless it is said.
        settings: Of its class; which namespaces, whether there is a Lease and where.
        account: The operator's ServiceAccount, and no other's.
        namespace: Of the ServiceAccount.

    Raises:
        ValueError: One of the names can't be an object's.
    """
    shipped = operator is None
    operator, settings = operator or database_operator(), settings or DatabaseSettings()
    needed = rules(operator, settings, lease_namespace=namespace)
    origin = "asyncctl.database.operator" if shipped else f"operator {operator.name}"
    head = f"# Made from what {origin} declares: change that, not this file.\n"
    kinds = list(own_kinds(operator))
    made = {f"crd/bases/{_file(kind)}": crd_yaml(kind) for kind in kinds}
    if settings.leader_election:
        made["fence/operator.yaml"] = head + _NOT_AGAIN + fence_yaml(
            account, namespace=namespace, lease=lease_name(operator.name, settings),
            lease_namespace=settings.lease_namespace or namespace,
        )  # fmt: skip
    made |= {f"protection/{_file(kind)}": head + protection_yaml(kind) for kind in kinds if is_protectable(kind)}
    made["rbac/operator.yaml"] = head + rbac_yaml(needed, account, namespace=namespace)
    if shipped:
        fewer = rules(operator, DatabaseSettings(provisioners=(Provisioner.EXTERNAL,)), lease_namespace=namespace)
        made["rbac-external/operator.yaml"] = head + _EXTERNAL + rbac_yaml(fewer, account, namespace=namespace)
    return made


def _file(kind: type[Resource]) -> str:
    return f"{kind.resource_type.group}_{kind.resource_type.plural}.yaml"
