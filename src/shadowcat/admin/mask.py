"""Settings, with everything left out that could be a secret.

Whatever is configured is walked field by field.  Numbers, switches, choices and paths
are shown.  Text is shown only where it is a name, an address or the like: not the values
of headers and variables, not the arguments of a command, of a URL not much but the
host, and not what a class leaves out of its own ``repr``.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import attrs

MASK = "***"

_SECRET = re.compile(r"token|secret|pass|credential|authoriz|cookie|key(?!s?_file|s?_url|s?_path|word)", re.IGNORECASE)
"""In the name of a field whose text is not shown; or else it is called ``value``, as a header's is."""

_PATHS = frozenset({"", "/", "/mcp", "/sse", "/ws"})
"""Paths of URLs that are no secret; some servers give each customer a path that is one."""

_DATABASES = frozenset(map(str, range(64)))
"""Those of a Redis server."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def masked(value: Any, name: str = "") -> Any:
    """Return *value*, of the field *name*, as JSON without secrets."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if attrs.has(type(value)):
        return {field.name: _field(field, getattr(value, field.name)) for field in attrs.fields(type(value))}
    if name == "value" or _SECRET.search(name):
        return MASK
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        return _without_credentials(value)
    if isinstance(value, Mapping):
        return {str(key): _member(member, str(key)) for key, member in value.items()}
    if isinstance(value, Sequence | Set):
        return _members(value, name)
    return str(value) if isinstance(value, PurePath) else f"<{type(value).__name__}>"


def _field(field: attrs.Attribute[Any], value: Any) -> Any:
    if field.repr is False and value and not isinstance(value, Mapping) and not _are_pairs(value):
        return MASK
    if field.name == "command" and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        # The program; what follows often has a key of an API in it.
        return [masked(part) if index == 0 else MASK for index, part in enumerate(value)]
    return masked(value, field.name)


def _members(values: Sequence[Any] | Set[Any], name: str) -> list[Any]:
    ordered = sorted(values, key=repr) if isinstance(values, Set) else values
    if _are_pairs(ordered):
        return [[masked(value[0]), MASK] for value in ordered]
    return [masked(value, name) for value in ordered]


def _member(value: Any, key: str) -> Any:
    """Return the value of a mapping: text there is a variable's or a header's, unless settings are below it."""
    return MASK if isinstance(value, str | bytes) else masked(value, key)


def _are_pairs(values: Any) -> bool:
    """Tell whether *values* are names and values, as headers are."""
    return isinstance(values, Sequence) and all(isinstance(each, tuple) and len(each) == 2 for each in values)


def _without_credentials(text: str) -> str:
    if not _URL.match(text):
        return text
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")
        place = f"{MASK}@{host[2]}" if host[1] else host[2]
        is_shown = parts.path in _PATHS or parts.path[1:] in _DATABASES
        return urlunsplit(
            (parts.scheme, place, parts.path if is_shown else f"/{MASK}", MASK if parts.query else "", "")
        )
    except ValueError:
        return MASK
