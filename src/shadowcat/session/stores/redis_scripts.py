"""What `RedisStore` has the server do in one step, in Lua.

Each works on one session, whose keys share a hash tag.  Unless said otherwise,
``KEYS`` are its hash, its stream of frames and the sorted set that names its event
streams; those have two keys each, which are made from the third.  They are sent as
text: the server keeps them compiled, and unlike with ``EVALSHA`` there is no state
in which it has forgotten them.

A node of a cluster that is moving a slot refuses a script with some of its ``KEYS``,
and one that comes upon a key made from the third is broken off there.  So each names
no key that it has no use for, and can be run again after it was broken off: it comes
to those keys first, or not for anything that matters.
"""

from __future__ import annotations

from typing import Final

MARGIN: Final = 86_400
"""Seconds after its expiry at which Redis itself drops a session that no proxy has ended."""

# Lua reads "inf" or does not, depending on the platform.
_NUMBER = """
local function number(text)
  if text == 'inf' then return math.huge end
  if text == '-inf' then return -math.huge end
  return tonumber(text)
end
"""

_STREAMS = """
local function each_stream_key(call)
  for _, name in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    call(KEYS[3] .. ':record:' .. name)
    call(KEYS[3] .. ':events:' .. name)
  end
end
"""

_DROP = """
local function drop()
  each_stream_key(function(key) redis.call('UNLINK', key) end)
  return redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
end
"""

# Counted from the server's own clock at the earliest, so that a session is not gone at once
# where clocks differ, or where times are made up.
_KEEP = f"""
{_NUMBER}
{_STREAMS}
local function keep(expires_at)
  local at = math.max(number(expires_at), tonumber(redis.call('TIME')[1])) + {MARGIN}
  local function keep_key(key)
    if at < 1e12 then
      redis.call('PEXPIREAT', key, string.format('%.0f', at * 1000))
    else
      redis.call('PERSIST', key)
    end
  end
  for _, key in ipairs(KEYS) do keep_key(key) end
  each_stream_key(keep_key)
end
"""

CREATE: Final = f"""
{_KEEP}
{_DROP}
local existing = redis.call('HGET', KEYS[1], 'expires_at')
if existing then return existing end
drop()
redis.call('HSET', KEYS[1], 'data', ARGV[1], 'revision', ARGV[2], 'last_activity', ARGV[3], 'expires_at', ARGV[4])
keep(ARGV[4])
return false
"""
"""Data, revision, last activity and expiry in; the expiry of one that exists already out."""

UPDATE: Final = """
local stored = redis.call('HMGET', KEYS[1], 'revision', 'last_activity', 'expires_at')
if not stored[1] then return false end
if stored[1] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'data', ARGV[3])
return {stored[2], stored[3]}
"""
"""``KEYS`` is a session's hash.  Expected and next revision and data in; nothing, 0 for a
conflict, or the times out."""

TOUCH: Final = f"""
{_KEEP}
local stored = redis.call('HMGET', KEYS[1], 'last_activity', 'expires_at')
if not stored[2] then return 0 end
if number(ARGV[1]) > number(stored[1]) then redis.call('HSET', KEYS[1], 'last_activity', ARGV[1]) end
if number(ARGV[2]) > number(stored[2]) then
  keep(ARGV[2])
  redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
end
return 1
"""

DELETE: Final = f"""
{_STREAMS}
{_DROP}
local had = redis.call('EXISTS', KEYS[1])
drop()
return had
"""

EXPIRE: Final = f"""
{_NUMBER}
{_STREAMS}
{_DROP}
local stored = redis.call('HMGET', KEYS[1], 'data', 'last_activity', 'expires_at')
local due = stored[3] and number(stored[3])
if due and due > number(ARGV[1]) then return stored[3] end
if drop() == 0 then return false end
return stored
"""
"""The time in; nothing, the expiry of one that is not due, or the one that was deleted out."""

PAGE: Final = """
local at = redis.call('ZRANK', KEYS[1], ARGV[2])
local limit = tonumber(ARGV[3])
if at and redis.call('ZSCORE', KEYS[1], ARGV[2]) == ARGV[1] then
  return redis.call('ZRANGE', KEYS[1], at + 1, at + limit, 'WITHSCORES')
end
return redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
"""
"""``KEYS`` is the index.  An expiry and an id after it, and a limit in; ids and expiries out.

An id that is there no more, or has moved on, leaves its place open: those that expire when
it did come again, so that none is missed.
"""

ADD_FRAME: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[1], '*', 'direction', ARGV[2], 'recorded_at', ARGV[3], 'message', ARGV[4])
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[2], left) end
return 1
"""

STORE_EVENT_ID: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'last_event_id', ARGV[1])
return 1
"""
"""``KEYS`` is a session's hash."""

