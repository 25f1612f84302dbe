"""`asyncctl manifests`: what comes from the code, as files."""

import sys
from pathlib import Path

from asyncctl.cli.stdout import write
from asyncctl.database.operator import database_operator
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database
from asyncctl.generate import crd_yaml
from asyncctl.generate.fence import fence_yaml
from asyncctl.generate.rbac import rbac_yaml, rules
from asyncctl.operator.parts import OUTSIDE_A_POD, lease_name

NAME = "asyncctl"
_COMMAND = "asyncctl manifests"


def main(output: Path | None) -> int:
    """Write the files below `output`, or all to standard output; returns the exit code."""
    made = manifests()
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


def manifests() -> dict[str, str]:
    """Return the text of each file, by its path."""
    kind = Database.resource_type
    operator, settings = database_operator(), DatabaseSettings()
    needed = rules(operator, settings, lease_namespace=OUTSIDE_A_POD)
    fence = fence_yaml(
        NAME, namespace=OUTSIDE_A_POD, lease=lease_name(operator.name, settings), lease_namespace=OUTSIDE_A_POD
    )
    head = "# Made from what asyncctl.database.operator declares: change that, not this file.\n"
    return {
        f"crd/bases/{kind.group}_{kind.plural}.yaml": crd_yaml(Database),
        "fence/operator.yaml": head + fence,
        "rbac/operator.yaml": head + rbac_yaml(needed, NAME, namespace=OUTSIDE_A_POD),
    }
