"""Sessions in this process's memory: the default."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import attrs
import trio

from ...envelope import MessageEnvelope
from ...errors import SessionConflict, SessionExists, SessionNotFound
from ..model import Session, SessionId
from ..store import Activity, IdPage, SessionStore
from ..stream import LogLimits, OwnerId, StreamAppend, StreamEvent, StreamId, StreamKey, StreamRecord, StreamSlice

_MAX_FRAMES = 1000

# No method here is a checkpoint: each is a dictionary operation that cannot wait,
# and a checkpoint costs more than the whole look-up (measured: 5 us against 0.2).


@attrs.define(eq=False)
class _Stream:
    newest: StreamAppend
    events: deque[StreamEvent] = attrs.field(factory=deque)
    size: int = 0

    def take(self, append: StreamAppend, limits: LogLimits) -> None:
        last = self.newest.last_position
        if append.newest_position < last:
            return
        for event in append.events:
            if event.position > last:
                self.events.append(event)
                self.size += len(event.block)
        self.newest = attrs.evolve(
            append,
            events=(),
            last_position=append.newest_position,
            is_ended=append.is_ended or self.newest.is_ended,
        )
        self._trim(limits)

    def _trim(self, limits: LogLimits) -> None:
        while len(self.events) > 1 and (
            len(self.events) > limits.max_events
            or self.size > limits.max_bytes
            or self.events[0].recorded_at < self.events[-1].recorded_at - limits.max_age
        ):
            self.size -= len(self.events.popleft().block)


@attrs.define(eq=False)
class _Entry:
    session: Session
    frames: deque[MessageEnvelope] = attrs.field(factory=lambda: deque(maxlen=_MAX_FRAMES))
    last_event_id: str | None = None
    streams: dict[StreamId, _Stream] = attrs.field(factory=dict)
    due: float = 0.0
    """The time under which the entry stands in the queue of expiries."""
    number: int = 0
    """Counts sessions as they are created."""

    def add_stream(self, stream_id: StreamId, stream: _Stream, limits: LogLimits) -> None:
        while len(self.streams) >= limits.max_streams:
            ended = (key for key, other in self.streams.items() if other.newest.is_ended)
            del self.streams[next(ended, next(iter(self.streams)))]
        self.streams[stream_id] = stream


class InMemoryStore(SessionStore):
    """Keep sessions in a dictionary; they are gone when the process ends.

    Args:
        keeps_streams: Whether event streams are kept too.  One proxy has no use for
            that, since it has its own in memory; several in this process do.
    """

    keeps_streams = True

    def __init__(self, *, keeps_streams: bool | None = None) -> None:
        if keeps_streams is not None:
            self.keeps_streams = keeps_streams
        self._alive_until: dict[OwnerId, float] = {}
        """By trio's clock."""
        self._entries: dict[SessionId, _Entry] = {}
        self._due: list[tuple[float, SessionId]] = []
        """A heap; an entry that was touched since is put back when its turn comes."""
        self._numbers = itertools.count(1)
        self._order: list[tuple[int, SessionId]] = []
        """Every session by its number, and some that are gone."""

    async def create_session(self, session: Session) -> None:
        if session.id in self._entries:
            raise SessionExists("a session with this id exists already")
        self._entries[session.id] = entry = _Entry(session, number=next(self._numbers))
        self._order.append((entry.number, session.id))
        if len(self._order) > 2 * len(self._entries) + 64:
            self._order = [(kept.number, session_id) for session_id, kept in self._entries.items()]
        self._queue(session)

    async def get_session(self, session_id: SessionId) -> Session:
        return self._entry(session_id).session

    async def update_session(self, session: Session) -> Session:
        entry = self._entry(session.id)
        stored = entry.session
        if stored.revision != session.revision:
            raise SessionConflict("the session was updated elsewhere; read it again")
        entry.session = attrs.evolve(
            session,
            revision=session.revision + 1,
            last_activity=stored.last_activity,
            expires_at=stored.expires_at,
        )
        return entry.session

    async def delete_session(self, session_id: SessionId) -> None:
        self._entry(session_id)
        del self._entries[session_id]

    async def list_sessions(self) -> Sequence[Session]:
        return [entry.session for entry in self._entries.values()]

    async def list_session_ids(self, after: str | None = None, limit: int = 100) -> IdPage:
        start = bisect_right(self._order, int(after or 0), key=lambda pair: pair[0])
        there = (pair for pair in itertools.islice(self._order, start, None) if self._is_there(*pair))
        page = list(itertools.islice(there, limit))
        is_last = next(there, None) is None
        return IdPage([session_id for _, session_id in page], None if is_last else str(page[-1][0]))

    def _is_there(self, number: int, session_id: SessionId) -> bool:
        entry = self._entries.get(session_id)
        return entry is not None and entry.number == number

    async def count_sessions(self) -> int:
        return len(self._entries)

    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        for activity in activities:
            entry = self._entries.get(activity.session_id)
            if entry is not None:
                entry.session = attrs.evolve(
                    entry.session,
                    last_activity=max(entry.session.last_activity, activity.last_activity),
                    expires_at=max(entry.session.expires_at, activity.expires_at),
                )

    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        expired: list[Session] = []
        while self._due and self._due[0][0] <= now and len(expired) < limit:
            due, session_id = heapq.heappop(self._due)
            entry = self._entries.get(session_id)
            if entry is None or entry.due != due:
                continue
            if entry.session.expires_at > now:
                self._queue(entry.session)
                continue
            expired.append(entry.session)
            del self._entries[session_id]
        return expired

    async def add_frame(self, frame: MessageEnvelope) -> None:
        self._entry(SessionId(frame.session_id)).frames.append(frame)

    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        entry = self._entries.get(session_id)
        return list(entry.frames) if entry is not None else []

    async def delete_frames(self, session_id: SessionId) -> None:
        if session_id in self._entries:
            self._entries[session_id].frames.clear()

    async def count_frames(self, session_id: SessionId) -> int:
        entry = self._entries.get(session_id)
        return len(entry.frames) if entry is not None else 0

    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        self._entry(session_id).last_event_id = event_id

    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        return self._entry(session_id).last_event_id

    async def append_events(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        return [append.key for append in appends if not self._append(append, limits)]

    def _append(self, append: StreamAppend, limits: LogLimits) -> bool:
        entry = self._entries.get(append.key.session_id)
        if entry is None:
            return False
        stream = entry.streams.get(append.key.stream_id)
        if stream is None:
            stream = _Stream(attrs.evolve(append, events=(), last_position=0))
            entry.add_stream(append.key.stream_id, stream, limits)
        elif (stream.newest.owner, stream.newest.fence) != (append.owner, append.fence):
            return False
        stream.take(append, limits)
        return True

    async def read_events(
        self, session_id: SessionId, stream_id: StreamId, after: int, limit: int = 100
    ) -> StreamSlice | None:
        stream = self._stream(session_id, stream_id)
        if stream is None:
            return None
        events = [event for event in stream.events if event.position > after][:limit]
        return StreamSlice(self._record(stream.newest), events)

    async def claim_stream(self, session_id: SessionId, stream_id: StreamId, owner: OwnerId) -> StreamRecord | None:
        stream = self._stream(session_id, stream_id)
        if stream is None:
            return None
        if self._record(stream.newest).owner in (None, owner):
            fence = stream.newest.fence + 1
            stream.newest = attrs.evolve(stream.newest, owner=owner, fence=fence, is_released=False)
            return attrs.evolve(self._record(stream.newest), owner=owner)
        return self._record(stream.newest)

    async def renew_owner(self, owner: OwnerId, ttl: float) -> None:
        now = trio.current_time()
        for dead in [known for known, until in self._alive_until.items() if until <= now]:
            del self._alive_until[dead]
        self._alive_until[owner] = now + ttl

    async def expire_streams(self, before: float) -> int:
        expired = 0
        for entry in self._entries.values():
            over = [key for key, s in entry.streams.items() if s.newest.is_ended and s.newest.appended_at < before]
            for stream_id in over:
                del entry.streams[stream_id]
            expired += len(over)
        return expired

    def _stream(self, session_id: SessionId, stream_id: StreamId) -> _Stream | None:
        entry = self._entries.get(session_id)
        return None if entry is None else entry.streams.get(stream_id)

    def _record(self, newest: StreamAppend) -> StreamRecord:
        is_alive = not newest.is_released and self._alive_until.get(newest.owner, 0.0) > trio.current_time()
        return StreamRecord(
            key=newest.key,
            owner=newest.owner if is_alive else None,
            fence=newest.fence,
            kind=newest.kind,
            request_id=newest.request_id,
            sent_id=newest.sent_id,
            last_position=newest.last_position,
            resume_id=newest.resume_id,
            is_ended=newest.is_ended,
        )

    async def aclose(self) -> None:
        """Do nothing: the sessions last as long as the object."""

    def _entry(self, session_id: SessionId) -> _Entry:
        try:
            return self._entries[session_id]
        except KeyError:
            raise SessionNotFound("no such session; send initialize, without Mcp-Session-Id, to open another") from None

    def _queue(self, session: Session) -> None:
        self._entries[session.id].due = session.expires_at
        heapq.heappush(self._due, (session.expires_at, session.id))
