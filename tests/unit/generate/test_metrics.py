"""The page of metrics: that it is the one that the code makes, and that it leaves nothing out."""

from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from asyncctl.database.metrics import DatabaseMetrics
from asyncctl.generate.metrics import metrics_page
from asyncctl.observe import Metrics
from asyncctl.observe.families import LABELS, Families

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_what_the_code_says():
    assert PAGE.read_text() == metrics_page(DatabaseMetrics), "docs/metrics.md is not up to date: make docs"


def test_every_metric_of_a_process_is_on_the_page():
    page = metrics_page()
    for family in parse(generate_latest(Metrics().registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"\n| `{name}` | {family.type} |" in page


def test_every_label_says_what_bounds_it_and_no_other_is_told_of():
    used = {label for family in vars(Families()).values() for label in family.labels}
    assert used == set(LABELS)


def test_every_text_reads_as_a_sentence():
    for family in vars(Families()).values():
        assert family.text.endswith("."), family.name
        assert family.said.get("advice", "x.").endswith("."), family.name
