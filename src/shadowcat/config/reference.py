"""The reference of settings, as Markdown; docs/reference/configuration.md is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from .setting import Setting, tell
from .table import SECTIONS

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def write_reference(settings: Iterable[Setting]) -> str:
    """Return a table of *settings* for each section of the file."""
    text = ""
    # A server with a name has what the one without has: the page says so once.
    told = [setting for setting in settings if not setting.key.startswith("servers.*.")]
    for section, group in groupby(told, lambda setting: setting.section):
        title = section.removesuffix("[]")
        array = section.endswith("[]")
        text += f"## {'[[' if array else '['}{title}{']]' if array else ']'}\n\n"
        about = SECTIONS.get(section.removesuffix("[]"), (None, None))[1]
        text += f"{about[0].upper()}{about[1:]}.\n\n" if about else ""
        text += "| key | value | default | flag | variable |\n|---|---|---|---|---|\n"
        text += "".join(_row(setting) for setting in group) + "\n"
    return text


def _row(setting: Setting) -> str:
    default = setting.said_default or (f"`{tell(setting.default)}`" if setting.default is not None else "")
    cells = [
        f"`{setting.name}`" if setting.in_file else "",
        f"{setting.help}; {_describe(setting)}",
        default,
        f"`{setting.flag}`" if setting.flag else "",
        f"`{setting.variable}`" if setting.variable else "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _describe(setting: Setting) -> str:
    """Return what kind of value it takes, and within which bounds."""
    live = ["changed by a reload"] if setting.is_live else []
    if setting.kind.choices:
        return ", ".join(["one of " + ", ".join(f"`{choice}`" for choice in setting.kind.choices), *live])
    bounds = [f"{_BOUNDS[name]} {tell(bound)}" for name, bound in setting.bounds.items()]
    return ", ".join([setting.kind.name, *bounds, *live])
