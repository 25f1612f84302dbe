"""The shipped controller is the example that authors copy: of asyncctl it uses what they may use, and nothing else."""

import ast
import importlib
from pathlib import Path

import pytest

import asyncctl

PACKAGE = Path(asyncctl.__file__).parent
FILES = sorted((PACKAGE / "database").rglob("*.py"))
PUBLIC = ("asyncctl", "asyncctl.client", "asyncctl.client.errors", "asyncctl.objects")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_it_imports_public_names_only(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not [each.name for each in node.names if each.name.partition(".")[0] == "asyncctl"]
        if not isinstance(node, ast.ImportFrom) or node.module is None or node.module.partition(".")[0] != "asyncctl":
            continue
        names = {each.name for each in node.names}
        if node.module == "asyncctl.database" or node.module.startswith("asyncctl.database."):
            continue
        assert node.module in PUBLIC, f"{node.module} is no public module: {sorted(names)}"
        private = names - set(importlib.import_module(node.module).__all__)
        assert not private, f"{node.module} does not export {sorted(private)}"
