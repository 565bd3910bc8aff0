"""Events as the text they were sent in, for whoever relays them.

A relay must change one thing of an event, its id, and nothing else.  So it does
not decode an event and encode it again: it cuts the stream into blocks, looks at
the lines of each, and passes them on without those that hold an id.
"""

from __future__ import annotations

import re

import attrs

from .sse import SSEEvent

# Atomic, or the two halves of one CRLF would pass for two line ends.
_BLOCK_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\r\n"
_ID_LINE = re.compile(rb"(?:\r\n|\n|\r)id(?::[^\r\n]*)?(?=[\r\n]|\Z)")
_BOM = b"\xef\xbb\xbf"


@attrs.frozen
class SSEBlock:
    """The lines of one event, or a part of those if they are too long to be held."""

    text: bytes
    """Without the empty line at the end."""

    begins: bool = True
    ends: bool = True


class SSEFramer:
    """Cut a byte stream into blocks, however the bytes arrive.

    Args:
        max_block: Bytes of a block that are held back until it is complete.  A
            longer one comes in parts of about that size.
    """

    def __init__(self, max_block: int = 1024 * 1024) -> None:
        self._max_block = max_block
        self._buffer = bytearray()
        self._looked = 0
        """Bytes of the buffer in which no block ends."""
        self._is_inside = False
        """Whether parts of this block have been given out already."""
        self._is_started = False

    def feed(self, chunk: bytes) -> list[SSEBlock]:
        """Return the blocks that *chunk* completes; never raises."""
        buffer = self._buffer
        buffer += chunk
        if not self._is_started:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return []
            self._is_started = True
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
        blocks: list[SSEBlock] = []
        start = 0
        looked = max(self._looked - 3, 0)
        while found := _BLOCK_END.search(buffer, looked):
            text = bytes(buffer[start : found.start()])
            if not self._is_inside:
                text = text.lstrip(_LINE_ENDS)
            if text or self._is_inside:
                blocks.append(SSEBlock(text, begins=not self._is_inside))
            self._is_inside = False
            start = looked = found.end()
        del buffer[:start]
        if buffer and not self._is_inside and buffer[0] in _LINE_ENDS:
            del buffer[: len(buffer) - len(buffer.lstrip(_LINE_ENDS))]
        if len(buffer) > self._max_block:
            self._give_part(blocks)
        self._looked = len(buffer)
        return blocks

    def _give_part(self, blocks: list[SSEBlock]) -> None:
        """Give out what is held; after the first part rather whole lines, if there are any.

        Line ends stay, for they may turn out to end the block.
        """
        end = max(self._buffer.rfind(b"\n"), self._buffer.rfind(b"\r")) if self._is_inside else 0
        if end <= 0 or len(self._buffer) - end > self._max_block:
            end = len(self._buffer)
        text = bytes(self._buffer[:end]).rstrip(_LINE_ENDS)
        blocks.append(SSEBlock(text, begins=not self._is_inside, ends=False))
        self._is_inside = True
        del self._buffer[: len(text)]


def without_ids(text: bytes) -> bytes:
    """Return a later part of a block without its id lines; the first line may be the rest of one."""
    return _ID_LINE.sub(b"", text) if b"id" in text else text


def read_block(text: bytes) -> tuple[SSEEvent, bytes]:
    """Return the event in a block, and the block without its id lines.

    The lines that are left are what they were; if any was taken out, they are
    ended by LF.
    """
    lines = _LINE_END.split(text) if b"\r" in text else text.split(b"\n")
    data: list[bytes] = []
    kept: list[bytes] = []
    event_id = name = retry = None
    for line in lines:
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"id":
            if b"\0" not in value:
                event_id = value
            continue
        kept.append(line)
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"retry" and value.isdigit() and len(value) < 16:
            retry = int(value)
    event = SSEEvent(b"\n".join(data) if data else None, name, event_id, retry)
    return event, text if len(kept) == len(lines) else b"\n".join(kept)
