"""One delay for many.

A cancel scope for each wait takes longer than most things that are waited for.  Where
all wait equally long, the order in which they came is that in which they are due, and
one task does for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

import trio


class Delayed(ABC):
    """Something that may become due."""

    @abstractmethod
    def note_due(self) -> None:
        """Take note that it is.  Not a checkpoint."""


class DelayQueue:
    """Tells each that was added when it has been in here for *delay* seconds; it is out then."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        # Not a dict: to find the first of one walks over all that were taken out before it.
        self._due: OrderedDict[Delayed, float] = OrderedDict()
        self._arrival: trio.Event | None = None

    def add(self, delayed: Delayed) -> None:
        """Begin to count for *delayed*, anew if it is in here."""
        self._due.pop(delayed, None)
        self._due[delayed] = trio.current_time() + self.delay
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def discard(self, delayed: Delayed) -> None:
        """Take *delayed* out, if it is in here."""
        self._due.pop(delayed, None)

    async def run(self) -> None:
        """Tell those that are due.  Until cancelled, at any time."""
        while True:
            while not self._due:
                self._arrival = trio.Event()
                await self._arrival.wait()
                # Most are out again by then, and one that comes meanwhile is not due before.
                await trio.sleep(self.delay)
            first, due = next(iter(self._due.items()))
            await trio.sleep_until(due)
            if self._due.get(first) == due:
                del self._due[first]
                first.note_due()
