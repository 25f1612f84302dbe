"""The page on databases names every field, reason, setting and key that there is, and none that there is not."""

import re
from pathlib import Path

import pytest
import yaml

from asyncctl.database.catalogue import ServerRefused
from asyncctl.database.postgres.errors import DatabaseError
from asyncctl.database.provisioners import admin_secret
from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Database
from asyncctl.generate import crd
from asyncctl.objects import from_dict

assert admin_secret  # its errors are told too
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "database.md").read_text()
CODE = "".join(file.read_text() for file in sorted((ROOT / "asyncctl" / "database").rglob("*.py")))
NOT_ASKED_FOR = {"Running", "Suspended", "Terminating", "Provisioning", "Provisioned", "LoginProven"}  # no failures


def section(title):
    return re.split(r"\n##+ ", PAGE.partition(f"\n## {title}\n")[2])[0]


def first_cells(title):
    return re.findall(r"^\| `([^`]+)` \|", section(title), re.MULTILINE)


def fields(schema, path=""):
    for name, each in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from fields(each, f"{path}{name}.")
        yield from fields(each.get("items", {}), f"{path}{name}[].")


def test_every_field_has_its_row_in_the_order_of_the_spec():
    schema = crd(Database)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert first_cells("Every field") == list(fields(schema["properties"]["spec"]))


def test_every_reason_has_its_row():
    said = set(
        re.findall(r'(?:reason(?:: ClassVar\[str\])? ?= ?|REASON = |Failed\("\w*", |else )"([A-Z][a-z]\w+)"', CODE)
    )
    said |= set(re.findall(r'_trouble\([^"]*f?"[^"]*", "(\w+)"', CODE))
    listed = first_cells("Reasons, and what to do")
    assert len(listed) == len(set(listed))
    for reason in listed:
        assert f'"{reason}"' in CODE, reason
    assert said - NOT_ASKED_FOR - set(listed) == set()


def below(kind):
    yield kind
    for each in kind.__subclasses__():
        yield from below(each)


def test_it_is_told_which_of_them_are_only_looked_at_slowly():
    told = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (\w+) ", section("Reasons, and what to do"), re.MULTILINE))
    for error in (*below(DatabaseError), *below(ServerRefused)):
        assert (told[error.reason] == "slowly") is error.stalled, error


def test_every_rule_of_the_daemon_is_told_and_no_other():
    documents = yaml.safe_load_all((ROOT / "manifests" / "rbac" / "operator.yaml").read_text())
    rules = [rule for document in documents for rule in document.get("rules", ())]
    has = {(rule["apiGroups"][0], each) for rule in rules for each in rule["resources"]}
    has = {f"{each}.{group}" if group == "events.k8s.io" else each for group, each in has}
    text = PAGE.partition("\n### Who may do what\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`.*) \| (?:read|list|create|get)", text, re.MULTILINE)
    assert set(re.findall(r"`([a-z.0-9/]+)`", " ".join(rows))) | {"databases/finalizers"} == has


def test_every_setting_that_is_named_is_one():
    known = {row.variable for row in DatabaseSettings.rows({})}
    assert set(re.findall(r"ASYNCCTL_[A-Z_]+", PAGE)) <= known


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(apiVersion: apps.*?)```", PAGE, re.DOTALL))
def test_every_example_is_a_database(text):
    assert from_dict(Database, yaml.safe_load(text)).spec
