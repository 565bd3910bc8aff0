"""The event streams of this process: begun here, or taken over from another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from ..errors import EventsLost
from .event_stream import EventStream
from .events import Cursor, LogEntry, ResumePoint, new_stream_id
from .lease import OwnerLease
from .model import Session, SessionId, epoch_of
from .presence import Presence, Presences
from .store import SessionStore
from .stream import LogLimits, Ownership, StreamEvent, StreamId, StreamKey, StreamKind, StreamRecord

log = logging.getLogger(__name__)

_FEW = 32
"""Streams without a client that may hold what they like: a megabyte each."""

_LOST = (
    "events after this Last-Event-ID are no longer kept, and the upstream cannot send them again; "
    "open a stream without it, and check what became of requests that were not answered"
)


@attrs.frozen(kw_only=True)
class StreamConfig:
    """How long streams outlive their connections, and what is kept of them."""

    limits: LogLimits = attrs.field(factory=LogLimits)

    linger: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))
    """Seconds that the upstream is still read for a client that has gone."""

    lease_timeout: float = attrs.field(default=3.0, validator=attrs.validators.gt(0))
    """Seconds after which other proxies take over the streams of one that has died."""

    max_left: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Streams that are read for clients that have gone, in all sessions; beyond, the oldest are parked at once."""

    max_resting_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=attrs.validators.ge(0))
    """Bytes of memory for streams that have ended or are parked, for clients that come back late; as much
    again for those that are read for clients that have gone."""


@attrs.frozen
class StreamStatistics:
    """What became of streams so far."""

    open: int
    """Streams that are read from the upstream, with or without a client."""
    left: int
    """Of those, the ones whose client has left and may come back."""
    kept: int
    """Streams that have ended or are parked, and can still be asked for."""
    kept_bytes: int
    """Bytes of memory that those take."""
    opened: int
    resumed: int
    """Times that a client came back for the rest of one."""
    claimed: int
    """Taken over from another process, or from this one after a rest."""
    reconnected: int
    """Times that the upstream went on with one."""
    events: int
    """Events that came from the upstream, each once."""
    duplicates: int
    """Events that the upstream sent twice."""
    losses: int
    """Clients that were told that events are lost."""


