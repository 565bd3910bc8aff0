"""Event streams in the file of a `SqliteStore`: what is done on a connection.

Each function runs in a transaction of its caller, or is one statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs

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

_Row: TypeAlias = tuple[Any, ...]

_SMALL: Final = 65536
"""Bytes of events that are read in the event loop: some twenty microseconds."""

_FIND: Final = """
    SELECT id, owner, fence, last_position, event_count, event_bytes, oldest_at FROM streams
    WHERE session_id = ? AND stream_id = ?
"""
_BEGIN: Final = """
    INSERT INTO streams (session_id, stream_id, owner, fence, kind, last_position, is_ended, is_released, appended_at,
        event_count, event_bytes, oldest_at)
    SELECT id, ?, ?, ?, ?, 0, 0, 0, 0.0, 0, 0, 0.0 FROM sessions WHERE id = ?
"""
_UPDATE: Final = """
    UPDATE streams SET kind = ?, request_id = ?, sent_id = ?, last_position = ?, resume_id = ?,
        is_ended = is_ended OR ?, is_released = ?, appended_at = ?, event_count = ?, event_bytes = ?, oldest_at = ?
    WHERE id = ?
"""
_SUPERFLUOUS: Final = """
    SELECT id FROM streams WHERE session_id = ? AND stream_id != ? ORDER BY is_ended DESC, id LIMIT ?
"""
_ADD_EVENT: Final = "INSERT INTO events (stream, position, upstream_id, block, recorded_at) VALUES (?, ?, ?, ?, ?)"
_SIZES: Final = "SELECT position, length(block), recorded_at FROM events WHERE stream = ? ORDER BY position"

_RECORD: Final = """
    s.session_id, s.stream_id, CASE WHEN NOT s.is_released AND o.alive_until > ? THEN s.owner END, s.fence, s.kind,
    s.request_id, s.sent_id, s.last_position, s.resume_id, s.is_ended
"""
_STREAM: Final = "FROM streams s LEFT JOIN owners o ON o.id = s.owner"
_WHICH: Final = "WHERE s.session_id = ? AND s.stream_id = ?"
_LOOK: Final = f"SELECT {_RECORD}, s.event_bytes {_STREAM} {_WHICH}"
_READ: Final = f"""
    SELECT {_RECORD}, e.position, e.upstream_id, e.block, e.recorded_at
    {_STREAM} LEFT JOIN events e ON e.stream = s.id AND e.position > ?
    {_WHICH} ORDER BY e.position LIMIT ?
"""
_CLAIM: Final = f"""
    UPDATE streams SET owner = ?, fence = fence + 1, is_released = 0
    WHERE id = (SELECT s.id {_STREAM} {_WHICH} AND (s.owner = ? OR s.is_released OR coalesce(o.alive_until, 0) <= ?))
"""
_EXPIRE: Final = """
    DELETE FROM streams WHERE id IN (SELECT id FROM streams WHERE is_ended AND appended_at < ? LIMIT ?)
"""


@attrs.define
class _Kept:
    """What a stream has of events."""

    count: int
    size: int
    oldest_at: float

    def exceeds(self, limits: LogLimits, newest_at: float) -> bool:
        return self.count > 1 and (
            self.count > limits.max_events
            or self.size > limits.max_bytes
            or self.oldest_at < newest_at - limits.max_age
        )


def append(db: sqlite3.Connection, appends: Sequence[StreamAppend], limits: LogLimits) -> list[StreamKey]:
    """Do what `SessionStore.append_events` promises."""
    return [one.key for one in appends if not _append(db, one, limits)]


def read(db: sqlite3.Connection, key: StreamKey, after: int, limit: int, now: float) -> StreamSlice | None:
    """Return the stream with its events beyond *after*; *now* is what owners have to be alive at."""
    rows = db.execute(_READ, (now, after, key.session_id, key.stream_id, limit)).fetchall()
    if not rows:
        return None
    return StreamSlice(_record_of(rows[0][:-4]), list(_events_of(rows)))


def is_small(db: sqlite3.Connection, key: StreamKey) -> bool:
    """Tell whether a stream can be read in the event loop."""
    row = db.execute(_LOOK, (0.0, key.session_id, key.stream_id)).fetchone()
    return row is None or row[-1] <= _SMALL


def has_news(db: sqlite3.Connection, key: StreamKey, after: int, now: float) -> bool:
    """Tell whether there is more to say of a stream than that nothing came after *after*."""
    row = db.execute(_LOOK, (now, key.session_id, key.stream_id)).fetchone()
    if row is None:
        return True
    record = _record_of(row[:-1])
    return record.last_position > after or record.is_ended or record.owner is None


def claim(db: sqlite3.Connection, key: StreamKey, owner: OwnerId, now: float) -> StreamRecord | None:
    """Do what `SessionStore.claim_stream` promises."""
    names = (key.session_id, key.stream_id)
    is_claimed = db.execute(_CLAIM, (owner, *names, owner, now)).rowcount
    row = db.execute(_LOOK, (now, *names)).fetchone()
    if row is None:
        return None
    record = _record_of(row[:-1])
    return attrs.evolve(record, owner=owner) if is_claimed else record


def renew(db: sqlite3.Connection, owner: OwnerId, alive_until: float, now: float) -> None:
    """Note until when an owner lives, and forget those that do not."""
    db.execute("INSERT OR REPLACE INTO owners (id, alive_until) VALUES (?, ?)", (owner, alive_until))
    db.execute("DELETE FROM owners WHERE alive_until <= ?", (now,))


def expire(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Drop some streams that ended; return how many."""
    return db.execute(_EXPIRE, (before, limit)).rowcount


