"""How many requests somebody may make: the generic cell rate algorithm.

One number is kept for each key: the time at which it would have used up nothing of
its allowance, if it came no more.  A request moves that time on by one interval; it is
refused while that lies further ahead than the burst allows.

All arithmetic is on integers.  Time comes in microseconds, and is counted in ticks, of
which a limit has as many to a microsecond as it takes for its interval to be a whole
number of them.  So seven an hour are seven an hour, after any time.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict

import attrs
import trio

from ..errors import ConfigError

MICROSECONDS = 1_000_000

_LONGEST = 366 * 86_400

_UNITS = {
    **dict.fromkeys(("s", "sec", "second"), 1),
    **dict.fromkeys(("m", "min", "minute"), 60),
    **dict.fromkeys(("h", "hour"), 3600),
    **dict.fromkeys(("d", "day"), 86_400),
}
_WRITTEN = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})?\s*([a-z]+)(?:\s+burst\s+([0-9]{1,9}))?", re.ASCII)
_BOUNDS = [attrs.validators.instance_of(int), attrs.validators.ge(1), attrs.validators.le(10**9)]


@attrs.frozen
class RateLimit:
    """An allowance: *burst* requests at once, and as they are used up, *count* more each *period*."""

    count: int = attrs.field(validator=_BOUNDS)
    """Requests in each period, in the long run."""

    period: int = attrs.field(default=1, validator=_BOUNDS)
    """Seconds."""

    burst: int = attrs.field(default=attrs.Factory(lambda self: self.count, takes_self=True), validator=_BOUNDS)
    """Requests that may come at once; by default as many as in a period."""

    ticks: int = attrs.field(init=False, repr=False, eq=False)
    """How many there are to a microsecond."""

    interval: int = attrs.field(init=False, repr=False, eq=False)
    """Ticks that one request takes up."""

    span: int = attrs.field(init=False, repr=False, eq=False)
    """Ticks that a whole burst takes up."""

    @ticks.default
    def _reduced(self) -> int:
        return self.count // math.gcd(self.count, self.period * MICROSECONDS)

    @interval.default
    def _of_one(self) -> int:
        return self.period * MICROSECONDS // math.gcd(self.count, self.period * MICROSECONDS)

    @span.default
    def _of_burst(self) -> int:
        return self.interval * self.burst

    def __attrs_post_init__(self) -> None:
        if self.seconds(self.span) > _LONGEST:
            raise ValueError("the burst must be such that it has come back within a year")

    def seconds(self, ticks: int) -> float:
        """Return how long *ticks* are."""
        return ticks / (self.ticks * MICROSECONDS)

    def __str__(self) -> str:
        unit = {1: "s", 60: "min", 3600: "h", 86_400: "d"}.get(self.period, f"{self.period}s")
        burst = "" if self.burst == self.count else f" burst {self.burst}"
        return f"{self.count}/{unit}{burst}"


def read_rate_limit(text: str) -> RateLimit:
    """Return the limit that *text* says: ``100/s``, ``60/min burst 20``, ``5/30s``; also ``h`` and ``d``.

    Raises:
        ConfigError: It says none.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or found[3] not in _UNITS:
        raise ConfigError(f"{text!r} is no rate limit; write for example 100/s, or 60/min burst 20")
    period = int(found[2] or 1) * _UNITS[found[3]]
    try:
        return RateLimit(int(found[1]), period, int(found[4] or found[1]))
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be a rate limit: {error}") from None


@attrs.frozen
class Allowance:
    """What is left to a key."""

    is_allowed: bool
    remaining: int
    """Requests that could follow at once."""
    retry_after: float
    """Seconds until as much will be allowed; 0 if it was, infinite if it never will be."""
    reset_after: float
    """Seconds until the whole burst is there again."""


def now_in_microseconds() -> int:
    """Return the time by trio's clock."""
    return round(trio.current_time() * MICROSECONDS)


def allowance_at(limit: RateLimit, level: int, cost: int = 1) -> Allowance:
    """Return what *cost* requests at once mean to somebody who has used up *level* ticks before."""
    after = level + cost * limit.interval
    if after > limit.span:
        never = cost > limit.burst
        wait = math.inf if never else limit.seconds(after - limit.span)
        return Allowance(False, max(0, limit.span - level) // limit.interval, wait, limit.seconds(level))
    return Allowance(True, (limit.span - after) // limit.interval, 0.0, limit.seconds(after))


class RateLimiter:
    """Keeps the numbers of as many keys as are allowed, by trio's clock.  Not a checkpoint.

    Args:
        max_keys: Beyond that, those that used their allowance longest ago are forgotten.
            One that is forgotten early has its whole burst again, so this is also how much
            of a flood of new keys is remembered.
    """

    def __init__(self, limit: RateLimit, max_keys: int = 100_000) -> None:
        self.limit = limit
        self.max_keys = max_keys
        self._ticks = limit.ticks
        self._used_until: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used_until)

    def level(self, key: str, now: int) -> int:
        """Return how many ticks *key* has used up at *now*, in microseconds."""
        level = self._used_until.get(key, 0) - now * self._ticks
        return level if level > 0 else 0

    def use(self, key: str, level: int, now: int) -> None:
        """Have *level* ticks of *key* be used up at *now*."""
        self._used_until[key] = now * self._ticks + level
        self._used_until.move_to_end(key)
        self._forget(now)

    def ask(self, key: str, cost: int = 1) -> Allowance:
        """Let *cost* requests of *key* pass, or refuse them all."""
        now = now_in_microseconds()
        level = self.level(key, now)
        allowance = allowance_at(self.limit, level, cost)
        if allowance.is_allowed:
            self.use(key, level + cost * self.limit.interval, now)
        return allowance

    def _forget(self, now: int) -> None:
        # Two for each that comes, so that it is no work for anybody and none is kept for long.
        for _ in range(2):
            key = next(iter(self._used_until))
            if self._used_until[key] > now * self._ticks and len(self._used_until) <= self.max_keys:
                return
            del self._used_until[key]
            if not self._used_until:
                return
