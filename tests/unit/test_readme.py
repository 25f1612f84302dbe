"""What the README shows is true: its controller is declared as it stands there, and its commands and files exist."""

import re
from configparser import ConfigParser
from pathlib import Path

import asyncctl
from asyncctl.database.types import Database
from asyncctl.objects import from_dict

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


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
    for target in set(re.findall(r"\bmake (\w+)", README + CONTRIBUTING)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_paths_that_are_named_exist():
    text = README + CONTRIBUTING
    named = set(re.findall(r"\b(?:asyncctl|tests|manifests|bench|docker)(?:/[\w.-]*\w)+", text))
    named |= set(re.findall(r"\]\((?!https?:)([^)]+)\)", text))
    named |= {f"asyncctl/{name}" for name in re.findall(r"`(\w+/|\w+\.py)`", text)}  # of the table of floors
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_each_folder_of_tests_is_run_by_an_environment_of_tox():
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    listed = tox["tox"]["env_list"].split(", ")
    assert set(listed) == {section.partition(":")[2] for section in tox if section.startswith("testenv:")}
    run = {tox[f"testenv:{name}"]["commands"].partition(" ")[2].partition(" ")[0] for name in listed}
    folders = {
        f"tests/{file.parent.relative_to(ROOT / 'tests').parts[0]}" for file in ROOT.glob("tests/*/**/test_*.py")
    }
    assert folders <= run
    assert all((ROOT / path).exists() for path in run if path.startswith("tests/"))


def test_every_public_name_is_there():
    assert [name for name in asyncctl.__all__ if not hasattr(asyncctl, name)] == []
