"""Newline-delimited JSON (MCP, stdio transport) over two byte streams."""

from __future__ import annotations

import math
import os

import trio
from trio.abc import ReceiveStream

from ..errors import MessageTooLong, StreamBroken
from .base import MessageStream

READ_SIZE = 65536

_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


class LineStream(MessageStream):
    """A message on each line.

    Both streams stay the caller's to close.

    Args:
        max_size: Bytes of one message that is received.  Twice as many are held at most.
        write_timeout: Seconds in which the other side has to read something while a message
            waits.  After that the stream is broken.
    """

    def __init__(
        self, source: ReceiveStream, sink: trio.lowlevel.FdStream, max_size: int, write_timeout: float = math.inf
    ) -> None:
        self._source = source
        self._sink = sink
        self._max_size = max_size
        self._write_timeout = write_timeout
        self._buffer = bytearray()
        self._searched = 0
        self._is_skipping = False
        self._sending = trio.Lock()
        self._unsent = memoryview(b"")
        self._stalled_since: float | None = None

    async def send(self, message: bytes) -> None:
        """Send one message; see `MessageStream.send`."""
        # Between the members of a JSON text a line break is white space; in a string there is none.
        line = (message.translate(_NEWLINES) if b"\n" in message or b"\r" in message else message) + b"\n"
        await trio.lowlevel.checkpoint_if_cancelled()
        async with self._sending:
            # Not `send_all`, which does not say how far it came: what a sender who was
            # cancelled left of its line has to go out before the next one.
            await self._flush()
            self._unsent = memoryview(line)
            try:
                await self._flush()
            finally:
                if len(self._unsent) == len(line):
                    self._unsent = memoryview(b"")

    async def _flush(self) -> None:
        while self._unsent:
            try:
                sent = os.write(self._sink.fileno(), self._unsent)
            except BlockingIOError:
                await self._wait_writable()
            except OSError as error:
                raise StreamBroken("nobody reads at the other end any more") from error
            else:
                self._unsent = self._unsent[sent:]
                self._stalled_since = None

    async def _wait_writable(self) -> None:
        # Counted over all senders: some give up sooner, and each begins with what the last one left.
        if self._stalled_since is None:
            self._stalled_since = trio.current_time()
        try:
            with trio.move_on_at(self._stalled_since + self._write_timeout) as scope:
                await trio.lowlevel.wait_writable(self._sink.fileno())
        except trio.ClosedResourceError as error:
            raise StreamBroken("the stream was closed") from error
        if scope.cancelled_caught:
            raise StreamBroken(f"nothing was read at the other end for {self._write_timeout:g} s")

    async def receive(self) -> bytes:
        """Return the next line that is not blank; see `MessageStream.receive`.

        What follows the last line break is no message.
        """
        await trio.lowlevel.checkpoint()
        while True:
            while (end := self._buffer.find(b"\n", self._searched)) < 0:
                self._shed()
                await self._read()
            line = bytes(memoryview(self._buffer)[:end]).strip()
            del self._buffer[: end + 1]
            self._searched = 0
            is_skipped, self._is_skipping = self._is_skipping or end > self._max_size, False
            if is_skipped:
                raise MessageTooLong(f"a message was longer than {self._max_size} bytes")
            if line:
                return line

    def _shed(self) -> None:
        """Keep the unfinished line at hand, unless it is too long already."""
        self._searched = len(self._buffer)
        if self._is_skipping or self._searched > self._max_size:
            self._is_skipping = True
            self._buffer.clear()
            self._searched = 0

    async def _read(self) -> None:
        try:
            data = await self._source.receive_some(READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken("the stream was closed") from error
        if not data:
            raise StreamBroken("the stream has ended")
        self._buffer += data
