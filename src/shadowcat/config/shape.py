"""The shape of the file: which tables it may have, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from .setting import Setting


@attrs.define(eq=False)
class Shape:
    """A place in the file: a setting, or a table, or an array of tables."""

    setting: Setting | None = None
    named: dict[str, Shape] = attrs.field(factory=dict)
    """What may be in it, by name."""

    anything: Shape | None = None
    """What is in it under any name that the user chooses."""

    each: Shape | None = None
    """What each of an array is."""


def shape_of(settings: Iterable[Setting]) -> Shape:
    """Return the shape of a file that may say *settings*."""
    root = Shape()
    for setting in settings:
        if not setting.in_file:
            continue
        place = root
        for part in setting.key.replace("[]", ".[]").split("."):
            place = _step(place, part)
        place.setting = setting
    return root


def _step(place: Shape, part: str) -> Shape:
    if part == "*":
        place.anything = place.anything or Shape()
        return place.anything
    if part == "[]":
        place.each = place.each or Shape()
        return place.each
    return place.named.setdefault(part, Shape())
