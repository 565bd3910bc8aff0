"""What `RedisStore` has the server do in one step, in Lua.

Each works on one session: ``KEYS`` are its hash and its stream of frames, which
share a hash tag.  They are sent as text: the server keeps them compiled, and
unlike with ``EVALSHA`` there is no state in which it has forgotten them.
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

# Counted from the server's own clock at the earliest, so that a session is not gone at once
# where clocks differ, or where times are made up.
_KEEP = f"""
{_NUMBER}
local function keep(expires_at)
  local at = math.max(number(expires_at), tonumber(redis.call('TIME')[1])) + {MARGIN}
  for _, key in ipairs(KEYS) do
    if at < 1e12 then
      redis.call('PEXPIREAT', key, string.format('%.0f', at * 1000))
    else
      redis.call('PERSIST', key)
    end
  end
end
"""

CREATE: Final = f"""
{_KEEP}
local existing = redis.call('HGET', KEYS[1], 'expires_at')
if existing then return existing end
redis.call('UNLINK', KEYS[2])
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
"""Expected and next revision and data in; nothing, 0 for a conflict, or the times out."""

TOUCH: Final = f"""
{_KEEP}
local stored = redis.call('HMGET', KEYS[1], 'last_activity', 'expires_at')
if not stored[2] then return 0 end
if number(ARGV[1]) > number(stored[1]) then redis.call('HSET', KEYS[1], 'last_activity', ARGV[1]) end
if number(ARGV[2]) > number(stored[2]) then
  redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
  keep(ARGV[2])
end
return 1
"""

DELETE: Final = """
local had = redis.call('EXISTS', KEYS[1])
redis.call('UNLINK', KEYS[1], KEYS[2])
return had
"""

EXPIRE: Final = f"""
{_NUMBER}
local stored = redis.call('HMGET', KEYS[1], 'data', 'last_activity', 'expires_at')
local due = stored[3] and number(stored[3])
if due and due > number(ARGV[1]) then return stored[3] end
if redis.call('UNLINK', KEYS[1], KEYS[2]) == 0 then return false end
return stored
"""
"""The time in; nothing, the expiry of one that is not due, or the one that was deleted out."""

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
