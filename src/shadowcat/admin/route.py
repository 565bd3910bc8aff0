"""What a request to the admin API can be, and what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import attrs
import msgspec

from ..errors import InvalidRequest
from .desk import Desk

Schema = Mapping[str, Any]
"""A JSON Schema of 2020-12."""

_MAX_FIELDS = 16


@attrs.frozen(kw_only=True)
class Parameter:
    """One that a query may have."""

    name: str
    description: str
    kind: type[int] | type[float] | None = None
    """Of number; None for text."""
    minimum: float | None = None
    maximum: float | None = None
    default: int | None = None

    @property
    def schema(self) -> Schema:
        """Which values it takes."""
        named = {int: "integer", float: "number", None: "string"}[self.kind]
        bounds = {"minimum": self.minimum, "maximum": self.maximum, "default": self.default}
        return {"type": named, **{word: value for word, value in bounds.items() if value is not None}}

    def read(self, text: str) -> int | float | str:
        """Return the value in *text*.

        Raises:
            InvalidRequest: It is none that the parameter takes.
        """
        if self.kind is None:
            return text
        try:
            value = self.kind(text)
        except (ValueError, OverflowError):
            raise InvalidRequest(f"{self.name} must be a number; {self.description}") from None
        # Not the other way round: what compares with nothing is refused too.
        is_within = (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)
        if not is_within or len(text) > 32:
            bounds = f"at least {self.minimum:g}" + ("" if self.maximum is None else f" and at most {self.maximum:g}")
            raise InvalidRequest(f"{self.name} must be {bounds}; {self.description}")
        return value


@attrs.frozen(kw_only=True)
class Call:
    """A request, taken apart."""

    path: Mapping[str, str]
    query: Mapping[str, Any]
    """With the defaults of what is not given."""
    body: Mapping[str, Any]


Handle = Callable[[Desk, Call], Awaitable[object]]
"""Returns what is answered, as JSON."""


@attrs.frozen(kw_only=True)
class Route:
    """A method and a path, what they are for, and what does it.

    The document, the reference and the answers are all made from it.
    """

    method: str
    path: str
    """With the names of variable parts in braces."""
    summary: str
    handle: Handle
    answer: str
    """The name of the schema of the answer."""
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    """As `answer`, of the request."""
    needs_token: bool = True
    errors: tuple[int, ...] = ()
    """Beside those that every route can answer with."""

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the variable parts of *path*, None if it is another."""
        wanted, given = self.path.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        parts: dict[str, str] = {}
        for name, value in zip(wanted, given, strict=True):
            if name.startswith("{") and value:
                parts[name[1:-1]] = value
            elif name != value:
                return None
        return parts

    def read_query(self, query: bytes) -> Mapping[str, Any]:
        """Return the parameters in *query*.

        Raises:
            InvalidRequest: There is one too many, or one that is wrong.
        """
        values: dict[str, Any] = {each.name: each.default for each in self.parameters}
        known = {each.name: each for each in self.parameters}
        seen: set[str] = set()
        for name, text in _fields(query):
            if name not in known or name in seen:
                raise InvalidRequest(f"the query may have, once each: {', '.join(known) or 'nothing'}")
            seen.add(name)
            values[name] = known[name].read(text)
        return values


def _fields(query: bytes) -> Sequence[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidRequest("the query cannot be read; write it as name=value&name=value, percent-encoded") from None


def read_object(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a request body.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value
