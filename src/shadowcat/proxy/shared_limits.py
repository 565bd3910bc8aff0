"""Allowances that all proxies of one store use up together, for as long as the store counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from ..errors import StoreError, StoreUnavailable
from ..session import RateCounter, RateTake, RateTaken

log = logging.getLogger(__name__)

_PATIENCE = 0.5
"""Seconds that a request is kept waiting for the count."""

_PAUSE = 1.0
"""Seconds from one try to the next while the counter fails; one request makes it, the others go on."""


class SharedLimits:
    """Asks the counter, and knows when not to."""

    def __init__(self, counter: RateCounter) -> None:
        self._counter = counter
        self._is_failing = False
        self._paused_until = 0.0
        self.failures = 0
        """How often the counter was asked and did not count."""

    @property
    def is_asked(self) -> bool:
        """Whether the counter is worth asking."""
        return not self._is_failing or trio.current_time() >= self._paused_until

    async def take(self, takes: Sequence[RateTake]) -> RateTaken | None:
        """Take from all allowances or from none; return None if nobody counts.

        A checkpoint.  If cancelled, it may have been taken.
        """
        self._paused_until = trio.current_time() + _PAUSE
        try:
            with trio.move_on_after(_PATIENCE):
                taken = await self._counter.take(takes)
                if self._is_failing:
                    self._is_failing = False
                    log.info("rate limits are counted in the store again")
                return taken
            raise StoreUnavailable("the store did not count in time")
        except StoreError as error:
            self.failures += 1
            if not self._is_failing:
                self._is_failing = True
                log.warning("rate limits are counted in this process only, for the time being: %s", error)
            return None
