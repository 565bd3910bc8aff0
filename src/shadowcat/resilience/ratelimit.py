"""How many requests somebody may make: the generic cell rate algorithm.

One number is kept for each key: the time at which it would have used up nothing of
its allowance, if it came no more.  A request moves that time on by one interval; it is
refused while that lies further ahead than the burst allows.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import attrs
import trio


@attrs.frozen(kw_only=True)
class RateLimit:
    """An allowance: *burst* requests at once, and *rate* more each second."""

    rate: float = attrs.field(validator=attrs.validators.gt(0))
    """Requests a second in the long run."""

    burst: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """Requests that may come at once."""

    @property
    def interval(self) -> float:
        """Seconds that one request takes up."""
        return 1.0 / self.rate


@attrs.frozen
class Allowance:
    """What is left to a key."""

    is_allowed: bool
    remaining: int
    """Requests that could follow at once."""
    retry_after: float
    """Seconds until one will be allowed; 0 if this one was."""
    reset_after: float
    """Seconds until the whole burst is there again."""


def decide(limit: RateLimit, used_until: float, now: float) -> tuple[float, Allowance]:
    """Return the number to keep after one more request at *now*, and what it means for that request.

    Args:
        used_until: The number kept so far; anything in the past if there is none.
    """
    interval = limit.interval
    span = interval * limit.burst
    begun = max(used_until, now)
    after = begun + interval
    # A millionth, because seconds since the epoch leave no more of a float than that.
    if after - now > span + 1e-6:
        remaining = 0
        return used_until, Allowance(False, remaining, after - now - span, begun - now)
    return after, Allowance(True, int((span - (after - now)) / interval + 1e-6), 0.0, after - now)


class RateLimiter:
    """Keeps the numbers of as many keys as are allowed, by trio's clock.  Not a checkpoint.

    Args:
        max_keys: Beyond that, those that used their allowance longest ago are forgotten.
            One that is forgotten early has its whole burst again, so this is also how much
            of a flood of new keys is remembered.
    """

    def __init__(self, limit: RateLimit, max_keys: int = 100_000) -> None:
        self.limit = limit
        self._max_keys = max_keys
        self._used_until: OrderedDict[str, float] = OrderedDict()
        self.refused = 0

    def __len__(self) -> int:
        return len(self._used_until)

    def ask(self, key: str) -> Allowance:
        """Let one request of *key* pass, or refuse it."""
        now = trio.current_time()
        kept, allowance = decide(self.limit, self._used_until.get(key, -math.inf), now)
        if not allowance.is_allowed:
            self.refused += 1
            return allowance
        self._used_until[key] = kept
        self._used_until.move_to_end(key)
        self._forget(now)
        return allowance

    def _forget(self, now: float) -> None:
        # Two for each that comes, so that it is no work for anybody and none is kept for long.
        for _ in range(2):
            key, used_until = next(iter(self._used_until.items()))
            if used_until > now and len(self._used_until) <= self._max_keys:
                return
            del self._used_until[key]
            if not self._used_until:
                return
