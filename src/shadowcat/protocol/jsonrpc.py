"""JSON-RPC 2.0 messages, read just far enough to route them.

A message is decoded once.  Its params, result and error stay the bytes they
were, and so does its id: ``0``, ``"0"``, ``""``, ``null`` and ``2**53 + 1`` are
five different ids, and an answer made here carries the caller's to the letter.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from ..errors import InvalidRequest, ParseError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020

RawId = bytes
"""A request id as it stands in the JSON text."""

NULL_ID: Final[RawId] = b"null"


@attrs.frozen
class Request:
    """A message that is owed an answer."""

    id: RawId
    method: str
    params: bytes
    """JSON text; empty if the message has no params."""


@attrs.frozen
class Notification:
    """A message that is owed none."""

    method: str
    params: bytes


@attrs.frozen
class Response:
    """The answer to a request."""

    id: RawId | None
    """None only for an error answer to something that could not be read."""
    result: bytes
    error: bytes

    @property
    def is_error(self) -> bool:
        """Whether this answers with an error."""
        return bool(self.error)


@attrs.frozen
class Batch:
    """Several messages in one body (2025-03-26 only), never empty."""

    messages: tuple[Request | Notification | Response, ...]


Message = Request | Notification | Response


class _Wire(msgspec.Struct):
    jsonrpc: str
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _OnlyId(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_wire = msgspec.json.Decoder(_Wire).decode
_decode_batch = msgspec.json.Decoder(list[_Wire]).decode
_decode_only_id = msgspec.json.Decoder(_OnlyId).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# A string that does not end is matched too: to fail and try again at each of its
# escaped quotes would take quadratic time.
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

_MAX_BATCH = 1000
"""Messages of one batch."""

_FORM_HINT = "send one JSON-RPC 2.0 request, notification or response"


def decode(body: bytes, *, max_depth: int = 128) -> Message | Batch:
    """Read one HTTP body.

    Args:
        max_depth: How deep arrays and objects may be nested.

    Raises:
        ParseError: *body* is not JSON in UTF-8.
        InvalidRequest: It is, but not a JSON-RPC message, or is nested too deep.
    """
    check_text(body, max_depth)
    try:
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return _read_batch(body)
        return _read(_decode_wire(body))
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"not a JSON-RPC message ({error}); {_FORM_HINT}", _salvage_id(body)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ParseError(f"the body is not valid JSON ({error})") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deep") from None


def check_text(body: bytes, max_depth: int) -> None:
    """Check what the JSON decoder does not: the encoding, and the depth of nesting.

    Raises:
        ParseError: *body* is not UTF-8.
        InvalidRequest: It is nested deeper than *max_depth*.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise ParseError(f"the body is not UTF-8 (byte {error.start}); encode JSON as UTF-8") from None
    if body.count(b"[") + body.count(b"{") > max_depth and _depth(body) > max_depth:
        raise InvalidRequest(f"the body is nested more than {max_depth} levels deep", _salvage_id(body))


def _depth(body: bytes) -> int:
    """Return how deep JSON text is nested, in a few passes over it at the speed of C."""
    # Without escaped backslashes and quotes, every other part between quotes is a string.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = b"".join(unescaped.split(b'"')[::2]).translate(None, _NO_BRACKETS).translate(_STEPS)
    return max(itertools.accumulate(memoryview(structure).cast("b")), default=0)


def _read_batch(body: bytes) -> Batch:
    entries = _decode_batch(body)
    if not 0 < len(entries) <= _MAX_BATCH:
        raise InvalidRequest(f"a batch has 1 to {_MAX_BATCH} messages; {_FORM_HINT}")
    return Batch(tuple(_read(entry) for entry in entries))


def _read(wire: _Wire) -> Message:
    request_id = None if wire.id is msgspec.UNSET else _checked_id(bytes(wire.id))
    if wire.jsonrpc != "2.0":
        raise InvalidRequest('"jsonrpc" must be "2.0"', request_id)
    if wire.method is not msgspec.UNSET:
        params = b"" if wire.params is msgspec.UNSET else bytes(wire.params)
        if request_id is None:
            return Notification(wire.method, params)
        return Request(request_id, wire.method, params)
    if (wire.result is msgspec.UNSET) == (wire.error is msgspec.UNSET):
        raise InvalidRequest(f'"method", or one of "result" and "error", is missing; {_FORM_HINT}', request_id)
    return Response(
        request_id,
        b"" if wire.result is msgspec.UNSET else bytes(wire.result),
        b"" if wire.error is msgspec.UNSET else bytes(wire.error),
    )


def _checked_id(raw: bytes) -> RawId:
    if raw[:1] in b'"-0123456789' or raw == NULL_ID:
        return raw
    raise InvalidRequest('"id" must be a string or a number', None)


def _salvage_id(body: bytes) -> RawId | None:
    try:
        found = _decode_only_id(body).id
        return None if found is msgspec.UNSET else _checked_id(bytes(found))
    except (msgspec.DecodeError, InvalidRequest, UnicodeDecodeError):
        return None


def peek(data: bytes) -> Message | None:
    """Read a message that an upstream sent, or return None if it is not one.

    What a server sends is relayed whether we understand it or not.
    """
    try:
        return _read(_decode_wire(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest):
        return None


def peek_response(data: bytes) -> Response | None:
    """Read a message that an upstream sent, or return None if it is not a response.

    Cheap for what is none, which most events of a stream are.
    """
    if b'"result"' not in data and b'"error"' not in data and b"\\u" not in data:
        return None  # without escapes, a member's name stands there as it is
    message = peek(data)
    return message if isinstance(message, Response) else None


def read_value(text: bytes) -> Any:
    """Return the Python value of JSON *text*, or None if it is empty or broken."""
    try:
        return _decode_any(text) if text else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_same_id(found: RawId | None, expected: RawId) -> bool:
    """Whether two ids are one, however their texts are spelled."""
    return found == expected or (found is not None and read_value(found) == read_value(expected))


def mint_id() -> RawId:
    """Return a request id that nobody else uses: a long random string."""
    return b'"shadowcat-%s"' % secrets.token_hex(12).encode()


def replace_id(message: bytes, new_id: RawId) -> bytes:
    """Return *message* with another id and everything else as it was.

    Members keep their text and their order; white space between them is lost.

    Raises:
        ParseError: *message* is not a JSON object.
    """
    try:
        members = _decode_members(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a JSON object ({error})") from None
    members["id"] = msgspec.Raw(new_id)
    return _encode(members)


def replace_cancelled_id(message: bytes, new_id: RawId) -> bytes:
    """Return a ``notifications/cancelled`` that names another request, and is else as it was.

    Raises:
        ParseError: *message* is not one.
    """
    try:
        members = _decode_members(message)
        params = _decode_members(members["params"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ParseError(f"not a cancellation ({error})") from None
    params["requestId"] = msgspec.Raw(new_id)
    members["params"] = msgspec.Raw(_encode(params))
    return _encode(members)


def cancelled_id(params: bytes) -> RawId | None:
    """Return the id of the request that the params of a cancellation name."""
    try:
        found = _decode_members(params).get("requestId") if params else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found is None else bytes(found)


def error_body(request_id: RawId | None, code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Return the text of an error answer to *request_id* (None: to nobody in particular)."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return _encode({"jsonrpc": "2.0", "id": msgspec.Raw(request_id or NULL_ID), "error": error})
