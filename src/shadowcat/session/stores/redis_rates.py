"""Allowances in Redis, shared by all proxies that use the same database and prefix.

One string for each, ``PREFIX:{limits}:KEY``: until when it is used up, in microseconds by the
server's clock, and the part of one behind it.  Redis drops it when that has passed, which is when
it says no more than a missing one.

All are in one slot of a cluster, so that one script can look at all that a request takes from
before it takes from any.  One node therefore counts for all; this is one short script a request.

Lua's numbers are exact to 2**53 only.  So what is a whole number of ticks here is two numbers
there: microseconds, and ticks beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...errors import StoreCorrupt
from ..rates import RateCounter, RateTake, RateTaken
from .redis_link import failure_of
from .redis_servers import RedisServers

_TAKE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local after, levels, taken = {}, {}, 1
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local ticks = tonumber(ARGV[at + 1])
  local step, step_rest = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local span, span_rest = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local level, rest = 0, 0
  local kept = redis.call('GET', key)
  if kept then
    local whole, part = string.match(kept, '^(%d+) (%d+)$')
    if not whole then return redis.error_reply('NORATE') end
    level, rest = tonumber(whole) - now, tonumber(part)
    if level < 0 then level, rest = 0, 0 end
  end
  levels[i] = string.format('%.0f %.0f', level, rest)
  level, rest = level + step, rest + step_rest
  if rest >= ticks then level, rest = level + 1, rest - ticks end
  if level > span or (level == span and rest > span_rest) then taken = 0 end
  after[i] = { level, rest }
end
if taken == 1 then
  for i, key in ipairs(KEYS) do
    local level, rest = after[i][1], after[i][2]
    local kept = string.format('%.0f %.0f', now + level, rest)
    redis.call('SET', key, kept, 'PX', string.format('%.0f', math.floor(level / 1000) + 1000))
  end
end
return { taken, levels }
"""


class RedisRates(RateCounter):
    """Takes from allowances in Redis."""

    def __init__(self, prefix: str, servers: RedisServers) -> None:
        self._prefix = prefix.encode() + b":{limits}:"
        self._servers = servers

    async def take(self, takes: Sequence[RateTake]) -> RateTaken:
        """Take from all or from none; see `RateCounter.take`."""
        keys = [self._prefix + take.key.encode("utf-8", "surrogatepass") for take in takes]
        numbers: list[int] = []
        for take in takes:
            numbers += [take.ticks, *divmod(take.step, take.ticks), *divmod(take.span, take.ticks)]
        # Not sent again where a connection breaks: it would count twice.
        (answer,) = await self._servers.exchange([(b"EVAL", _TAKE, len(keys), *keys, *numbers)])
        if isinstance(answer, Exception):
            if "NORATE" in str(answer):
                raise StoreCorrupt("a key of the rate limits holds something else; remove it from Redis") from answer
            raise failure_of(answer) from answer
        is_taken, levels = answer
        pairs = [level.split() for level in levels]
        return RateTaken(
            bool(is_taken),
            [int(whole) * take.ticks + int(rest) for take, (whole, rest) in zip(takes, pairs, strict=True)],
        )
