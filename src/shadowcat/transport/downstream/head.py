"""The head of a request: llhttp reads its fields, and what is ambiguous is refused.

Two programs that disagree about where a request ends let a client smuggle one
past a check (RFC 9112, 11.2).  So this is strict where llhttp is lenient, and
where it is, too: whatever could be read in two ways is no request here.
"""

from __future__ import annotations

import re

import attrs
import httptools

MAX_HEADERS = 128

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])").fullmatch
_CONTROLS = bytes(byte for byte in (*range(32), 127) if byte != 9)
_TOKEN_BYTES = frozenset(b"!#$%&'*+.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")
_GIVEN_ONCE = (b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect")

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):  # noqa: N818 - it names what becomes of the request
    """A request that is answered with *status*, after which the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@attrs.define(eq=False)
class RequestHead:
    """What a request says about itself before its body."""

    method: str
    target: bytes
    """Path and query, as they were sent."""
    version: str
    """``1.0`` or ``1.1``."""
    headers: Headers
    """Names in lower case."""
    length: int | None
    """Bytes of body; None if it comes in chunks."""
    keeps_alive: bool
    """Whether another request may follow."""
    expects_continue: bool
    is_websocket: bool
    """Whether this is the handshake of a WebSocket."""


class _Fields:
    """Takes what llhttp finds."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value.rstrip(b" \t")))


def can_begin(byte: int) -> bool:
    """Tell whether a request can begin so."""
    return byte in _TOKEN_BYTES


def parse_head(data: bytes) -> RequestHead:
    """Parse *data*, which ends with the first empty line in it.

    Raises:
        Refused: It is no request, or one that is not served.
    """
    lines = data.count(b"\r\n")
    line = _REQUEST_LINE(data, 0, data.find(b"\r\n"))
    # Nothing but the line ends is left over: no bare CR or LF, no other control character.
    if line is None or len(data.translate(None, _CONTROLS)) + 2 * lines != len(data):
        raise Refused(400)
    method, target, version = line.groups()
    if version not in {b"1.1", b"1.0"}:
        raise Refused(505)
    if method == b"CONNECT":
        raise Refused(501)
    if lines - 2 > MAX_HEADERS:
        raise Refused(431)
    headers = _parse_fields(data)
    # One field a line.  Folded lines would be fewer.
    if len(headers) != lines - 2:
        raise Refused(400)
    return _check(method, target, version, headers)


def _parse_fields(data: bytes) -> Headers:
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError as exc:
        raise Refused(501) from exc
    except httptools.HttpParserError as exc:
        encodings = [value for name, value in fields.found if name == b"transfer-encoding"]
        known = not encodings or any(name == b"content-length" for name, _ in fields.found)
        raise Refused(400 if known or encodings[0].lower() == b"chunked" else 501) from exc
    return fields.found


def _check(method: bytes, target: bytes, version: bytes, headers: Headers) -> RequestHead:
    found = dict(headers)
    if len(found) != len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in _GIVEN_ONCE):
            raise Refused(400)
    host = found.get(b"host")
    if host is None and version == b"1.1":
        raise Refused(400)
    if target[0] != 47:
        target = _origin_form(method, target, host)
    length = _length(found, version)
    tokens = _connection_tokens(headers) if b"connection" in found else frozenset()
    return RequestHead(
        method.decode("ascii"),
        target,
        version.decode("ascii"),
        headers,
        length,
        version == b"1.1" and b"close" not in tokens,
        version == b"1.1" and found.get(b"expect", b"").lower() == b"100-continue",
        b"upgrade" in tokens
        and found.get(b"upgrade", b"").lower() == b"websocket"
        and method == b"GET"
        and version == b"1.1"
        and b"content-length" not in found
        and length is not None,
    )


def _length(found: dict[bytes, bytes], version: bytes) -> int | None:
    length = found.get(b"content-length")
    encoding = found.get(b"transfer-encoding")
    if encoding is None:
        if length is None:
            return 0
        # More digits than any file has: some readers would overflow.
        if not length.isdigit() or len(length) > 18:
            raise Refused(400)
        return int(length)
    if length is not None or version != b"1.1":
        raise Refused(400)
    if encoding.lower() != b"chunked":
        raise Refused(501)
    return None


def _connection_tokens(headers: Headers) -> frozenset[bytes]:
    values = b",".join(value for name, value in headers if name == b"connection")
    return frozenset(token.strip(b" \t") for token in values.lower().split(b","))


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    """Return path and query of a target in another form (RFC 9112, 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme, _, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    # The host that is checked later must be the one that is meant.
    if scheme.lower() not in {b"http", b"https"} or not authority or authority != (host or authority):
        raise Refused(400)
    if b"?" in authority:
        raise Refused(400)
    return slash + path or b"/"