def _append(db: sqlite3.Connection, append: StreamAppend, limits: LogLimits) -> bool:
    names = (append.key.session_id, append.key.stream_id)
    row = db.execute(_FIND, names).fetchone()
    if row is None:
        if not _begin(db, append, limits):
            return False
        row = db.execute(_FIND, names).fetchone()
    stream, owner, fence, last_position, *kept = row
    if (owner.decode(), fence) != (append.owner, append.fence):
        return False
    if append.newest_position >= last_position:
        _add(db, stream, append, last_position, _Kept(*kept), limits)
    return True


def _begin(db: sqlite3.Connection, append: StreamAppend, limits: LogLimits) -> bool:
    session_id, stream_id = append.key.session_id, append.key.stream_id
    row = (stream_id, append.owner, append.fence, append.kind.value, session_id)
    if not db.execute(_BEGIN, row).rowcount:
        return False
    (count,) = db.execute("SELECT count(*) FROM streams WHERE session_id = ?", (session_id,)).fetchone()
    if count > limits.max_streams:
        superfluous = db.execute(_SUPERFLUOUS, (session_id, stream_id, count - limits.max_streams)).fetchall()
        db.executemany("DELETE FROM streams WHERE id = ?", superfluous)
    return True


def _add(
    db: sqlite3.Connection, stream: int, append: StreamAppend, last_position: int, kept: _Kept, limits: LogLimits
) -> None:
    events = [event for event in append.events if event.position > last_position]
    if events:
        db.executemany(_ADD_EVENT, [(stream, e.position, e.upstream_id, e.block, e.recorded_at) for e in events])
        if not kept.count:
            kept.oldest_at = events[0].recorded_at
        kept.count += len(events)
        kept.size += sum(len(event.block) for event in events)
        if kept.exceeds(limits, events[-1].recorded_at):
            _trim(db, stream, kept, events[-1].recorded_at, limits)
    record = (append.kind.value, append.request_id, append.sent_id, append.newest_position, append.resume_id)
    flags = (append.is_ended, append.is_released, append.appended_at)
    db.execute(_UPDATE, (*record, *flags, kept.count, kept.size, kept.oldest_at, stream))


def _trim(db: sqlite3.Connection, stream: int, kept: _Kept, newest_at: float, limits: LogLimits) -> None:
    first = 0
    for position, size, recorded_at in db.execute(_SIZES, (stream,)):
        first, kept.oldest_at = position, recorded_at
        if not kept.exceeds(limits, newest_at):
            break
        kept.count -= 1
        kept.size -= size
    db.execute("DELETE FROM events WHERE stream = ? AND position < ?", (stream, first))


def _record_of(row: _Row) -> StreamRecord:
    session_id, stream_id, owner, fence, kind, request_id, sent_id, last_position, resume_id, is_ended = row
    try:
        return StreamRecord(
            key=StreamKey(SessionId(session_id.decode()), StreamId(stream_id.decode())),
            owner=None if owner is None else OwnerId(owner.decode()),
            fence=fence,
            kind=StreamKind(kind.decode()),
            request_id=request_id,
            sent_id=sent_id,
            last_position=last_position,
            resume_id=None if resume_id is None else resume_id.decode(),
            is_ended=bool(is_ended),
        )
    except ValueError as error:
        raise StoreCorrupt("a stored stream cannot be read; end its session") from error


def _events_of(rows: Sequence[_Row]) -> Iterator[StreamEvent]:
    for *_, position, upstream_id, block, recorded_at in rows:
        if position is not None:
            yield StreamEvent(position, None if upstream_id is None else upstream_id.decode(), block, recorded_at)
