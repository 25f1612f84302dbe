"""What the pages say is there: their links lead somewhere, and the errors that they name can be caught."""

import re
from pathlib import Path

import pytest

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
        assert issubclass(getattr(errors, name), errors.KubernetesError)
