"""What a value may be, and how flags, variables and files write it.

Flags and variables are text; a file has values of TOML.  Both ways lead to the same
value, or to a `Wrong` whose text goes after the name of where it was said.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_STRING: dict[str, object] = {"type": "string"}
_NO_MORE: dict[str, object] = {"additionalProperties": False}

SECRET_SCHEMA: dict[str, object] = {
    "oneOf": [
        _STRING,
        {"type": "object", "properties": {"env": _STRING}, "required": ["env"], **_NO_MORE},
        {"type": "object", "properties": {"file": _STRING}, "required": ["file"], **_NO_MORE},
    ]
}


class Wrong(ValueError):
    """A value that a setting cannot have.

    Args:
        path: Where in the value it is, if not all of it is wrong.
    """

    def __init__(self, said: str, *path: str | int) -> None:
        super().__init__(said)
        self.path = path


# No class of attrs: to make one takes a part of each start.
class Kind(NamedTuple):
    """A kind of value."""

    name: str
    """As documentation calls it."""

    parse: Callable[[str], Any]
    """Reads one text of a flag or variable; raises `Wrong`."""

    accept: Callable[[object], Any]
    """Takes a value of TOML; raises `Wrong`."""

    schema: Mapping[str, object]
    """What JSON Schema says of it."""

    metavar: str | None = None
    choices: tuple[str, ...] = ()
    is_secret: bool = False
    """Whether a value is for nobody to see; of pairs, each value is."""

    separator: str = ""
    """Between several values in one variable; empty if there is one value."""

    @property
    def is_repeated(self) -> bool:
        """Whether its flag may be given several times."""
        return bool(self.separator)

    def parse_variable(self, text: str) -> object:
        """Read the text of an environment variable.

        Raises:
            Wrong: It is not of this kind.
        """
        if not self.separator:
            return self.parse(text)
        if self.separator == " ":
            import shlex

            return [self.parse(part) for part in shlex.split(text)]
        return [self.parse(part.strip()) for part in text.split(self.separator) if part.strip()]


def typename(value: object) -> str:
    """Return what TOML calls the type of *value*."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be a string, not {typename(value)}")
    if "\0" in value:
        raise Wrong("has a NUL character in it")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"must be a whole number, not {typename(value) if not isinstance(value, float) else value}")
    return value


def _parse_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Wrong(f"must be a whole number, not {text[:40]}") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"must be a number, not {typename(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise Wrong("must be a number, not nan")
    return number


def _finite(value: object) -> float:
    number = _number(value)
    if math.isinf(number):
        raise Wrong(f"must be a finite number, not {value}")
    return number


def _parse_number(text: str) -> float:
    try:
        # What is no number even so, the component refuses.
        return float(text)
    except ValueError:
        raise Wrong(f"must be a number, not {text[:40]}") from None


def _parse_finite(text: str) -> float:
    try:
        return _finite(float(text))
    except ValueError:
        raise Wrong(f"must be a finite number, not {text[:40]}") from None


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, not {typename(value)}")
    return value


def _parse_boolean(text: str) -> bool:
    if text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    raise Wrong(f"must be true or false, not {text[:40]}")


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise Wrong(f"must be an array of strings, not {typename(value)}")
    taken = []
    for number, entry in enumerate(value):
        try:
            taken.append(_text(entry))
        except Wrong as wrong:
            raise Wrong(str(wrong), number) from None
    return taken


def read_secret(value: object) -> str:
    """Return the text that *value* is, or that ``{ env = "VAR" }`` or ``{ file = "PATH" }`` leads to.

    Raises:
        Wrong: It is none of these, or cannot be read.  No secret is quoted.
    """
    match value:
        case {"env": str(name), **rest} if not rest:
            if not (text := os.environ.get(name, "")):
                raise Wrong(f"takes the variable {name!r}, which is not set")
            return text
        case {"file": str(path), **rest} if not rest:
            try:
                return _text(Path(path).read_text(encoding="utf-8").rstrip("\r\n"))
            except (OSError, UnicodeError, Wrong) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
                raise Wrong(f"takes the file {path!r}, which cannot be read: {reason}") from None
            except ValueError:
                raise Wrong("takes a file whose name no file can have") from None
        case dict():
            raise Wrong('must be a string, { env = "VARIABLE" } or { file = "PATH" }')
    return _text(value)


