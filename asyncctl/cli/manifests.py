"""`asyncctl manifests`: what comes from the code, as files."""

from pathlib import Path

from asyncctl.database.types import Database
from asyncctl.generate import crd_yaml


def main(output: Path | None) -> int:
    """Write the CRD below `output`, or to standard output; returns the exit code."""
    text = crd_yaml(Database)
    if output is None:
        print(text, end="")
        return 0
    kind = Database.resource_type
    path = output / "crd" / "bases" / f"{kind.group}_{kind.plural}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(path)
    return 0
