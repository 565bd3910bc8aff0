"""Where the body of a request ends."""

from __future__ import annotations

import re

from .head import Refused

MAX_LINE = 1024
"""Longest line between two chunks."""
MAX_OVERHEAD = 8192
"""How much chunk extensions and trailers of one body may add up to.  Nobody reads them."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*").fullmatch


class LengthBody:
    """A body whose length was declared."""

    __slots__ = ("_left", "is_complete")

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_complete = not length

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of *data* belongs to the body, and the rest of it."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, b""
        part, rest = data[: self._left], data[self._left :]
        self._left = 0
        self.is_complete = True
        return part, rest


class ChunkedBody:
    """A body in chunks.  Extensions and trailers are checked and dropped."""

    __slots__ = ("_is_in_trailers", "_left", "_overhead", "is_complete")

    def __init__(self) -> None:
        self._left = 0  # of the chunk's data and the line end after it
        self._overhead = 0
        self._is_in_trailers = False
        self.is_complete = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the content in *data*, and what is to be seen again with more after it.

        Raises:
            Refused: This is not how chunks look.
        """
        parts: list[bytes] = []
        at = 0
        while not self.is_complete:
            if self._left > 2:
                part = data[at : at + self._left - 2]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
            if self._left:
                if self._left > 2 or not self._skip_line_end(data[at : at + 2]):
                    break
                at += 2
            end = data.find(b"\r\n", at, at + MAX_LINE)
            if end < 0:
                self._check_unfinished(data[at : at + MAX_LINE])
                break
            self._take_line(data[at:end])
            at = end + 2
        return b"".join(parts), data[at:]

    def _skip_line_end(self, found: bytes) -> bool:
        if not b"\r\n".startswith(found):
            raise Refused(400)
        if len(found) < 2:
            return False
        self._left = 0
        return True

    def _check_unfinished(self, line: bytes) -> None:
        if len(line) == MAX_LINE or b"\n" in line or b"\r" in line[:-1]:
            raise Refused(400)

    def _take_line(self, line: bytes) -> None:
        if self._is_in_trailers:
            self._overhead += len(line)
            self.is_complete = not line
            if line and not _TRAILER(line):
                raise Refused(400)
        else:
            match = _SIZE_LINE(line)
            if match is None:
                raise Refused(400)
            size, extension = match.groups(b"")
            self._overhead += len(extension)
            self._left = int(size, 16)
            self._is_in_trailers = not self._left
            if self._left:
                self._left += 2
        if self._overhead > MAX_OVERHEAD:
            raise Refused(400)
