"""What the pages say is there: links lead somewhere, errors can be caught; and public names can be imported."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asyncctl
from asyncctl.client import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def anchors(page):
    """The anchors of a page's headings, as GitHub and its like make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("section", ["TLS", "Errors"])
def test_each_error_that_the_page_explains_can_be_caught(section):
    text = (ROOT / "docs" / "client.md").read_text()
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [row.split("|")[1] for row in body.splitlines() if row.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert names
    for name in names:
        assert name in errors.__all__
        assert issubclass(getattr(errors, name), errors.KubernetesError)


def test_each_error_is_a_public_name():
    made = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert made == set(errors.__all__) - {"Cause", "Target"}


@pytest.mark.parametrize("package", ["asyncctl", "asyncctl.client", "asyncctl.objects", "asyncctl.operator"])
def test_each_public_name_is_there(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert hasattr(module, name)


def test_what_the_client_takes_and_gives_can_be_named():
    assert {"Client", "ClusterConfig", "Patch", "State", "Checking", "Context"} <= set(asyncctl.__all__)
    assert {"Bookmark", "Change", "Client", "Patch", "Scale", "Token"} <= set(asyncctl.client.__all__)


@pytest.mark.parametrize(
    "module", ["asyncctl", "asyncctl.client", "asyncctl.client.errors", "asyncctl.client.config.oidc"]
)
def test_importing_has_no_effect_and_brings_nothing_heavy(module):
    program = f"import sys, threading, {module}; print(threading.active_count(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    threads, *modules = done.stdout.split()
    assert (threads, done.stderr) == ("1", "")
    assert not {"kubernetes_asyncio", "cryptography", "yaml", "psycopg"} & set(modules)


def test_each_message_of_the_log_that_is_explained_is_one_that_the_code_says():
    text = (ROOT / "docs" / "operating.md").read_text()
    source = "".join(file.read_text() for file in sorted((ROOT / "asyncctl").rglob("*.py")))
    told = []
    for section, column in (("How it starts", 2), ("How it stops", 2), ("Messages, and what to do", 1)):
        body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        cells = [row.split("|")[column] for row in body.splitlines() if row.startswith("| ")]
        told += [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    assert len(told) > 30
    for message in told:
        step = message.removeprefix("stopped: ")
        parts = [f'"{step}"'] if step != message else message.strip("…").split("…")
        assert all(part in source for part in parts), message
