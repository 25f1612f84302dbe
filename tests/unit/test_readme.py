"""What the README shows is true: its controller is declared as it stands there, and its commands exist."""

import re
from pathlib import Path

import asyncctl
from asyncctl.database.types import Database
from asyncctl.objects import from_dict

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_controller_of_the_readme_is_declared_with_its_finalizer():
    names = {"__name__": "readme"}
    exec(blocks("python")[0], names)
    declared = names["operator"].declarations
    assert [(each.name, list(each.finalizers)) for each in declared] == [("widgets", ["example.com/widgets"])]


def test_the_database_of_the_readme_is_one():
    import yaml

    database = from_dict(Database, yaml.safe_load(blocks("yaml")[0]))
    assert (database.namespace, database.name, database.spec.external.server_name) == ("team", "orders", "main")


def test_the_targets_of_make_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_public_name_is_there():
    assert [name for name in asyncctl.__all__ if not hasattr(asyncctl, name)] == []