class SessionStreams:
    """Begins, finds, takes over and forgets streams.  Starts nothing.

    Args:
        mark: Called when a stream has something to store.
        now: The time that events are recorded at.
    """

    def __init__(
        self,
        store: SessionStore,
        config: StreamConfig,
        lease: OwnerLease,
        presences: Presences,
        mark: Callable[[EventStream], None],
        now: Callable[[], float],
    ) -> None:
        self.config = config
        self.events = 0
        self.duplicates = 0
        self.resumed = 0
        self.reconnected = 0
        self._store = store
        self._lease = lease
        self._presences = presences
        self._mark = mark
        self._now = now
        self._resting: dict[StreamKey, int] = {}
        """The bytes counted for each stream that has ended or is parked, in the order they came to rest."""
        self._resting_bytes = 0
        self._left: dict[StreamKey, EventStream] = {}
        """Streams that lost their client, in that order; some may have found another, or have ended."""
        self._tails: dict[StreamKey, trio.CancelScope] = {}
        self._opened = self._claimed = self._losses = 0

    def statistics(self) -> StreamStatistics:
        """Return a snapshot."""
        total = sum(len(presence.streams) for presence in self._presences)
        return StreamStatistics(
            open=total - len(self._resting),
            left=sum(stream.is_left for stream in self._left.values()),
            kept=len(self._resting),
            kept_bytes=self._resting_bytes,
            opened=self._opened,
            resumed=self.resumed,
            claimed=self._claimed,
            reconnected=self.reconnected,
            events=self.events,
            duplicates=self.duplicates,
            losses=self._losses,
        )

    def begin(
        self, session: Session, kind: StreamKind, request_id: bytes | None = None, sent_id: bytes | None = None
    ) -> EventStream:
        """Return a new stream of *session*, which this process owns."""
        self._opened += 1
        key = StreamKey(session.id, new_stream_id(kind))
        stream = self._make(
            key, kind, Ownership(owner=self._lease.owner), epoch_of(session), request_id=request_id, sent_id=sent_id
        )
        return self._put(session, stream)

    def of(self, session: Session) -> Iterable[EventStream]:
        """Return the streams of *session* that are here."""
        return list(self._streams_of(session.id).values())

    def all(self) -> Iterator[EventStream]:
        """Yield every stream that is read from the upstream."""
        for presence in self._presences:
            for stream in presence.streams.values():
                if not stream.is_resting:
                    yield stream

    def keys(self) -> Sequence[StreamKey]:
        """Return which streams are here now, those that have ended or are parked too."""
        return [stream.key for presence in self._presences for stream in presence.streams.values()]

    def get(self, key: StreamKey) -> EventStream | None:
        """Return a stream if it is here."""
        return self._streams_of(key.session_id).get(key.stream_id)

    def find(self, session: Session, cursor: Cursor) -> EventStream | None:
        """Return the stream of *cursor* if it is here and goes on from there; None if not."""
        stream = self._streams_of(session.id).get(cursor.stream_id)
        if stream is None or stream.is_fenced or stream.is_parked or cursor.position > stream.log.position:
            return None
        if not stream.is_ended and stream.presence.cancel_called:
            return None  # it is about to be parked
        return None if stream.log.find(cursor.position) is None else stream

    async def claim(self, session: Session, cursor: Cursor) -> EventStream | None:
        """Take over the stream of *cursor*, so that it goes on from there; None while another proxy has it.

        A stream of this process that was parked, or does not reach back far enough, is
        replaced by one that does.  A checkpoint; if cancelled, the stream may be
        claimed without being here, and can be claimed again.

        Raises:
            EventsLost: Not all events after the cursor can be had.
            StoreError: The store cannot be asked.
        """
        await self._lease.ensure()
        record = await self._store.claim_stream(session.id, cursor.stream_id, self._lease.owner)
        if record is not None and record.owner != self._lease.owner:
            return None
        live = self._streams_of(session.id).get(cursor.stream_id)
        if record is not None and live is not None:
            # It goes on if it cannot be replaced.
            live.ownership = Ownership(owner=self._lease.owner, fence=max(record.fence, live.ownership.fence))
        stored = [] if record is None else await self._read_all(record, cursor.position)
        # No waiting from here on: nobody else must come to the same stream meanwhile.
        known = _Known(record, self._presences.of(session).streams.get(cursor.stream_id), stored)
        stream = self._restore(session, cursor, known)
        self._claimed += 1
        return self._put(session, stream)

    @contextmanager
    def tailing(self, session: Session, stream_id: StreamId) -> Generator[None, None, None]:
        """Read a stream that another proxy has; one client at a time, the newer takes over."""
        key = StreamKey(session.id, stream_id)
        if (older := self._tails.get(key)) is not None:
            older.cancel()
        with trio.CancelScope() as scope:
            self._tails[key] = scope
            try:
                yield
            finally:
                if self._tails.get(key) is scope:
                    del self._tails[key]

    def lost(self) -> EventsLost:
        """Return what a client is told whose events are gone, and count it."""
        self._losses += 1
        return EventsLost(_LOST)

    def note_rest(self, stream: EventStream) -> None:
        """Keep a stream that has ended or is parked, within bounds."""
        if (
            stream.key in self._resting
            or self._streams_of(stream.key.session_id).get(stream.key.stream_id) is not stream
        ):
            return
        size = self._resting[stream.key] = stream.log.footprint
        self._resting_bytes += size
        siblings = self._streams_of(stream.key.session_id)
        if len(siblings) > self.config.limits.max_streams:
            self._drop(next(other for other in siblings.values() if other.key in self._resting))
        while self._resting_bytes > self.config.max_resting_bytes:
            self._drop_resting(next(iter(self._resting)))

    def sweep(self) -> None:
        """Drop what is too old."""
        now = self._now()
        for key in list(self._resting):
            if self._streams_of(key.session_id)[key.stream_id].rested_at > now - self.config.limits.max_age:
                break
            self._drop_resting(key)
        for stream in self.all():
            stream.log.trim(now)

    def drop(self, stream: EventStream) -> None:
        """Give a stream up here; whoever comes back for it has it taken over anew."""
        if self._streams_of(stream.key.session_id).get(stream.key.stream_id) is stream:
            self._drop(stream)

    def forget(self, presence: Presence) -> list[StreamKey]:
        """Give up the streams of a session that has ended; return which they were."""
        streams = list(presence.streams.values())
        for stream in streams:
            stream.note_refused()
            self._resting_bytes -= self._resting.pop(stream.key, 0)
        presence.streams.clear()
        return [stream.key for stream in streams]

    async def _read_all(self, record: StreamRecord, position: int) -> list[StreamEvent]:
        """Return the stored events beyond *position*, as far as there is no gap before them."""
        events: list[StreamEvent] = []
        while True:
            after = events[-1].position if events else position
            page = await self._store.read_events(record.key.session_id, record.key.stream_id, after)
            if page is None or not page.events:
                return events
            events.extend(page.events)

    def _restore(self, session: Session, cursor: Cursor, known: _Known) -> EventStream:
        """Make a stream anew from what is known of it; see `claim`."""
        events = known.events_after(cursor.position)
        is_whole = known.is_any and len(events) == max(known.position - cursor.position, 0)
        resume, position, is_ended = known.resume, known.position, known.is_ended
        if cursor.resume is not None and (not is_whole or cursor.position > position):
            # The client knows more than the store, or the store has dropped what the client
            # has not seen: the upstream is asked from where the client is.
            resume, events, position, is_ended = cursor.resume, [], max(cursor.position, position), False
        elif not is_whole or (
            cursor.kind is StreamKind.ANSWER and cursor.position > position and (is_ended or resume is None)
        ):
            raise self.lost()
        elif resume is None:
            # Nothing will be repeated, so what comes must not be counted like what the client has seen.
            position = max(cursor.position, position)
        stream = self._make(
            StreamKey(session.id, cursor.stream_id),
            cursor.kind,
            Ownership(owner=self._lease.owner, fence=known.fence),
            epoch_of(session) if resume is None else resume.epoch,
            position=position - len(events),
            resume=resume,
            request_id=known.request_id,
            sent_id=known.sent_id,
        )
        for event in events:
            stream.log.append(LogEntry(event, epoch=stream.epoch))
            if event.upstream_id is not None:
                stream.tracker.record(event.upstream_id)
        stream.is_cancelled = known.is_cancelled
        if is_ended:
            stream.last_position = known.last_position
            stream.end(self._now())
        return stream

    def _make(
        self,
        key: StreamKey,
        kind: StreamKind,
        ownership: Ownership,
        epoch: int,
        *,
        position: int = 0,
        resume: ResumePoint | None = None,
        request_id: bytes | None = None,
        sent_id: bytes | None = None,
    ) -> EventStream:
        return EventStream(
            key,
            kind,
            self.config.limits,
            ownership,
            position=position,
            resume=resume,
            epoch=epoch,
            request_id=request_id,
            sent_id=sent_id,
            linger=self.config.linger,
            mark=self._mark,
            left=self._note_left,
        )

    def _put(self, session: Session, stream: EventStream) -> EventStream:
        streams = self._presences.of(session).streams
        if (old := streams.get(stream.key.stream_id)) is not None:
            self._drop(old)
        streams[stream.key.stream_id] = stream
        if stream.is_ended:
            self.note_rest(stream)
        return stream

    def _note_left(self, stream: EventStream) -> None:
        """Bound what is read for clients that have gone: what lost its client first is parked."""
        if stream.is_resting:
            return
        if self._left.get(stream.key) is not stream:
            self._left.pop(stream.key, None)
            self._left[stream.key] = stream
        if len(self._left) > self.config.max_left:
            self._left = {key: other for key, other in self._left.items() if other.is_left}
        held = sum(other.log.footprint for other in self._left.values()) if len(self._left) > _FEW else 0
        while len(self._left) > self.config.max_left or (held > self.config.max_resting_bytes and self._left):
            oldest = self._left.pop(next(iter(self._left)))
            held -= oldest.log.footprint
            if oldest.is_left:
                oldest.presence.cancel()

    def _streams_of(self, session_id: SessionId) -> dict[StreamId, EventStream]:
        presence = self._presences.get(session_id)
        return {} if presence is None else presence.streams

    def _drop_resting(self, key: StreamKey) -> None:
        self._drop(self._streams_of(key.session_id)[key.stream_id])

    def _drop(self, stream: EventStream) -> None:
        if not stream.is_ended:  # else a client may be reading the rest
            stream.note_refused()
        self._resting_bytes -= self._resting.pop(stream.key, 0)
        self._streams_of(stream.key.session_id).pop(stream.key.stream_id, None)