APPEND: Final = f"""
{_NUMBER}
local owner, fence, name, newest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local is_ended, fields = ARGV[5], tonumber(ARGV[10])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local stored = redis.call('HMGET', KEYS[3], 'owner', 'fence', 'last_position', 'is_ended', 'bytes', 'oldest_at')
local is_new = not stored[1]
if not is_new and (stored[1] ~= owner or stored[2] ~= fence) then return 0 end
local last = tonumber(stored[3] or '0')
if newest < last then return 1 end
if stored[4] == '1' then is_ended = '1' end

local left = redis.call('PTTL', KEYS[1])
local function follow(key)
  if left > 0 then redis.call('PEXPIRE', key, left) end
end

local count, size, oldest_at = redis.call('XLEN', KEYS[4]), tonumber(stored[5] or '0'), number(stored[6] or '0')
local newest_at
for i = 11 + fields, #ARGV, 4 do
  if tonumber(ARGV[i]) > last then
    redis.call('XADD', KEYS[4], ARGV[i] .. '-0', 'id', ARGV[i + 1], 'recorded_at', ARGV[i + 2], 'block', ARGV[i + 3])
    newest_at = number(ARGV[i + 2])
    count, size = count + 1, size + #ARGV[i + 3]
    if count == 1 then
      oldest_at = newest_at
      follow(KEYS[4])
    end
  end
end

local function exceeds()
  return newest_at and count > 1 and (count > number(ARGV[6]) or size > number(ARGV[7])
    or oldest_at < newest_at - number(ARGV[8]))
end
local step = 2
while exceeds() do
  local oldest, gone = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', step), {{}}
  for i = 1, #oldest - 1 do
    if not exceeds() then break end
    gone[i] = oldest[i][1]
    count, size = count - 1, size - #oldest[i][2][6]
    oldest_at = number(oldest[i + 1][2][4])
  end
  redis.call('XDEL', KEYS[4], unpack(gone))
  step = math.min(step * 2, 64)
end

redis.call('HSET', KEYS[3], 'owner', owner, 'fence', fence, 'last_position', newest, 'is_ended', is_ended,
  'bytes', size, 'oldest_at', string.format('%.17g', oldest_at), unpack(ARGV, 11, 10 + fields))
if is_new or is_ended ~= stored[4] then
  local time = redis.call('TIME')
  local score = tonumber(redis.call('ZSCORE', KEYS[2], name) or time[1] * 1e6 + time[2])
  if is_ended == '1' then score = score - 8e15 end
  redis.call('ZADD', KEYS[2], string.format('%.0f', score), name)
end
if is_new then
  follow(KEYS[2])
  follow(KEYS[3])
  local excess = redis.call('ZCARD', KEYS[2]) - number(ARGV[9])
  for _, other in ipairs(excess > 0 and redis.call('ZRANGE', KEYS[2], 0, excess) or {{}}) do
    if excess > 0 and other ~= name then
      redis.call('UNLINK', KEYS[2] .. ':record:' .. other, KEYS[2] .. ':events:' .. other)
      redis.call('ZREM', KEYS[2], other)
      excess = excess - 1
    end
  end
end
return 1
"""
"""Append to an event stream; 0 if that is refused.

``KEYS`` are the session's hash, the names of its streams, and the stream's record and
events.  In: owner, fence, name, newest position, whether it has ended; the limits on
events, bytes, age and streams; how many fields and values of the record follow, and
those; and of each event its position, upstream id, time and block.

Names are scored by the time at which their streams began, those that have ended
before all others: so the first are those to drop.
"""

RECORD: Final = ("owner", "fence", "kind", "request_id", "sent_id", "last_position", "resume_id", "is_ended")

_RECORD = ", ".join(f"'{field}'" for field in RECORD)

READ: Final = f"""
local stored = redis.call('HMGET', KEYS[1], 'is_released', {_RECORD})
if not stored[1] then return false end
return {{stored, redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])}}
"""
"""``KEYS`` are a stream's record and events.  Position and limit in; nothing, or the record and its events out."""

CLAIM: Final = f"""
local stored = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'is_released')
if not stored[1] then return false end
if stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2] or stored[3] ~= ARGV[3] then return 0 end
redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[4], 'is_released', 0)
return redis.call('HMGET', KEYS[1], {_RECORD})
"""
"""``KEYS`` is a stream's record.  The owner, the fence and whether it is released, as they
were found, and the new owner in; nothing, 0 if they are others by now, or the record out."""

EXPIRE_STREAM: Final = f"""
{_NUMBER}
local stored = redis.call('HMGET', KEYS[2], 'is_ended', 'appended_at')
if stored[1] ~= '1' or number(stored[2]) >= number(ARGV[1]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[2])
return redis.call('UNLINK', KEYS[2], KEYS[3]) > 0 and 1 or 0
"""
"""``KEYS`` are the names of a session's streams, and one's record and events.  A time and its name in."""
