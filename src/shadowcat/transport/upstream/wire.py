"""The connection below a WebSocket: whether it is alive, and how its handshake was answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf

import trio
from trio.abc import Stream

PIECE_SIZE = 65536

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])")
_STATUS_LINE_SIZE = len("HTTP/1.1 101")
_PING = b"\x89"


class Wire(Stream):
    """What trio-websocket reads and writes: *stream*, observed.

    A library that waits for a handshake's answer waits on when the peer has hung
    up, or when a refusal has a body without a length.  So the status is looked at
    here, and the end is told at once.

    Args:
        stream: The connection.  Closed by whoever opened it.
        on_end: Called when nothing more will come or go.
    """

    def __init__(self, stream: Stream, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self._head = b""
        self.status: int | None = None
        """That of the answer to the handshake; 0 if it is not HTTP, None until it is here."""
        self._busy = 0
        self._is_pinged = False
        self._watched: tuple[trio.CancelScope, float] | None = None

    @contextmanager
    def expect_life(self, timeout: float) -> Generator[trio.CancelScope, None, None]:
        """Cancel the block, in which a ping is sent, when for *timeout* seconds nothing has moved that should.

        Until the ping is out, what the peer takes is a sign of life, then only what it
        sends: the kernel takes a lot for a peer that is gone.  Time counts while we
        read or write.  We do neither when nobody takes what was received off our
        hands, and that is not the peer's fault.
        """
        with trio.CancelScope() as scope:
            self._watched = scope, timeout
            self._is_pinged = False
            self._note_life()
            try:
                yield scope
            finally:
                self._watched = None

    def _note_life(self) -> None:
        if self._watched is not None:
            scope, timeout = self._watched
            scope.deadline = trio.current_time() + timeout if self._busy else inf

    @contextmanager
    def _moving(self) -> Generator[None, None, None]:
        self._busy += 1
        if self._busy == 1:
            self._note_life()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._note_life()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send one frame, or a part of the handshake; in pieces, to see that it moves."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        try:
            with self._moving():
                for start in range(0, len(view), PIECE_SIZE):
                    await self._stream.send_all(view[start : start + PIECE_SIZE])
                    if not self._is_pinged:
                        self._note_life()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._on_end()
            raise
        self._is_pinged = self._is_pinged or view[:1] == _PING

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until *stream* might take more."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from *stream*; empty at its end, and when the handshake was refused."""
        try:
            with self._moving():
                data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._on_end()
            raise
        self._note_life()
        if self.status is None:
            self._read_status(data)
        if not data or self.status not in (None, 101):
            self._on_end()
            return b""
        return data

    def _read_status(self, data: bytes | bytearray) -> None:
        self._head += data[: _STATUS_LINE_SIZE - len(self._head)]
        if found := _STATUS_LINE.match(self._head):
            self.status = int(found[1])
        elif len(self._head) == _STATUS_LINE_SIZE:
            self.status = 0

    async def aclose(self) -> None:
        """Close *stream*."""
        await self._stream.aclose()
