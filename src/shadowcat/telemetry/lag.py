"""How late the event loop is."""

from __future__ import annotations

import trio

from .histogram import SHORT, Histogram


class LoopLag:
    """Measures by how much a sleep is too long, which is how long everybody else waits too.

    Args:
        interval: Seconds between two looks.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self._interval = interval
        self.histogram = Histogram(SHORT)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + self._interval
            await trio.sleep_until(due)
            self.histogram.observe(max(trio.current_time() - due, 0.0))
