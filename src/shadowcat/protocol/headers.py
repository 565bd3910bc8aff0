"""MCP's HTTP headers: which pass, and how they must agree with the body.

The modern era mirrors parts of the body into headers so that intermediaries
need not parse it.  A proxy that does parse it must refuse a request in which the
two differ (MCP 2026-07-28, streamable HTTP, "Server Validation").
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ..errors import HeaderMismatch, InvalidRequest
from .jsonrpc import Notification, RawId, Request, read_value
from .methods import NAME_PARAMS, TOOLS_CALL
from .trace_context import TRACE_CONTEXT

SESSION_ID: Final = b"mcp-session-id"
PROTOCOL_VERSION: Final = b"mcp-protocol-version"
LAST_EVENT_ID: Final = b"last-event-id"
METHOD: Final = b"mcp-method"
NAME: Final = b"mcp-name"
PARAM_PREFIX: Final = b"mcp-param-"

VERSION_META_KEY: Final = "io.modelcontextprotocol/protocolVersion"

Headers = Mapping[bytes, bytes]
"""Header fields by lower-case name."""

_SINGLE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        LAST_EVENT_ID,
        METHOD,
        NAME,
        b"origin",
        PROTOCOL_VERSION,
        SESSION_ID,
    }
)

_TO_UPSTREAM = frozenset(
    {
        b"accept",
        b"accept-language",
        b"content-type",
        b"user-agent",
        *TRACE_CONTEXT,
        PROTOCOL_VERSION,
        METHOD,
        NAME,
    }
)

_TO_CLIENT = frozenset(
    {
        b"allow",
        b"cache-control",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"deprecation",
        b"link",
        PROTOCOL_VERSION,
        b"retry-after",
        b"sunset",
        b"vary",
        b"www-authenticate",
        b"x-accel-buffering",
        b"x-request-id",
    }
)

_LIMITS = (b"ratelimit", b"x-ratelimit-")

_SENTINEL = re.compile(rb"=\?base64\?(.*)\?=", re.DOTALL)
_PLAIN_VALUE = re.compile(rb"(?:[!-~](?:[\t -~]*[!-~])?)?")
_SAFE_VALUE = re.compile(rb"[\t\x20-\x7e]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MIRRORED_TYPES = ("string", "integer", "boolean")
_DECIMAL = re.compile(r"(-?[0-9]+)(?:\.0+)?")


def collect_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return *raw* by lower-case name; the values of a field that repeats are joined.

    Raises:
        InvalidRequest: A field that decides where the request goes repeats, so
            that two readers of it could differ.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        if name not in headers:
            headers[name] = value
        elif name not in _SINGLE and not name.startswith(PARAM_PREFIX):
            headers[name] += (b"; " if name == b"cookie" else b", ") + value
        elif headers[name] != value:
            raise InvalidRequest(f"the {name.decode('latin-1')} header is given twice; send it once")
    return headers


def upstream_headers(headers: Headers, also: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """Return those of a client's *headers* that go upstream: the known, and *also*.

    Never hop-by-hop fields, nor credentials unless *also* names them.  The
    session id and ``Last-Event-ID`` are not copied: they belong to one side.
    """
    passed = [
        field
        for field in headers.items()
        if field[0] in _TO_UPSTREAM or field[0] in also or field[0].startswith(PARAM_PREFIX)
    ]
    if b"connection" in headers:
        hop_by_hop = [name.strip() for name in headers[b"connection"].lower().split(b",")]
        passed = [field for field in passed if field[0] not in hop_by_hop]
    passed.append((b"accept-encoding", b"identity"))
    return passed


def client_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return those of an upstream's *headers* that go to the client."""
    return [field for field in headers if field[0] in _TO_CLIENT or field[0].startswith(_LIMITS)]


def decode_value(value: bytes) -> str | None:
    """Return what a mirrored header says, or None if it is malformed.

    Either plain ASCII, or UTF-8 in base64 between ``=?base64?`` and ``?=``.
    """
    if found := _SENTINEL.fullmatch(value):
        try:
            payload = base64.b64decode(found[1], validate=True)
            # b64decode accepts non-zero trailing bits; two spellings of one
            # value would let two readers differ.
            return payload.decode() if base64.b64encode(payload) == found[1] else None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return value.decode("ascii") if _SAFE_VALUE.fullmatch(value) else None


def encode_value(value: str) -> bytes:
    """Return *value* as a mirrored header has it; the inverse of `decode_value`."""
    raw = value.encode()
    if _PLAIN_VALUE.fullmatch(raw) and not (raw.startswith(b"=?base64?") and raw.endswith(b"?=")):
        return raw
    return b"=?base64?" + base64.b64encode(raw) + b"?="


class _RoutedParams(msgspec.Struct):
    name: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    uri: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    meta: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_meta")


_decode_params = msgspec.json.Decoder(_RoutedParams).decode


def _routed_params(params: bytes) -> _RoutedParams:
    try:
        return _decode_params(params) if params else _RoutedParams()
    except msgspec.DecodeError:
        return _RoutedParams()


def _value_of(raw: msgspec.Raw | msgspec.UnsetType) -> Any:
    return None if raw is msgspec.UNSET else read_value(bytes(raw))


def tool_name(params: bytes) -> str | None:
    """Return the tool that the params of a ``tools/call`` name; None if they name none."""
    name = _value_of(_routed_params(params).name)
    return name if isinstance(name, str) else None