class _Known:
    """What is known of a stream that is taken over: by the store, and by this process from before."""

    def __init__(self, record: StreamRecord | None, old: EventStream | None, stored: Sequence[StreamEvent]) -> None:
        if old is not None and (old.is_fenced or (record is not None and record.last_position > old.log.position)):
            old = None  # somebody else had it since
        self.old = old
        self.last_position = None if record is None or not record.is_ended else record.last_position
        self.is_cancelled = False
        self._stored = stored
        self.is_any = record is not None or old is not None
        # Of two claims here at once, the one that reached the store last may return first.
        self.fence = max(1 if record is None else record.fence, 1 if old is None else old.ownership.fence)
        if old is not None:
            self.position, self.resume, self.is_ended = old.log.position, old.resume, old.is_ended
            self.request_id, self.sent_id = old.request_id, old.sent_id
            self.last_position, self.is_cancelled = old.last_position, old.is_cancelled
        elif record is not None:
            self.position, self.resume = record.last_position, ResumePoint.decode(record.resume_id)
            self.request_id, self.sent_id, self.is_ended = record.request_id, record.sent_id, record.is_ended
        else:
            self.position, self.resume, self.is_ended = 0, None, False
            self.request_id = self.sent_id = None

    def events_after(self, position: int) -> Sequence[StreamEvent]:
        if self.old is not None:
            return self.old.log.events_after(position)
        return [event for event in self._stored if event.position <= self.position]
