"""A bar chart of measured rows, as SVG: no library, and the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _LABELS, _NUMBERS = 760, 300, 80
_BAR, _GAP, _BETWEEN, _TOP = 12, 2, 12, 54
_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")


class Bars(NamedTuple):
    """What stands beside one label: a value for each series."""

    label: str
    values: Sequence[float]


def draw(title: str, series: Sequence[str], rows: Sequence[Bars]) -> str:
    """Return an SVG document with a bar for each value, in the order given.

    Args:
        series: What the values of each row are, as many as there are values.
    """
    longest = max(value for row in rows for value in row.values)
    step = len(series) * (_BAR + _GAP) + _BETWEEN
    height = _TOP + len(rows) * step
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for number, name in enumerate(series):
        x = _LABELS + number * 150
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{_COLORS[number]}"/>')
        parts.append(f'<text x="{x + 18}" y="38">{escape(name)}</text>')
    for place, row in enumerate(rows):
        top = _TOP + place * step
        middle = top + len(series) * (_BAR + _GAP) / 2 + 4
        parts.append(f'<text x="{_LABELS - 8}" y="{middle:.0f}" text-anchor="end">{escape(row.label)}</text>')
        for number, value in enumerate(row.values):
            y = top + number * (_BAR + _GAP)
            width = (_WIDTH - _LABELS - _NUMBERS) * value / longest
            parts.append(f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_COLORS[number]}"/>')
            parts.append(f'<text x="{_LABELS + width + 6:.1f}" y="{y + _BAR - 2}">{value:,.0f}</text>')
    return "\n".join([*parts, "</svg>\n"])
