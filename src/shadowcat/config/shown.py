"""The values that are in force, and who said each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

from .setting import Setting
from .values import Values

MASK = "********"


def show_values(values: Values) -> str:
    """Return *values* as TOML, each line with its source; secrets are masked."""
    text, section = "", None
    for key, setting in _keys(values):
        value = values.given[key].value if key in values.given else setting.default
        if value is None:
            continue
        here, _, name = key.rpartition(".")
        if here != section:
            section = here
            text += f"\n[{section}]\n" if text else f"[{section}]\n"
        source = values.source(key) if key in values.given else "default"
        text += f"{name} = {write_value(setting, value)}  # {source}\n"
    return text


def _keys(values: Values) -> Iterator[tuple[str, Setting]]:
    """Iterate over the settings that have a value; in a file, a table would come before those in it."""
    for key, setting in values.settings.items():
        if "*" not in key and "[]" not in key:
            yield key, setting


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
    return _quote(str(value))


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
