"""Noticing that a client leaves before it has its answer, and that it has heard nothing for long.

A task that waits for a client to leave costs more than the rest of a short call.  So
calls wait in a queue first, and only one that is still under way after a moment gets a
task.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from .delay import Delayed, DelayQueue

PATIENCE = 0.02
"""Seconds that a call may take without being watched: the work that is done in vain if its client leaves."""

Watch = Callable[[trio.CancelScope], Awaitable[None]]
"""Waits for a client to leave, and then cancels the scope."""


@attrs.define(eq=False)
class _Visit(Delayed):
    nursery: trio.Nursery
    watch: Watch
    is_watched: bool = False

    def note_due(self) -> None:
        self.is_watched = True
        self.nursery.start_soon(self.watch, self.nursery.cancel_scope)


class Attendance:
    """The clients that wait for an answer.

    Args:
        heartbeat_interval: Seconds of silence on an event stream after which a comment is sent.
    """

    def __init__(self, heartbeat_interval: float) -> None:
        self.silences = DelayQueue(heartbeat_interval)
        """The streams that wait for an event."""
        self._visits = DelayQueue(PATIENCE)

    async def attend(self, serve: Callable[[], Awaitable[None]], watch: Watch) -> None:
        """Run *serve*, with *watch* beside it when it takes long.

        Returns when *serve* has returned or been cancelled by *watch*; errors come in an
        exception group.  Cancel safe.
        """
        async with trio.open_nursery() as nursery:
            visit = _Visit(nursery, watch)
            self._visits.add(visit)
            try:
                await serve()
            finally:
                self._visits.discard(visit)
            if visit.is_watched:
                nursery.cancel_scope.cancel()

    async def run(self) -> None:
        """Have each visit watched that lasts, and each silence ended.  Until cancelled, at any time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._visits.run)
            nursery.start_soon(self.silences.run)


@asynccontextmanager
async def open_attendance(heartbeat_interval: float) -> AsyncGenerator[Attendance, None]:
    """Yield an `Attendance` that works for as long as the block lasts."""
    attendance = Attendance(heartbeat_interval)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attendance.run)
        yield attendance
        nursery.cancel_scope.cancel()
