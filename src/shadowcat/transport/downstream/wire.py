"""A client's socket: reads that tell of its leaving, and writes that never wait for ever."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable

import trio

READ_SIZE = 65536
POLL_INTERVAL = 1.0
"""Seconds between two looks whether a client has left that sends faster than it is answered."""
LINGER_TIMEOUT = 1.0
"""How long a client may take to notice that we have closed our side."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Wire:
    """One connection, below HTTP.

    One task may receive while others send.  Owns *sock*, which is non-blocking.
    """

    is_encrypted = False
    """Whether nobody between the client and us can read along."""

    __slots__ = ("_is_ending", "_lock", "_sock", "_write_timeout", "buffer", "client", "is_gone", "server")

    def __init__(self, sock: socket.socket, write_timeout: float) -> None:
        self._sock = sock
        self._write_timeout = write_timeout
        # Made when somebody first has to wait, which on most connections nobody does.
        self._lock: trio.Lock | None = None
        self._is_ending = False
        self.buffer = b""
        """What was received and not used yet.  Those who receive add to it."""
        self.is_gone = False
        """Whether the client has left or was cut off, so that nothing can be sent any more."""
        self.client = _address(sock.getpeername)
        self.server = _address(sock.getsockname)

    async def receive(self) -> bytes:
        """Return the next bytes; none when the client has left.

        A checkpoint; safe to cancel.
        """
        if self._sock.fileno() == -1:
            await trio.lowlevel.checkpoint()
            return b""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                with contextlib.suppress(BlockingIOError):
                    if not (data := self._sock.recv(READ_SIZE)):
                        self.is_gone = True
                    return data
        except (OSError, trio.ClosedResourceError):
            self.is_gone = True
            return b""

    async def receive_more(self, limit: int) -> bool:
        """Add to the buffer, and tell whether the client is still there.

        From *limit* bytes on nothing is added: then this returns when the client
        has left.  A checkpoint; safe to cancel.
        """
        if len(self.buffer) < limit:
            data = await self.receive()
            self.buffer = self.buffer + data if self.buffer else data
            return bool(data)
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLRDHUP)
        while not self.is_gone and not poll.poll(0):  # noqa: ASYNC110 - only the kernel knows, and it wakes nobody
            await trio.sleep(POLL_INTERVAL)
        self.is_gone = True
        await trio.lowlevel.checkpoint()
        return False

    async def send(self, data: bytes) -> None:
        """Send *data* whole; do nothing if the client has gone.

        A client that takes nothing for ``write_timeout`` is cut off.  A
        checkpoint when it has to wait; otherwise it does not yield, but notices
        a cancellation.  If cancelled while it waits, part of *data* may be out,
        so the connection is cut off, too.
        """
        if self.is_gone or self._is_ending or not data:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if self._lock is not None and self._lock.locked():
                await self._send_in_turn(memoryview(data))
                return
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                await self._send_in_turn(memoryview(data)[sent:])
        except (OSError, trio.ClosedResourceError, trio.TooSlowError):
            self.abort()
        except trio.Cancelled:
            self.abort()
            raise

    async def _send_in_turn(self, view: memoryview) -> None:
        if self._lock is None:
            self._lock = trio.Lock()
        # Does not yield if nobody holds it: nothing comes between the parts of one send.
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()
        try:
            while view and not self.is_gone:
                with contextlib.suppress(BlockingIOError):
                    view = view[self._sock.send(view) :]
                    continue
                # The time is for any progress at all: a slow reader is not a stalled one.
                with trio.fail_after(self._write_timeout):
                    await trio.lowlevel.wait_writable(self._sock)
        finally:
            self._lock.release()

    async def end(self) -> None:
        """Send nothing any more, and tell the client so when what is under way is out.

        A checkpoint; safe to cancel and to call again.
        """
        if self._is_ending or self.is_gone:
            await trio.lowlevel.checkpoint()
            return
        self._is_ending = True
        if self._lock is not None:
            with trio.move_on_after(LINGER_TIMEOUT):
                async with self._lock:
                    pass
        if not self.is_gone:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    async def linger(self) -> None:
        """End our side, and give the client a moment to end its own.

        Closing at once could destroy the response on its way when the client is
        still sending.  A checkpoint; safe to cancel.
        """
        await self.end()
        if self.is_gone:
            return
        with trio.move_on_after(LINGER_TIMEOUT):
            while await self.receive():
                pass

    def abort(self) -> None:
        """Close with a reset: the client learns that what it got is not all."""
        if self._sock.fileno() != -1:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def close(self) -> None:
        """Close at once.  Whoever receives or sends is told that the client has gone."""
        self.is_gone = True
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


def _address(get: Callable[[], object]) -> tuple[str, int] | None:
    try:
        address = get()
    except OSError:
        return None  # the client has left before we looked
    return (address[0], address[1]) if isinstance(address, tuple) else None
