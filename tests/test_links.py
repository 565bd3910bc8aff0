"""Every link in the pages leads somewhere, and every test that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts),
]
LINK = re.compile(r"\]\(<?([^)\s>#]*)(?:#([^)\s>]+))?>?\)")
INCLUDED = re.compile(r"^```\{literalinclude\} (\S+)$", re.MULTILINE)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def text_of(page):
    return page.read_text(encoding="utf-8")


def slug(heading):
    """Return the anchor that GitHub and MyST make of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors_of(page):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)}


def problems(page):
    """Yield what is wrong with the links of a page."""
    prose = FENCE.sub("", text_of(page))
    for path, anchor in LINK.findall(prose):
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{path} is not there"
        elif anchor and anchor not in anchors_of(target):
            yield f"{path}#{anchor}: no such heading"
    for path in INCLUDED.findall(text_of(page)):
        if not (page.parent / path).is_file():
            yield f"{path} cannot be included"
    for path, name in TEST.findall(prose):
        file = ROOT / "tests" / path
        if not file.is_file() or not re.search(rf"^\s*(?:async )?def {name}\(", text_of(file), re.MULTILINE):
            yield f"there is no test {path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert [] == [*problems(page)]


def test_every_page_is_in_the_contents():
    listed = {
        (DOCS / line).with_suffix(".md")
        for block in TOCTREE.findall(text_of(DOCS / "index.md"))
        for line in block.splitlines()
        if line and not line.startswith(":")
    }
    assert {page for page in PAGES if DOCS in page.parents} - {DOCS / "index.md"} == listed


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("What is stored, and when?", "what-is-stored-and-when"),
        ("`/health` and *so on*", "health-and-so-on"),
        ("A server that [waits](x.md)", "a-server-that-waits"),
    ],
)
def test_anchor_is_the_one_of_the_renderer(heading, expected):
    assert expected == slug(heading)


@pytest.mark.parametrize(
    "text",
    [
        "[a](nowhere.md)",
        "[a](#nothing)",
        "[a](other.md#nothing)",
        "`proxy/test_none.py::test_x`",
        "`test_links.py::test_x`",
    ],
)
def test_what_leads_nowhere_is_found(text, tmp_path):
    (tmp_path / "other.md").write_text("# Something\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{text} and [this](other.md#something)\n")
    assert 1 == len([*problems(page)])
