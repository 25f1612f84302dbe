"""The page of metrics: that it is the one that the code makes, and that it leaves nothing out."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from asyncctl.database.metrics import DatabaseMetrics
from asyncctl.generate.metrics import metrics_page
from asyncctl.observe import Metrics
from asyncctl.observe.families import LABELS, Families

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "metrics.md"


@pytest.fixture
def shown():
    """The metrics of the shipped program, and what is said of its own."""
    metrics = Metrics()
    DatabaseMetrics(metrics)
    return metrics


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text() == metrics_page(DatabaseMetrics), "docs/metrics.md is not up to date: make docs"


def test_the_page_says_how_it_is_made_as_make_does_it():
    command = PAGE.read_text().partition("Made by `python ")[2].partition("`")[0]
    assert command.startswith("-m asyncctl.generate.metrics asyncctl.database")
    assert f"python {command} > docs/metrics.md\n" in (ROOT / "Makefile").read_text()


def test_every_metric_of_the_shipped_process_is_on_the_page(shown):
    page = PAGE.read_text()
    for family in parse(generate_latest(shown.registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"\n| `{name}` | {family.type} |" in page


def test_every_label_says_what_bounds_it_and_no_other_is_told_of(shown):
    used = {label for family in vars(Families()).values() for label in family.labels}
    assert used == set(LABELS)
    for family, labels in shown.own:
        assert set(family.labels) == set(labels)
        assert all(labels.values()), family.name


def test_every_text_reads_as_a_sentence(shown):
    for family in (*vars(Families()).values(), *(family for family, _ in shown.own)):
        assert family.text.endswith("."), family.name
        assert family.said.get("advice", "x.").endswith("."), family.name


MODULE = """
def count(metrics):
    metrics.counter("widgets_made_total", "Widgets that were made.", {"size": "1 to 10"}, section="Widgets")
"""


def page_of(folder, name):
    """Make the page as an author does; returns exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "asyncctl.generate.metrics", name],
        cwd=folder, capture_output=True, timeout=30, check=False, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_an_author_has_a_page_of_his_own_program(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    code, page, error = page_of(tmp_path, "mine:count")
    assert (code, error) == (0, "")
    assert "`asyncctl.observe.families` and `mine` declare" in page
    assert "\n## Widgets\n" in page
    assert "\n| `widgets_made_total` | counter | `size` | Widgets that were made. |\n" in page
    assert "database" not in page


@pytest.mark.parametrize("name", ["mine:other", "mine", "nobody:count", ":"])
def test_what_is_not_there_is_one_line(tmp_path, name):
    (tmp_path / "mine.py").write_text(MODULE)
    code, page, error = page_of(tmp_path, name)
    assert (code, page) == (2, "")
    assert error.startswith(f"python -m asyncctl.generate.metrics: {name} is not there (")
    assert len(error.splitlines()) == 1
