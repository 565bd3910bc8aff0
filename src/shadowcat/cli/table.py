"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


def say(text: str) -> None:
    """Print *text*; whoever reads may have had enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Nothing more can be said there, and at the end it must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_json(value: Any) -> str:
    """Return *value* as JSON in lines."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def as_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], otherwise: str) -> str:
    """Return *rows* in columns.

    Args:
        columns: By heading, which member of a row it has.
        otherwise: What is said if there are no rows.
    """
    if not rows:
        return otherwise
    lines = [list(columns), *([cell(row.get(member)) for member in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def as_lines(value: Mapping[str, Any]) -> str:
    """Return the members of *value*, one a line; lists and objects within it in short."""
    width = max(map(len, value))
    return "\n".join(f"{name.replace('_', ' '):{width}}  {cell(member)}" for name, member in value.items())


def cell(value: Any) -> str:
    """Return *value* in one line, and with nothing in it that a terminal would obey."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(cell(member) for member in value.values() if member is not None) or "-"
    if isinstance(value, list):
        return ", ".join(map(cell, value)) or "-"
    return "".join(char if char.isprintable() else "?" for char in str(value))
