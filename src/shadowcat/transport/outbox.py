"""Sending such that a sender who is cancelled cuts no message."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio

from ..errors import StreamBroken


class Outbox:
    """Where senders leave a message for the one task that writes, `run`.

    Holds none: a message is taken when the last one was written, so whoever sends
    waits for a peer that reads slowly.

    Args:
        write: Writes one message, or raises `StreamBroken`.
    """

    def __init__(self, write: Callable[[str], Awaitable[None]]) -> None:
        self._write = write
        self._entrance, self._exit = trio.open_memory_channel[str](0)
        self._ended = trio.Event()

    async def put(self, message: bytes) -> None:
        """Return when the writing of *message* is certain to be tried.

        A checkpoint, all or nothing.

        Raises:
            StreamBroken: Nothing is written any more.
        """
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._entrance.send(message.decode())
            return
        await trio.lowlevel.checkpoint()
        raise StreamBroken("nothing can be sent any more")

    async def run(self) -> None:
        """Write until `finish` or the first failure.  Cancelled, it may leave a message half written."""
        try:
            with self._exit:
                await trio.lowlevel.checkpoint()
                with contextlib.suppress(StreamBroken):  # whoever receives is told why
                    async for text in self._exit:
                        await self._write(text)
        finally:
            self._ended.set()

    async def finish(self) -> None:
        """Take no more messages, and return when those taken are written or cannot be.

        A checkpoint; safe to cancel and to call again.
        """
        self._entrance.close()
        await self._ended.wait()