def declared_version(params: bytes) -> str | None:
    """Return the protocol version that a request's ``_meta`` declares, if it does."""
    if VERSION_META_KEY.encode() not in params and b"\\" not in params:
        return None
    meta = _value_of(_routed_params(params).meta)
    version = meta.get(VERSION_META_KEY) if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def mirror_headers(message: Request | Notification, version: str) -> dict[bytes, bytes]:
    """Return the headers that mirror a modern *message*, whose ``_meta`` declares *version*.

    Raises:
        InvalidRequest: Its method or version cannot stand in a header.
    """
    request_id = message.id if isinstance(message, Request) else None
    headers = {
        PROTOCOL_VERSION: _plain(version, "protocol version", request_id),
        METHOD: _plain(message.method, "method", request_id),
    }
    if name_param := NAME_PARAMS.get(message.method):
        params = _routed_params(message.params)
        name = _value_of(params.name if name_param == "name" else params.uri)
        if isinstance(name, str):
            headers[NAME] = encode_value(name)
    return headers


def _plain(value: str, what: str, request_id: RawId | None) -> bytes:
    raw = value.encode()
    if not raw or not _PLAIN_VALUE.fullmatch(raw):
        raise InvalidRequest(f"the {what} has characters that HTTP cannot carry; use ASCII letters", request_id)
    return raw


def check_mirrored(headers: Headers, request: Request, version: str | None) -> None:
    """Check the headers that mirror a modern *request*.

    Args:
        version: What the request's ``_meta`` declares.  If it declares none, that
            is for the upstream to refuse, in its own words.

    Raises:
        HeaderMismatch: A header that must be there is missing, is malformed, or
            says something else than the body.
    """
    if version is not None:
        _expect("MCP-Protocol-Version", headers.get(PROTOCOL_VERSION), version, request)
    _expect("Mcp-Method", headers.get(METHOD), request.method, request)
    if name_param := NAME_PARAMS.get(request.method):
        params = _routed_params(request.params)
        name = _value_of(params.name if name_param == "name" else params.uri)
        if isinstance(name, str):
            _expect("Mcp-Name", headers.get(NAME), name, request, is_encoded=True)
        elif name is None and NAME in headers:
            raise HeaderMismatch(f"the Mcp-Name header has no {name_param!r} param to mirror; drop it", request.id)


def _expect(name: str, value: bytes | None, expected: str, request: Request, *, is_encoded: bool = False) -> None:
    if value is None:
        raise HeaderMismatch(f"the {name} header is missing; it must mirror the body", request.id)
    said = decode_value(value) if is_encoded else value.decode("latin-1")
    if said != expected:
        raise HeaderMismatch(f"the {name} header does not match the body", request.id)


MirroredParams = Mapping[bytes, tuple[str, ...]]
"""Which argument each ``mcp-param-*`` header mirrors: a path of property names."""


def mirrored_params(input_schema: Any) -> MirroredParams:
    """Return which arguments a tool with *input_schema* has mirrored (``x-mcp-header``).

    Only properties that are reachable by ``properties`` alone count.  A declaration
    that the specification calls invalid makes clients drop the tool, so that
    nothing of it is checked.
    """
    found: dict[bytes, tuple[str, ...]] = {}
    for path, schema in _properties(input_schema, ()):
        token = schema.get("x-mcp-header")
        if token is None:
            continue
        is_valid = isinstance(token, str) and _TOKEN.fullmatch(token) and schema.get("type") in _MIRRORED_TYPES
        field = PARAM_PREFIX + str(token).lower().encode() if is_valid else b""
        if not field or field in found:
            return {}
        found[field] = path
    return found


def _properties(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) > 16:
        return
    for name, inner in properties.items():
        if isinstance(inner, dict):
            yield (*path, name), inner
            yield from _properties(inner, (*path, name))


def check_mirrored_params(headers: Headers, request: Request, mirrored: MirroredParams) -> None:
    """Check the ``Mcp-Param-*`` headers of a ``tools/call`` against its arguments.

    Headers that are not in *mirrored* are none of ours, and pass.

    Raises:
        HeaderMismatch: A header and its argument are not both there and equal.
    """
    if request.method != TOOLS_CALL or not mirrored:
        return
    params = read_value(request.params)
    for field, path in mirrored.items():
        value = _argument(params, path)
        said = decode_value(headers[field]) if field in headers else None
        is_malformed = field in headers and said is None
        if is_malformed or not _is_same(said, value):
            name = f"Mcp-Param-{field[len(PARAM_PREFIX) :].decode()}"
            raise HeaderMismatch(
                f"the {name} header does not match the argument {'.'.join(path)!r}; call tools/list again", request.id
            )


def mirror_params(request: Request, mirrored: MirroredParams) -> dict[bytes, bytes]:
    """Return the ``Mcp-Param-*`` headers of a ``tools/call``, as `check_mirrored_params` wants them."""
    params = read_value(request.params)
    headers: dict[bytes, bytes] = {}
    for field, path in mirrored.items():
        value = _argument(params, path)
        if isinstance(value, bool):
            headers[field] = b"true" if value else b"false"
        elif isinstance(value, int | float | str):
            headers[field] = encode_value(str(value))
    return headers


def _argument(params: Any, path: tuple[str, ...]) -> Any:
    value = params.get("arguments") if isinstance(params, dict) else None
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_same(said: str | None, value: Any) -> bool:
    if value is None or isinstance(value, dict | list):
        return said is None
    if isinstance(value, bool):
        return said == ("true" if value else "false")
    if isinstance(value, int | float) and said is not None and (found := _DECIMAL.fullmatch(said)):
        return len(found[1]) < 400 and int(found[1]) == value
    return said == str(value)
