"""Sessions in an SQLite file, which the proxies of one machine may share.

Writes go through a `Writer`.  Reads of one row run in the event loop: in WAL
mode they wait for no writer, and a thread costs fifteen times as much.  Others
run in a thread, on a connection of their own, one at a time.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import attrs
import trio

from ...envelope import Direction, MessageEnvelope
from ...errors import SessionConflict, SessionExists, SessionNotFound, StoreCorrupt, StoreUnavailable
from ..codec import decode_session, encode_session, with_activity
from ..model import Session, SessionId
from ..store import Activity, IdPage, SessionStore
from ..stream import LogLimits, OwnerId, StreamAppend, StreamId, StreamKey, StreamRecord, StreamSlice
from . import sqlite_streams as streams
from .sqlite_file import Connections, explain, is_busy, open_connections
from .sqlite_writer import CLOSED, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
_Row: TypeAlias = tuple[Any, ...]

_MAX_FRAMES: Final = 1000
_EXPIRED_AT_ONCE: Final = 100
"""Streams that one transaction drops."""

_LONGEST_WAIT: Final = 1.0
_LOOK_INTERVAL: Final = 0.02
"""Seconds between two looks at whether anybody has written to the file; one takes a few microseconds."""

_INSERT: Final = """
    INSERT INTO sessions (id, data, revision, last_activity, expires_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO NOTHING
"""
_COLUMNS: Final = "data, last_activity, expires_at"
_SELECT: Final = f"SELECT {_COLUMNS} FROM sessions WHERE id = ?"
_UPDATE: Final = """
    UPDATE sessions SET data = ?, revision = revision + 1 WHERE id = ? AND revision = ?
    RETURNING last_activity, expires_at
"""
_TOUCH: Final = """
    UPDATE sessions SET last_activity = max(last_activity, ?), expires_at = max(expires_at, ?) WHERE id = ?
"""
_EXPIRE: Final = f"""
    DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
    RETURNING {_COLUMNS}
"""
_STORE_EVENT_ID: Final = "UPDATE sessions SET last_event_id = ? WHERE id = ?"
_ADD_FRAME: Final = """
    INSERT INTO frames (session_id, seq, direction, message, recorded_at)
    SELECT id, 1 + coalesce((SELECT max(seq) FROM frames WHERE session_id = id), 0), ?, ?, ?
    FROM sessions WHERE id = ?
    RETURNING seq
"""


@attrs.frozen(kw_only=True)
class SqliteConfig:
    """A session store in a file.  Durations are in seconds."""

    path: Path = attrs.field(converter=Path)
    """The file: made, for its owner only, if there is none.  Two more appear beside it,
    with ``-wal`` and ``-shm`` at the end; copy or delete all three or none.  On a local disk."""

    busy_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0.0))
    """How long a transaction waits for those of other processes."""

    close_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0.0))
    """How long closing goes on writing what is queued."""


class SqliteStore(SessionStore):
    """Keep sessions in an SQLite file.  Made by `open_sqlite_store`.

    What is written survives the end of the process, however it ends; if the
    machine loses power, the last moments may be lost, and nothing else.
    """

    keeps_streams = True

    def __init__(self, connections: Connections, writer: Writer, close_timeout: float) -> None:
        self._connections = connections
        self._writer = writer
        self._close_timeout = close_timeout
        self._turns: WeakValueDictionary[SessionId, trio.Lock] = WeakValueDictionary()
        self._far_limiter = trio.CapacityLimiter(1)
        self._is_closed = False
        self._closed = trio.Event()

    async def create_session(self, session: Session) -> None:
        row = (
            session.id,
            encode_session(session).decode(),
            session.revision,
            session.last_activity,
            session.expires_at,
        )
        if not await self._writer.write(lambda db: db.execute(_INSERT, row).rowcount):
            raise SessionExists("a session with this id exists already")

    async def get_session(self, session_id: SessionId) -> Session:
        row = await self._look_up(_SELECT, session_id)
        if row is None:
            raise _not_found()
        return _session_of(row)

    async def update_session(self, session: Session) -> Session:
        updated = attrs.evolve(session, revision=session.revision + 1)
        row = (encode_session(updated).decode(), session.id, session.revision)

        def update(db: sqlite3.Connection) -> _Row:
            times: _Row | None = db.execute(_UPDATE, row).fetchone()
            if times is not None:
                return times
            if db.execute(_SELECT, (session.id,)).fetchone() is None:
                raise _not_found()
            raise SessionConflict("the session was updated elsewhere; read it again")

        return with_activity(updated, *await self._writer.write(update))

    async def delete_session(self, session_id: SessionId) -> None:
        # The frames go with it: ON DELETE CASCADE.
        if not await self._write_one("DELETE FROM sessions WHERE id = ?", session_id):
            raise _not_found()

    async def list_sessions(self) -> Sequence[Session]:
        return await self._read(lambda db: _sessions_of(db.execute(f"SELECT {_COLUMNS} FROM sessions")))

    async def list_session_ids(self, after: str | None = None, limit: int = 100) -> IdPage:
        sql = f"SELECT id FROM sessions WHERE id {'>=' if after is None else '>'} ? ORDER BY id LIMIT ?"
        rows = await self._read(lambda db: db.execute(sql, (after or "", limit)).fetchall())
        ids = [SessionId(row[0].decode()) for row in rows]
        return IdPage(ids, None if len(ids) < limit else ids[-1])

    async def count_sessions(self) -> int:
        return await self._count("SELECT count(*) FROM sessions")

    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        rows = [(activity.last_activity, activity.expires_at, activity.session_id) for activity in activities]
        await self._writer.write(lambda db: db.executemany(_TOUCH, rows).rowcount)

    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        return await self._writer.write(lambda db: _readable(db.execute(_EXPIRE, (now, limit)).fetchall()))

    async def add_frame(self, frame: MessageEnvelope) -> None:
        row = (frame.direction.value, frame.message, frame.recorded_at, frame.session_id)

        def add(db: sqlite3.Connection) -> None:
            added = db.execute(_ADD_FRAME, row).fetchone()
            if added is None:
                raise _not_found()
            db.execute(
                "DELETE FROM frames WHERE session_id = ? AND seq <= ?", (frame.session_id, added[0] - _MAX_FRAMES)
            )

        await self._writer.write(add)

    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        sql = "SELECT direction, message, recorded_at FROM frames WHERE session_id = ? ORDER BY seq"
        return await self._read(
            lambda db: [_frame_of(session_id, row) for row in db.execute(sql, (session_id,)).fetchall()]
        )

    async def delete_frames(self, session_id: SessionId) -> None:
        await self._write_one("DELETE FROM frames WHERE session_id = ?", session_id)

    async def count_frames(self, session_id: SessionId) -> int:
        return await self._count("SELECT count(*) FROM frames WHERE session_id = ?", session_id)

    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        if not await self._write_one(_STORE_EVENT_ID, event_id, session_id):
            raise _not_found()

    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        row = await self._look_up("SELECT last_event_id FROM sessions WHERE id = ?", session_id)
        if row is None:
            raise _not_found()
        return None if row[0] is None else row[0].decode()

    async def append_events(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        return await self._writer.write(lambda db: streams.append(db, appends, limits))

    async def read_events(
        self, session_id: SessionId, stream_id: StreamId, after: int, limit: int = 100
    ) -> StreamSlice | None:
        key = StreamKey(session_id, stream_id)
        read = partial(streams.read, key=key, after=after, limit=limit, now=time.time())
        is_small = await self._look(lambda db: streams.is_small(db, key))
        return await (self._look(read) if is_small else self._read(read))

    async def claim_stream(self, session_id: SessionId, stream_id: StreamId, owner: OwnerId) -> StreamRecord | None:
        key = StreamKey(session_id, stream_id)
        return await self._writer.write(lambda db: streams.claim(db, key, owner, time.time()))

    async def renew_owner(self, owner: OwnerId, ttl: float) -> None:
        now = time.time()
        await self._writer.write(lambda db: streams.renew(db, owner, now + ttl, now))

    async def expire_streams(self, before: float) -> int:
        dropped = some = await self._writer.write(lambda db: streams.expire(db, before, _EXPIRED_AT_ONCE))
        while some == _EXPIRED_AT_ONCE:
            some = await self._writer.write(lambda db: streams.expire(db, before, _EXPIRED_AT_ONCE))
            dropped += some
        return dropped

    async def wait_events(self, session_id: SessionId, stream_id: StreamId, after: int) -> None:
        key, seen, has_news = StreamKey(session_id, stream_id), None, False
        with trio.move_on_after(_LONGEST_WAIT):
            while not has_news:
                await trio.sleep(_LOOK_INTERVAL)
                version = await self._look_up("PRAGMA data_version")
                if version != seen:
                    seen = version
                    has_news = await self._look(lambda db: streams.has_news(db, key, after, time.time()))

    async def get_sessions_batch(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        """Return those of the sessions that exist, in the order asked for.  Atomic."""
        sql = f"SELECT {_COLUMNS} FROM sessions WHERE id IN (SELECT value FROM json_each(?))"
        asked = json.dumps(list(session_ids))
        found = {
            session.id: session for session in await self._read(lambda db: _sessions_of(db.execute(sql, (asked,))))
        }
        return [found[session_id] for session_id in session_ids if session_id in found]

    async def update_sessions_batch(self, sessions: Sequence[Session]) -> Sequence[SessionId]:
        """Update each session as `update_session` does; return the ids that were not.  Atomic."""
        rows = [
            (
                encode_session(attrs.evolve(session, revision=session.revision + 1)).decode(),
                session.id,
                session.revision,
            )
            for session in sessions
        ]
        return await self._writer.write(
            lambda db: [row[1] for row in rows if db.execute(_UPDATE, row).fetchone() is None]
        )

    async def store_event_ids_batch(self, event_ids: Sequence[tuple[SessionId, str]]) -> Sequence[SessionId]:
        """Store the newest event id of each session; return the ids of sessions that are gone.  Atomic."""
        pairs = list(event_ids)
        return await self._writer.write(
            lambda db: [
                session_id
                for session_id, event_id in pairs
                if not db.execute(_STORE_EVENT_ID, (event_id, session_id)).rowcount
            ]
        )

    async def modify(self, session_id: SessionId, change: Callable[[Session], Session]) -> Session:
        # Those of this process take turns.  In one transaction all but the first
        # would fail, and the first, told first, would be the first again.
        turn = self._turns.setdefault(session_id, trio.Lock())
        async with turn:
            return await super().modify(session_id, change)

    async def aclose(self) -> None:
        """Write what is pending and close the file.  Safe to call twice.

        Takes ``close_timeout`` at most, and the transaction that is under way then;
        it is not cut short by cancelling.
        """
        with trio.CancelScope(shield=True):
            if self._is_closed:
                await self._closed.wait()
                return
            self._is_closed = True
            await self._writer.stop(trio.current_time() + self._close_timeout)
            self._connections.far.interrupt()
            await trio.to_thread.run_sync(self._connections.close, limiter=self._far_limiter)
            self._closed.set()

    async def _write_one(self, sql: str, *parameters: object) -> int:
        """Return how many rows it changed."""
        return await self._writer.write(lambda db: db.execute(sql, parameters).rowcount)

    async def _look_up(self, sql: str, *parameters: object) -> _Row | None:
        return await self._look(lambda db: db.execute(sql, parameters).fetchone())

    async def _look(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read what is little, in the event loop."""
        if self._is_closed:
            raise StoreUnavailable(CLOSED)
        try:
            return read(self._connections.near)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise explain(error) from error
        # Seldom: another process died while it wrote, and somebody is mending the file.
        return await self._read(read)

    async def _count(self, sql: str, *parameters: object) -> int:
        row = await self._look_up(sql, *parameters)
        assert row is not None
        return int(row[0])

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        def read_if_open() -> T:
            if self._is_closed:
                raise StoreUnavailable(CLOSED)
            return read(self._connections.far)

        try:
            # Abandoned, it keeps the limiter until it is through.
            return await trio.to_thread.run_sync(read_if_open, abandon_on_cancel=True, limiter=self._far_limiter)
        except sqlite3.Error as error:
            raise explain(error) from error


@asynccontextmanager
async def open_sqlite_store(config: SqliteConfig) -> AsyncGenerator[SqliteStore, None]:
    """Open the file of a `SqliteStore`, and close it at the end of the block.

    Cancelling does not end the store, only the end of the block does: whoever is
    cancelled inside can still write, and what is queued is written at the end.

    Raises:
        ConfigError: There can be no such file.
        StoreCorrupt: The file is not ours, damaged, or of a newer version; it was left untouched.
        StoreUnavailable: It is locked, or the disk fails.
    """
    connections = await trio.to_thread.run_sync(open_connections, config.path, config.busy_timeout)
    writer = Writer(connections.writing)
    store = SqliteStore(connections, writer, config.close_timeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        try:
            yield store
        finally:
            await store.aclose()


def _not_found() -> SessionNotFound:
    return SessionNotFound("no such session; send initialize, without Mcp-Session-Id, to open another")


def _session_of(row: _Row) -> Session:
    data, last_activity, expires_at = row
    return with_activity(decode_session(data), last_activity, expires_at)


def _sessions_of(cursor: sqlite3.Cursor) -> list[Session]:
    # All rows first: the snapshot they come from keeps the -wal file from being reused.
    return [_session_of(row) for row in cursor.fetchall()]


def _readable(rows: Sequence[_Row]) -> list[Session]:
    """Return the sessions in *rows*, but those that cannot be read."""
    sessions = []
    for row in rows:
        try:
            sessions.append(_session_of(row))
        except StoreCorrupt as error:
            # It is deleted all the same: left there, no session would expire any more.
            log.warning("an expired session could not be read: %s", error)
    return sessions


def _frame_of(session_id: SessionId, row: _Row) -> MessageEnvelope:
    direction, message, recorded_at = row
    try:
        return MessageEnvelope(session_id, Direction(direction.decode()), message, recorded_at)
    except ValueError as error:
        raise StoreCorrupt("a stored frame cannot be read; delete the frames of its session") from error
