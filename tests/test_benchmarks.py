"""The picture of the benchmarks is one of what was measured."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
EXPLANATION = ROOT / "docs" / "explanation"
SVG = "{http://www.w3.org/2000/svg}"

chart = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "benchmarks" / "chart.py")))


def bars_of(picture):
    """Return the widths of the bars, in order."""
    return [float(rect.get("width", "")) for rect in picture.iter(f"{SVG}rect") if rect.get("height") == "12"]


def texts_of(picture):
    return [text.text for text in picture.iter(f"{SVG}text")]


def test_each_value_has_a_bar_of_its_length():
    rows = [chart.Bars("a & b", [100.0, 50.0]), chart.Bars("c", [25.0, 1234.4])]
    picture = ElementTree.fromstring(chart.draw("t", ["x", "y"], rows))

    # Two of them explain the colours.
    bars = bars_of(picture)[2:]
    longest = max(bars)
    assert [100.0, 50.0, 25.0, 1234.4] == [
        round(width / longest * 1234.4, 0 if width < longest else 1) for width in bars
    ]
    assert ["t", "x", "y", "a & b", "100", "50", "c", "25", "1,234"] == texts_of(picture)


def test_picture_in_the_documentation_shows_the_table_beside_it():
    """Both come from one run."""
    page = (EXPLANATION / "performance.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|", page.partition("| Relay")[0], re.MULTILINE)
    picture = ElementTree.parse(EXPLANATION / "performance.svg").getroot()
    said = texts_of(picture)

    assert "(performance.svg)" in page
    assert len(table) == len(bars_of(picture)) - 2 > 0
    for name, _, value in table:
        after = said[said.index(name) :]
        assert f"{int(value):,}" in after[1:3], name
