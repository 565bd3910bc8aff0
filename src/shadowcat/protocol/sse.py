"""Server-sent events, as bytes.

The decoder follows the WHATWG event stream rules (one leading BOM; CR, LF or
CRLF; several ``data`` lines make one; an ``id`` with a NUL is ignored), with two
differences a relay needs: it also reports blocks that have no data, because an
``id`` or ``retry`` alone still matters to the client, and it does not carry an id
over to the next event.
"""

from __future__ import annotations

import re

import attrs

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"

_BOUNDARIES = (b"\n\n", b"\r\r", b"\n\r", b"\n\r\n", b"\r\r\n")


@attrs.frozen
class SSEEvent:
    """One block of an event stream."""

    data: bytes | None = None
    """The data lines joined by LF; None if there was no data line."""
    event: bytes | None = None
    id: bytes | None = None
    retry: int | None = None
    """Milliseconds."""
    is_truncated: bool = False
    """Whether the decoder kept only the beginning, because of its limit."""

    @property
    def is_empty(self) -> bool:
        """Whether there was no field in it, as in a comment."""
        return self.data is None and self.id is None and self.event is None and self.retry is None


class SSEDecoder:
    """Cut a byte stream into events, however the bytes arrive.

    Args:
        max_event: How many bytes of one event are kept.  What is beyond is
            dropped and the event marked as truncated; nothing is raised.
    """

    def __init__(self, max_event: int = 16 * 1024 * 1024) -> None:
        self._max_event = max_event
        self._buffer = bytearray()
        self._started = False
        self._skip_lf = False
        self._reset()

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._event: bytes | None = None
        self._id: bytes | None = None
        self._retry: int | None = None
        self._size = 0
        self._truncated = False
        self._has_field = False

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Return the events that *chunk* completes; never raises."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        self._buffer += chunk
        if not self._started and not self._start():
            return []
        if b"\n" not in chunk and b"\r" not in chunk:
            self._trim()
            return []
        events: list[SSEEvent] = []
        start = 0
        for end in _LINE_END.finditer(self._buffer):
            if found := self._take_line(bytes(self._buffer[start : end.start()])):
                events.append(found)
            start = end.end()
        if start == len(self._buffer) and self._buffer.endswith(b"\r"):
            self._skip_lf = True
        del self._buffer[:start]
        self._trim()
        return events

    def _start(self) -> bool:
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._started = True
        return True

    @property
    def _room(self) -> int:
        """How many bytes of a line are looked at: what is left for data, and a field name."""
        return max(self._max_event - self._size, 0) + 64

    def _trim(self) -> None:
        """Drop what is beyond the limit of a line that has not ended.

        One byte more than there is room for stays, so that the line is known to
        be too long when it ends, however it was cut.
        """
        del self._buffer[self._room + 1 :]

    def _take_line(self, line: bytes) -> SSEEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if len(line) > self._room and name != b"data":
            self._truncated |= name in (b"event", b"id", b"retry")
            return None
        if value[:1] == b" ":
            value = value[1:]
        self._take_field(name, value)
        return None

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            if self._size + len(value) > self._max_event:
                value = value[: max(self._max_event - self._size, 0)]
                self._truncated = True
            self._size += len(value) + 1
            if self._size <= self._max_event + 1 or not self._data:
                self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self._retry = int(value)
        else:
            return
        self._has_field = True

    def _dispatch(self) -> SSEEvent | None:
        if not self._has_field:
            self._truncated = False
            return None
        data = b"\n".join(self._data) if self._data else None
        event = SSEEvent(data, self._event, self._id, self._retry, self._truncated)
        self._reset()
        return event


class SSEBoundary:
    """Tell whether a relayed byte stream stands between two events.

    Only there may something of our own be put in.
    """

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Follow *chunk*."""
        self._tail = (self._tail + chunk)[-3:] if len(chunk) < 3 else chunk[-3:]

    @property
    def is_between_events(self) -> bool:
        """Whether the last event is complete."""
        return not self._tail or self._tail.endswith(_BOUNDARIES)


def encode_event(event: SSEEvent) -> bytes:
    """Return *event* as one block, lines ended by LF.

    Line ends inside ``data`` become several data lines.  ``event`` and ``id``
    must hold none, and ``id`` no NUL.
    """
    lines: list[bytes] = []
    if event.event is not None:
        lines.append(b"event: " + event.event)
    if event.id is not None:
        lines.append(b"id: " + event.id)
    if event.retry is not None:
        lines.append(b"retry: %d" % event.retry)
    if event.data is not None:
        lines.extend(b"data: " + line for line in re.split(rb"\r\n|\r|\n", event.data))
    return b"\n".join(lines) + b"\n\n"


HEARTBEAT = b": heartbeat\n\n"
"""A comment; clients must ignore it (WHATWG, MCP 2026-07-28 streamable HTTP)."""
