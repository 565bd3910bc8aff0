"""TCP without the ceremony.

`trio.SocketStream` takes longer to go through its layers than the system call
takes; this goes to the file descriptor.  It closes nothing: the socket stays with
the stream it was made from.
"""

from __future__ import annotations

import os

import trio
from trio.abc import Stream

_READ_SIZE = 65536


class TcpStream(Stream):
    """The bytes of a connected `trio.SocketStream`; for one sender and one receiver at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._is_awaiting = False
        """Whether something was sent since the last bytes came: then there is nothing to read yet, as a rule."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*.

        A cancel point, and a schedule point if it has to wait.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._is_awaiting = True
        sent = self._write(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(view):
                await trio.lowlevel.wait_writable(self._socket)
                sent += self._write(view[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the next byte can be sent."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes; none at the end.  A checkpoint; if cancelled, nothing is lost."""
        size = _READ_SIZE if max_bytes is None else max_bytes
        if not self._is_awaiting:
            await trio.lowlevel.checkpoint_if_cancelled()
            data = self._read(size)
            if data is not None:
                # Or somebody with a fast peer would never let the others run.
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
        self._is_awaiting = False
        self._fileno()
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self._read(size)
            if data is not None:
                return data

    def _read(self, size: int) -> bytes | None:
        try:
            return os.read(self._fileno(), size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def _fileno(self) -> int:
        fd = self._socket.fileno()
        if fd < 0:
            raise trio.ClosedResourceError("the connection was closed here")
        return fd

    async def aclose(self) -> None:
        """Close the stream this was made from."""
        await self._stream.aclose()
