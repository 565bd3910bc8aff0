"""How long to wait before trying again."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import trio

_MODERATE = 3
"""Attempts after which waits are eight times the base."""


@attrs.frozen(kw_only=True)
class BackoffConfig:
    """Waits that grow, and an end to them.  Durations are in seconds."""

    base: float = attrs.field(default=0.2, validator=attrs.validators.gt(0))
    """The longest first wait; doubled for each."""

    cap: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """The longest wait of all."""

    budget: float = attrs.field(default=300.0, validator=attrs.validators.ge(0))
    """How long it is tried again without progress."""


class Backoff:
    """Waits with full jitter: each is drawn between nothing and a limit that doubles.

    So those that failed together do not come back together.  By trio's clock.
    """

    def __init__(self, config: BackoffConfig, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._config = config
        self._draw = draw
        self.progress()

    def progress(self) -> None:
        """Begin anew: what was tried has worked.  The budget counts from the next failure."""
        self._attempts = 0
        self._deadline: float | None = None

    def note_alive(self) -> None:
        """Begin the budget anew, and wait moderately: the other side is there, and has nothing for us."""
        self._attempts = min(self._attempts, _MODERATE)
        self._deadline = None

    def next_wait(self, at_least: float = 0.0) -> float | None:
        """Return how long to wait before the next attempt; None if it is time to give up.

        Args:
            at_least: What the other side asked for; not counted against the budget
                beyond the attempt it precedes.
        """
        if self._deadline is None:
            self._deadline = trio.current_time() + self._config.budget
        if trio.current_time() >= self._deadline:
            return None
        limit = min(self._config.base * 2.0 ** min(self._attempts, 60), self._config.cap)
        self._attempts += 1
        return max(self._draw(0.0, limit), at_least)