def _pairs(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        raise Wrong(f"must be a table of names and values, not {typename(value)}")
    pairs = []
    for name, entry in value.items():
        try:
            pairs.append((name, read_secret(entry)))
        except Wrong as wrong:
            raise Wrong(str(wrong), name) from None
    return pairs


def _table(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(f"must be a table of names and strings, not {typename(value)}")
    for name, entry in value.items():
        if not isinstance(entry, str):
            raise Wrong(f"must be a string, not {typename(entry)}", name)
    return value


def _parse_header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise Wrong(f"{name!r} has no value; write NAME:VALUE")
    return name.strip(), value.strip()


def _parse_header_variable(text: str) -> tuple[str, str]:
    name, _, variable = text.partition("=")
    value = os.environ.get(variable)
    if not value:
        raise Wrong(f"{text!r}: the variable {variable!r} is not set; write NAME=VARIABLE")
    return name.strip(), value


def _parse_variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise Wrong(f"{name!r} has no value; write NAME=VALUE, or pass yours on with --env-pass {name}")
    return name, value


def choice(*choices: str) -> Kind:
    """Return the kind of what is one of *choices*."""

    def check(value: object) -> str:
        if value not in choices:
            said = repr(value[:40]) if isinstance(value, str) else typename(value)
            raise Wrong(f"must be one of {', '.join(choices)}, not {said}")
        return str(value)

    return Kind(name="one of these", parse=check, accept=check, schema={"enum": list(choices)}, choices=choices)


def _table_of(parse: Callable[[str], Any], metavar: str) -> Kind:
    schema = {"type": "object", "additionalProperties": SECRET_SCHEMA}
    return Kind(
        name="names and values",
        is_secret=True,
        parse=parse,
        accept=_pairs,
        schema=schema,
        metavar=metavar,
        separator="\n",
    )


def named(kind: Kind, metavar: str) -> Kind:
    """Return *kind* with another metavar."""
    return kind._replace(metavar=metavar)


_WHOLE_SCHEMA, _NUMBER_SCHEMA = {"type": "integer"}, {"type": "number"}
_LIST_SCHEMA: Mapping[str, object] = {"type": "array", "items": _STRING}

TEXT = Kind(name="string", parse=_text, accept=_text, schema=_STRING)
SECRET = Kind(name="secret", parse=_text, accept=read_secret, schema=SECRET_SCHEMA, is_secret=True)
WHOLE = Kind(name="whole number", parse=_parse_whole, accept=_whole, schema=_WHOLE_SCHEMA, metavar="N")
SECONDS = Kind(name="number", parse=_parse_number, accept=_number, schema=_NUMBER_SCHEMA, metavar="N")
FINITE = Kind(name="finite number", parse=_parse_finite, accept=_finite, schema=_NUMBER_SCHEMA, metavar="N")
BOOLEAN = Kind(name="boolean", parse=_parse_boolean, accept=_boolean, schema={"type": "boolean"})
TABLE = Kind(
    name="names and strings",
    parse=_text,
    accept=_table,
    schema={"type": "object", "additionalProperties": _STRING},
)
TEXTS = Kind(name="array of strings", parse=_text, accept=_texts, schema=_LIST_SCHEMA, separator=",")
WORDS = Kind(name="array of strings", parse=_text, accept=_texts, schema=_LIST_SCHEMA, separator=" ")
HEADERS = _table_of(_parse_header, "NAME:VALUE")
HEADER_VARIABLES = _table_of(_parse_header_variable, "NAME=VARIABLE")
VARIABLES = _table_of(_parse_variable, "NAME=VALUE")
