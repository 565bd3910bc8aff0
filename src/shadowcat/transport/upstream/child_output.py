"""What a child process writes to a pipe."""

from __future__ import annotations

import math
import os

import trio
from trio.abc import ReceiveStream

from ..lines import READ_SIZE

_PIPE_SIZE = 1 << 20
"""Bytes in a pipe at most, unless an administrator has raised the limit (``pipe(7)``)."""


class ChildOutput(ReceiveStream):
    """The reading end of a pipe that may outlive the child.

    A descendant of the child can hold the other end open for ever.  So the end of the
    stream is also where `finish` says, which is for whoever sees the child end.
    """

    def __init__(self, pipe: trio.lowlevel.FdStream) -> None:
        self._pipe = pipe
        self._left = math.inf
        self._is_discarded = False

    def finish(self) -> None:
        """Give what is in the pipe now, and then the end."""
        self._left = min(self._left, _PIPE_SIZE)
        self._wake()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, none at the end.  A checkpoint; cancel safe."""
        await trio.lowlevel.checkpoint()
        while not self._is_discarded:
            data = self._read_nowait(max_bytes or READ_SIZE)
            if data is not None:
                return data
            await self._wait()
        return b""

    async def discard(self) -> None:
        """Read on to the end in place of the reader, who is told that it is there already.

        Cancel safe.
        """
        self._is_discarded = True
        self._wake()
        while (data := self._read_nowait(READ_SIZE)) != b"":
            if data is None:
                await self._wait()
            else:
                await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    def _read_nowait(self, max_bytes: int) -> bytes | None:
        """Return the next bytes, none at the end, or None if there are none yet."""
        if self._left <= 0:
            return b""
        try:
            data = os.read(self._pipe.fileno(), max_bytes)
        except BlockingIOError:
            return None if self._left == math.inf else b""
        except OSError as error:
            raise trio.ClosedResourceError("the pipe was closed") from error
        self._left -= len(data)
        return data

    async def _wait(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._pipe.fileno())
        except trio.ClosedResourceError:
            # By `_wake`; if the pipe is closed indeed, the next read says so.
            await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        if self._pipe.fileno() >= 0:
            trio.lowlevel.notify_closing(self._pipe.fileno())

    async def aclose(self) -> None:
        """Close the pipe.  A checkpoint."""
        await self._pipe.aclose()
