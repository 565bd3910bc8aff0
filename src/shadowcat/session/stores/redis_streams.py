"""Event streams in Redis: what a `RedisStore` asks its server for.

A stream is two keys in the slot of its session, ``SESSION:streams:record:STREAM``, a
hash, and ``SESSION:streams:events:STREAM``, a stream with an entry ``POSITION-0`` for each
event.  The sorted set ``SESSION:streams`` names them, so that they go with their session.

That an owner is alive is ``PREFIX:owner:OWNER``, a key that Redis drops when its time is
over; it is in another slot.  So a claim looks first, and then compares and sets: an owner
that comes back to life in between finds its fence outdated.

``PREFIX:ended``, a sorted set by the newest append, leads to the streams that have ended.
It is told first, so it may name one that has not, or is gone, until `StreamLog.expire`
comes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import trio

from ...errors import StoreCorrupt
from ..model import SessionId
from ..stream import (
    LogLimits,
    OwnerId,
    StreamAppend,
    StreamEvent,
    StreamId,
    StreamKey,
    StreamKind,
    StreamRecord,
    StreamSlice,
)
from .redis_scripts import APPEND, CLAIM, EXPIRE_STREAM, READ
from .redis_slots import Command

_BATCH = 500
"""Streams in one round trip."""

_LONGEST_WAIT = 1.0
_LOOK_INTERVAL = 0.05
"""Seconds between two looks at a stream that another proxy appends to."""


class Ask(Protocol):
    """Sends commands to the server."""

    async def __call__(self, *commands: Command, again: bool = False) -> list[Any]:
        """Return the answers, or raise what the first error among them means."""


class StreamLog:
    """The event streams of all sessions.

    Args:
        prefix: What all keys begin with.
        ask: Talks to the server.
        keys: Returns the keys of a session: its hash, and the names of its streams last.
    """

    def __init__(self, prefix: bytes, ask: Ask, keys: Callable[[SessionId], tuple[bytes, ...]]) -> None:
        self._prefix = prefix
        self._ended = prefix + b":ended"
        self._ask = ask
        self._session_keys = keys

    async def append(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        """Do what `SessionStore.append_events` promises, in one round trip for some hundred appends."""
        refused: list[StreamKey] = []
        for start in range(0, len(appends), _BATCH):
            some = appends[start : start + _BATCH]
            ended = [(repr(one.appended_at), _member_of(one.key)) for one in some if one.is_ended]
            index: list[Command] = (
                [(b"ZADD", self._ended, *(value for pair in ended for value in pair))] if ended else []
            )
            answers = await self._ask(*index, *(self._append(one, limits) for one in some))
            refused += [one.key for one, taken in zip(some, answers[len(index) :], strict=True) if not taken]
        return refused

    async def read(self, key: StreamKey, after: int, limit: int) -> StreamSlice | None:
        """Do what `SessionStore.read_events` promises."""
        _, record, events = self._keys(key)
        (found,) = await self._ask((b"EVAL", READ, 2, record, events, after + 1, limit), again=True)
        if found is None:
            return None
        (is_released, *fields), entries = found
        stored = _record_of(key, fields)
        if is_released == b"1" or not await self._is_alive(stored.owner):
            stored = attrs.evolve(stored, owner=None)
        return StreamSlice(stored, list(_events_of(entries)))

    async def claim(self, key: StreamKey, owner: OwnerId) -> StreamRecord | None:
        """Do what `SessionStore.claim_stream` promises."""
        _, record, events = self._keys(key)
        while True:
            (found,) = await self._ask((b"EVAL", READ, 2, record, events, 0, 1), again=True)
            if found is None:
                return None
            (is_released, *fields), _ = found
            stored = _record_of(key, fields)
            if is_released != b"1" and stored.owner != owner and await self._is_alive(stored.owner):
                return stored
            (answer,) = await self._ask((b"EVAL", CLAIM, 1, record, *fields[:2], is_released, owner))
            if answer is None:
                return None
            if answer != 0:
                return _record_of(key, answer)

    async def renew(self, owner: OwnerId, ttl: float) -> None:
        """Do what `SessionStore.renew_owner` promises."""
        key, milliseconds = self._owner_key(owner), round(ttl * 1000)
        await self._ask((b"SET", key, b"1", b"PX", milliseconds) if milliseconds > 0 else (b"UNLINK", key))

    async def expire(self, before: float) -> int:
        """Do what `SessionStore.expire_streams` promises."""
        dropped = 0
        while True:
            due = (b"ZRANGEBYSCORE", self._ended, b"-inf", f"({before!r}", b"LIMIT", 0, _BATCH)
            (members,) = await self._ask(due, again=True)
            if not members:
                return dropped
            # One that cannot be dropped goes from the index too: it must not keep the others.
            *answers, _ = await self._ask(
                *(self._expire(member, before) for member in members), (b"ZREM", self._ended, *members)
            )
            dropped += sum(answers)

    async def wait(self, key: StreamKey, after: int) -> None:
        """Do what `SessionStore.wait_events` promises; that an owner has died is left to whoever reads next."""
        _, record, _ = self._keys(key)
        look: Command = (b"HMGET", record, b"last_position", b"is_ended", b"is_released")
        has_news = False
        with trio.move_on_after(_LONGEST_WAIT):
            while not has_news:
                await trio.sleep(_LOOK_INTERVAL)
                ((last_position, *flags),) = await self._ask(look, again=True)
                has_news = last_position is None or int(last_position) > after or b"1" in flags

    async def _is_alive(self, owner: OwnerId | None) -> bool:
        (count,) = await self._ask((b"EXISTS", self._owner_key(owner or OwnerId(""))), again=True)
        return bool(count)

    def _keys(self, key: StreamKey) -> tuple[bytes, bytes, bytes]:
        names = self._session_keys(key.session_id)[-1]
        stream_id = key.stream_id.encode()
        return names, names + b":record:" + stream_id, names + b":events:" + stream_id

    def _owner_key(self, owner: OwnerId) -> bytes:
        return self._prefix + b":owner:" + owner.encode()

    def _append(self, append: StreamAppend, limits: LogLimits) -> Command:
        record: Command = (
            *("kind", append.kind.value, "request_id", _optional(append.request_id)),
            *("sent_id", _optional(append.sent_id), "resume_id", _optional(append.resume_id)),
            *("is_released", int(append.is_released), "appended_at", repr(append.appended_at)),
        )
        return (
            *(b"EVAL", APPEND, 4, self._session_keys(append.key.session_id)[0], *self._keys(append.key)),
            *(append.owner, append.fence, append.key.stream_id, append.newest_position, int(append.is_ended)),
            *(limits.max_events, limits.max_bytes, repr(limits.max_age), limits.max_streams),
            *(len(record), *record),
            *(value for event in append.events for value in _flat(event)),
        )

    def _expire(self, member: bytes, before: float) -> Command:
        stream_id, _, session_id = member.decode().partition(".")
        keys = self._keys(StreamKey(SessionId(session_id), StreamId(stream_id)))
        return (b"EVAL", EXPIRE_STREAM, 3, *keys, repr(before), stream_id)


def _member_of(key: StreamKey) -> str:
    # There is no dot in the id of a stream.
    return f"{key.stream_id}.{key.session_id}"


def _optional(value: str | bytes | None) -> bytes:
    """Return *value* so that it can be told from none."""
    if value is None:
        return b""
    return b"=" + (value.encode() if isinstance(value, str) else value)


def _given(stored: bytes) -> bytes | None:
    return stored[1:] if stored else None


def _text(stored: bytes) -> str | None:
    return stored[1:].decode() if stored else None


def _flat(event: StreamEvent) -> tuple[int, bytes, str, bytes]:
    return event.position, _optional(event.upstream_id), repr(event.recorded_at), event.block


def _record_of(key: StreamKey, fields: Sequence[bytes]) -> StreamRecord:
    owner, fence, kind, request_id, sent_id, last_position, resume_id, is_ended = fields
    try:
        return StreamRecord(
            key=key,
            owner=OwnerId(owner.decode()),
            fence=int(fence),
            kind=StreamKind(kind.decode()),
            request_id=_given(request_id),
            sent_id=_given(sent_id),
            last_position=int(last_position),
            resume_id=_text(resume_id),
            is_ended=is_ended == b"1",
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreCorrupt("a stored stream cannot be read; end its session") from error


def _events_of(entries: Sequence[Any]) -> Iterator[StreamEvent]:
    try:
        for entry_id, (_, upstream_id, _, recorded_at, _, block) in entries:
            position = int(entry_id.partition(b"-")[0])
            yield StreamEvent(position, _text(upstream_id), block, float(recorded_at))
    except (ValueError, TypeError) as error:
        raise StoreCorrupt("a stored event cannot be read; end its session") from error
