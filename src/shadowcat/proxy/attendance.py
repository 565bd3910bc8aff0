"""Noticing that a client leaves before it has its answer.

A task that waits for that costs more than the rest of a short call.  So calls stand in
one queue first, and only one that is still under way after a moment gets a task.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

PATIENCE = 0.02
"""Seconds that a call may take without being watched: the work that is done in vain if its client leaves."""

Watch = Callable[[trio.CancelScope], Awaitable[None]]
"""Waits for a client to leave, and then cancels the scope."""


@attrs.define(eq=False)
class _Visit:
    due: float
    nursery: trio.Nursery
    watch: Watch
    is_watched: bool = False

    def start(self) -> None:
        self.is_watched = True
        self.nursery.start_soon(self.watch, self.nursery.cancel_scope)


class Attendance:
    """The clients that wait for an answer."""

    def __init__(self) -> None:
        self._visits: dict[_Visit, None] = {}
        self._arrival: trio.Event | None = None

    async def attend(self, serve: Callable[[], Awaitable[None]], watch: Watch) -> None:
        """Run *serve*, with *watch* beside it when it takes long.

        Returns when *serve* has returned or been cancelled by *watch*; errors come in an
        exception group.  Cancel safe.
        """
        async with trio.open_nursery() as nursery:
            visit = _Visit(trio.current_time() + PATIENCE, nursery, watch)
            self._visits[visit] = None
            if self._arrival is not None:
                self._arrival.set()
                self._arrival = None
            try:
                await serve()
            finally:
                self._visits.pop(visit, None)
            if visit.is_watched:
                nursery.cancel_scope.cancel()

    async def run(self) -> None:
        """Have each visit watched that lasts.  Until cancelled, at any time."""
        while True:
            while not self._visits:
                self._arrival = trio.Event()
                await self._arrival.wait()
                # Most are over by then, and one that comes now is not due before.
                await trio.sleep(PATIENCE)
            # All may wait equally long, so the first is the next.
            visit = next(iter(self._visits))
            await trio.sleep_until(visit.due)
            if visit in self._visits:
                del self._visits[visit]
                visit.start()


@asynccontextmanager
async def open_attendance() -> AsyncGenerator[Attendance, None]:
    """Yield an `Attendance` that works for as long as the block lasts."""
    attendance = Attendance()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attendance.run)
        yield attendance
        nursery.cancel_scope.cancel()
