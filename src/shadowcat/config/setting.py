"""One setting: its key in a file, its flag, its variable, what it means and what it sets."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from .kind import Kind

PREFIX = "SHADOWCAT_"

FORWARD, REVERSE = "forward", "reverse"
BOTH = frozenset({FORWARD, REVERSE})
_NUMBER = re.compile(r"\[\d+\]")
_NAMED = re.compile(r"^servers\.[^.]+")
_OPERATORS = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum"}


@attrs.define(kw_only=True, slots=False, frozen=True)
class Setting:
    """One setting.

    Its default and bounds are those of the component that it configures.
    """

    key: str
    """``section.name``; ``*`` stands for a name that the user chooses, ``[]`` for each table of an array."""

    kind: Kind
    help: str
    """What it is, for people; with the unit first, for a number."""

    owner: type[Any] | None = None
    """The configuration class that has it as a field; None if it is used by itself."""

    field: str = ""
    """The owner's name for it; that of the key if empty."""

    fallback: object = None
    """The default of one without an owner."""

    said_default: str = ""
    """How documentation tells a default that is none of one value."""

    flag: str | None = None
    flag_help: str = ""
    """What the flag does, if that is another sentence."""

    commands: frozenset[str] = BOTH
    """Which commands have it."""

    in_file: bool = True
    in_environment: bool = True
    is_live: bool = False
    """Whether a reload changes it; otherwise a restart does."""

    @cached_property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @cached_property
    def section(self) -> str:
        """The key without its last part."""
        return self.key.rpartition(".")[0]

    @cached_property
    def attribute(self) -> str:
        """The owner's name for it."""
        return self.field or self.name

    @cached_property
    def dest(self) -> str:
        """What argparse calls it."""
        return self.flag.lstrip("-").replace("-", "_") if self.flag else self.name

    @cached_property
    def variable(self) -> str | None:
        """The environment variable; None where there may be any number of them."""
        if not self.in_environment or "*" in self.key or "[]" in self.key:
            return None
        stem = self.dest.removeprefix("no_") if self.flag else self.key.replace(".", "_")
        return PREFIX + stem.upper()

    @cached_property
    def default(self) -> object:
        """The value it has when nobody says anything."""
        if self.owner is None:
            return self.fallback
        default = attrs.fields_dict(self.owner)[self.attribute].default
        if isinstance(default, enum.Enum) and default is not attrs.NOTHING:
            return default.value
        return default if isinstance(default, bool | int | float | str) else None

    @cached_property
    def bounds(self) -> Mapping[str, object]:
        """The bounds of a number, as JSON Schema writes them."""
        if self.owner is None:
            return {}
        validator: Any = attrs.fields_dict(self.owner)[self.attribute].validator
        validator = getattr(validator, "validator", validator)
        return {
            _OPERATORS[each.compare_op]: each.bound
            for each in getattr(validator, "_validators", (validator,))
            if hasattr(each, "compare_op")
        }


def pattern_of(key: str) -> str:
    """Return *key* of a value as the key of its setting is written: ``servers.*.url`` for ``servers.files.url``."""
    return _NAMED.sub("servers.*", _NUMBER.sub("[]", key))


def tell(value: object) -> str:
    """Return *value* as help and documentation write it; empty if there is none."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.15g}"
    return str(value)
