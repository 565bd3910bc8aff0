"""The values that are in force, and who said each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from .observing_table import SWITCHES
from .server import is_set
from .servers_table import SET
from .setting import Setting, pattern_of
from .values import Values

MASK = "********"

_NUMBER = re.compile(r"\[\d+\]")


def show_values(values: Values) -> str:
    """Return *values* as TOML, each line with its source; secrets are masked."""
    sections: dict[str, list[str]] = {}
    for key, setting in _keys(values):
        given = values.given.get(key)
        value = setting.default if given is None else given.value
        if value is not None:
            section, _, name = key.rpartition(".")
            source = "default" if given is None else given.source
            sections.setdefault(section, []).append(f"{name} = {write_value(setting, value)}  # {source}\n")
    return "\n".join(_header(section) + "".join(lines) for section, lines in sections.items())


def _header(section: str) -> str:
    table = _NUMBER.sub("", section)
    return f"[[{table}]]\n" if section.endswith("]") else f"[{table}]\n"


def _keys(values: Values) -> Iterator[tuple[str, Setting]]:
    """Iterate over the settings of this configuration: those that are there once, and what the user has named."""
    # Defaults of what is not there at all would say that it is.
    absent = set() if is_set(values) else {setting.key for setting in SET}
    absent |= {"upstream.max_children", "upstream.spares"} - set(values.given)
    off = {section for section, keys in SWITCHES.items() if not values.given.keys() & set(keys)}
    absent |= {key for key, setting in values.settings.items() if setting.section in off}
    for key, setting in values.settings.items():
        if "*" not in key and "[]" not in key and key not in absent:
            yield key, setting
    for key in values.given:
        pattern = pattern_of(key)
        if pattern != key and pattern in values.settings:
            yield key, values.settings[pattern]


def write_value(setting: Setting, value: object) -> str:
    """Return *value* as TOML; what is secret of it is masked."""
    if setting.kind.is_secret and isinstance(value, list):
        return "{ " + ", ".join(f"{_quote(name)} = {_quote(MASK)}" for name, _ in value) + " }"
    if setting.kind.is_secret:
        return _quote(_mask(str(value)))
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case dict():
            return "{ " + ", ".join(f"{_quote(name)} = {_quote(str(entry))}" for name, entry in value.items()) + " }"
        case list():
            return "[" + ", ".join(_quote(str(entry)) for entry in value) + "]"
    return _quote(without_query(str(value)))


def without_query(text: str) -> str:
    """Return *text*, if it is a URL without its query: some servers take a key there."""
    url, mark, _ = text.partition("?")
    return f"{url}?{MASK}" if mark and "://" in url else text


def _mask(text: str) -> str:
    """Return *text* without what is secret of it: of a URL, where it leads may be seen."""
    try:
        url = urlsplit(text)
        shown = f"{url.hostname or ''}{f':{url.port}' if url.port else ''}"
    except ValueError:
        return MASK
    if not (url.scheme and shown):
        return MASK
    return f"{url.scheme}://{f'{MASK}@' if '@' in url.netloc else ''}{shown}{url.path}"


def _quote(text: str) -> str:
    # A string of JSON is one of TOML, but for a character that no setting may have.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
