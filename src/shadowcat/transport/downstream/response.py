"""The bytes of a response, and where it ends."""

from __future__ import annotations

import re
from collections.abc import Iterable

_IS_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_HAS_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

BODYLESS = frozenset({204, 304})


def encode_header(name: bytes, value: bytes) -> bytes:
    """Encode one header line.

    Raises:
        ValueError: It would not be read back as this one header.
    """
    if not _IS_TOKEN(name) or _HAS_CONTROLS(value):
        raise ValueError(f"{name!r}: {value!r} is no header")
    return b"%s: %s\r\n" % (name, value)


class Response:
    """Encodes one response, head first, then the body in parts.

    The body is framed by ``content-length`` when the application declares it,
    in chunks for an HTTP/1.1 client otherwise, and by closing for an older one.
    """

    __slots__ = ("_is_bodyless", "_is_chunked", "_is_old", "_left", "asks_to_close", "has_length")

    def __init__(self, *, is_head: bool = False, is_old: bool = False) -> None:
        self._is_bodyless = is_head
        self._is_old = is_old
        self._is_chunked = False
        self._left = 0
        self.has_length = False
        """Whether the application has declared the length."""
        self.asks_to_close = False
        """Whether the application has told the client that the connection ends with this response."""

    @property
    def ends_by_closing(self) -> bool:
        """Whether an orderly close before the end would pass for the end."""
        return not (self.has_length or self._is_chunked or self._is_bodyless)

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]], *, close: bool) -> bytes:
        """Encode the head.

        Raises:
            ValueError: Something in it cannot be sent, or would end it early.
        """
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is no status of a response")
        lines = [b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            line = encode_header(name, value)
            key = name.lower()
            if key == b"content-length":
                self._declare(value)
            elif key == b"transfer-encoding":
                continue
            elif key == b"connection":
                self.asks_to_close = self.asks_to_close or value.lower() == b"close"
                if close:
                    continue
            lines.append(line)
        self._frame(status, lines)
        lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        return b"".join(lines)

    def _declare(self, value: bytes) -> None:
        if self.has_length or not value.isdigit():
            raise ValueError(f"content-length {value!r} is no number, or was given before")
        self._left = int(value)
        self.has_length = True

    def _frame(self, status: int, lines: list[bytes]) -> None:
        if status in BODYLESS:
            self._is_bodyless = True
        elif not self.has_length and not self._is_old:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")

    def body(self, part: bytes, *, is_last: bool) -> bytes:
        """Encode the next part of the body.

        Raises:
            ValueError: The body is longer or shorter than declared.
        """
        if self._is_bodyless:
            return b""
        if self.has_length:
            self._left -= len(part)
            if self._left < 0 or (is_last and self._left):
                raise ValueError("the body is not as long as its content-length says")
            return part
        if not self._is_chunked:
            return part
        if part:
            part = b"%x\r\n%s\r\n" % (len(part), part)
        return part + b"0\r\n\r\n" if is_last else part
