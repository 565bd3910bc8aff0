"""A stream in this process: written by whoever reads the upstream, read by one client at a time.

Writing and reading meet in the log.  All of both is synchronous but for the waits,
so there is no moment in which an event is neither in the log for a client that
comes back nor among those that a present one has yet to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from .events import Cursor, EventLog, EventTracker, LogEntry, ResumePoint
from .stream import LogLimits, Ownership, StreamAppend, StreamEvent, StreamKey, StreamKind, first_of

_WINDOW = 256 * 1024
"""Bytes that a client may be behind before the upstream is no longer read."""

_MAX_BEHIND = 256
"""As `_WINDOW`, in events."""

_READ = 64
"""Entries that are given to a client at once."""

_ARRIVAL = 10.0
"""Seconds that a new stream waits for its client to arrive, if it lingers for less."""


class Reader:
    """One client's place in a stream."""

    def __init__(self, stream: EventStream, number: int) -> None:
        self._stream = stream
        self.number = max(number, stream.log.first)
        """Of the next entry."""
        self.unread = sum(len(entry.event.block) for entry in stream.log.read(number, stream.log.end))
        """Bytes of the entries that are still to be taken."""
        self._is_within = False
        """Whether the last entry taken was a part, and more of it comes."""
        self.scope = trio.CancelScope()
        """Cancelled when another client takes over, or the stream may be read here no more."""

    @property
    def is_at_end(self) -> bool:
        """Whether there is nothing more to read, now or later."""
        return self._stream.is_ended and self.number >= self._stream.log.end

    @property
    def has_entries(self) -> bool:
        """Whether there is something to take now."""
        return self.number < self._stream.log.end

    @property
    def is_behind(self) -> bool:
        """Whether the upstream should wait for this client."""
        return self.unread > _WINDOW or self._stream.log.end - self.number > _MAX_BEHIND

    def take(self) -> Sequence[LogEntry]:
        """Return the next entries; those before count as delivered.  Empty if there are none now."""
        stream = self._stream
        stream.delivered = max(stream.delivered, self.number)
        entries = stream.log.read(self.number, _READ)
        self.number += len(entries)
        self.unread -= sum(len(entry.event.block) for entry in entries)
        stream.make_room(self)
        if entries and entries[0].event.position <= stream.seen:
            # The upstream repeats what this client has seen before it came: but not the last,
            # after which it would have nothing to come back for.
            last = stream.last_position
            entries = [entry for entry in entries if entry.event.position > stream.seen or entry.event.position == last]
        return self._whole(entries) if stream.has_parts else entries

    def _whole(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Leave out parts of an event whose beginning this client did not get."""
        found = []
        for entry in entries:
            if entry.begins or self._is_within:
                self._is_within = not entry.ends
                found.append(entry)
        return found

    async def wait(self) -> None:
        """Return when there is something to take, nothing more will come, or the stream is woken.  A checkpoint."""
        if self.has_entries or self._stream.is_ended:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.wait_news()


class EventStream:
    """A stream that this process has: its newest events, its state, and its client if one is there.

    Args:
        position: That of the newest event there has been.
        linger: Seconds that the upstream is read while no client is there.
        mark: Called when there is something to store.
        left: Called when a client has gone and no other has come.
    """

    retry: int | None = None
    """Milliseconds after which the upstream wants to be asked again, if it said so."""
    last_position: int | None = None
    """That of the answer, or of the error in its place; None before."""
    has_parts: bool = False
    """Whether an event came in parts, because it is too long."""
    seen: int = 0
    """The position up to which its client, when it came, had seen all: the upstream may have yet to repeat some."""
    is_settled: bool = False
    """Whether it is known that there is something to be had: from the upstream, or at its end."""
    is_cancelled: bool = False
    """Whether the client no longer wants the answer, which may then never come."""
    is_error: bool = False
    """Whether what was published as the answer is an error."""
    failure: Exception | None = None
    """Why it ended before its time."""
    is_ended: bool = False
    is_delivered: bool = False
    """Whether a client has been written everything, after the end."""
    is_fenced: bool = False
    """Whether another process has the stream now, or its session is over."""
    is_parked: bool = False
    """Whether the upstream is no longer read, because no client was there for long."""
    is_lost: bool = False
    """Whether it cannot go on, and who comes back for it is to be told so."""

    def __init__(
        self,
        key: StreamKey,
        kind: StreamKind,
        limits: LogLimits,
        ownership: Ownership,
        *,
        position: int = 0,
        resume: ResumePoint | None = None,
        epoch: int = 0,
        request_id: bytes | None = None,
        sent_id: bytes | None = None,
        linger: float = 60.0,
        mark: Callable[[EventStream], None] = lambda stream: None,
        left: Callable[[EventStream], None] = lambda stream: None,
    ) -> None:
        self.key = key
        self.kind = kind
        self.ownership = ownership
        self.log = EventLog(limits, position)
        self.tracker = EventTracker(limits.max_events)
        self.resume = resume
        """Where the upstream can go on; None if it gave no id, or has lost what it stood for."""
        self.epoch = epoch
        """Which upstream session of the session is read."""
        self.request_id = request_id
        self.sent_id = sent_id
        self.presence = trio.CancelScope(deadline=trio.current_time() + max(linger, _ARRIVAL))
        """For reading the upstream: cancelled when no client has been there for long."""
        self.rested_at = math.inf
        self.delivered = 0
        """The number of the first entry that no client has been written yet."""
        self._linger = linger
        self._mark = mark
        self._on_left = left
        self._unattended = 0
        self._reader: Reader | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._stored: StreamAppend | None = None
        self._resume_id = None if resume is None else resume.encode()
        """That which the store has, or should have."""
        self._is_marked = False
        self.mark()

    # The upstream's side.

    def publish(
        self,
        block: bytes,
        upstream_id: str | None,
        now: float,
        *,
        begins: bool = True,
        ends: bool = True,
        is_last: bool = False,
    ) -> None:
        """Add an event, or a part of one.

        Args:
            is_last: Whether it is the answer, or an error in its place.
        """
        position = self.log.position + begins
        if upstream_id is not None:
            self.resume = ResumePoint(self.epoch, upstream_id)
        if is_last:
            self.last_position = position
        event = StreamEvent(position, upstream_id, block, now)
        self.has_parts |= not (begins and ends)
        self.log.append(LogEntry(event, begins, ends, self.epoch))
        if self._reader is not None:
            self._reader.unread += len(block)
        else:
            self._note_unattended(len(block))
        self._notify()

    def _note_unattended(self, size: int) -> None:
        """Have it looked at from time to time how much is kept for clients that have gone."""
        self._unattended += size
        if self._unattended > _WINDOW:
            self._unattended = 0
            self._on_left(self)

    def note_upstream_id(self, upstream_id: str) -> None:
        """Take note of an id that came without data."""
        self.resume = ResumePoint(self.epoch, upstream_id)
        self._notify()

    def begin_epoch(self, epoch: int) -> None:
        """Go on with another upstream session, which knows none of the ids there were."""
        self.epoch = epoch
        self.resume = None
        self.tracker.reset()
        # It repeats nothing, so what comes must not be counted like what the client has seen.
        self.log.pass_over(self.seen)

    def end(self, now: float) -> None:
        """Nothing more will come."""
        self.is_ended = True
        self.rested_at = now
        self._notify()

    def park(self, now: float) -> None:
        """Let others claim the stream: nobody reads the upstream for it here any more."""
        self.is_parked = True
        self.rested_at = now
        self.mark()

    @property
    def is_resting(self) -> bool:
        """Whether it has ended or is parked."""
        return self.is_ended or self.is_parked

    async def wait_room(self) -> None:
        """Return when the client that is there, if any, is not far behind.

        Not a checkpoint if that is so already.
        """
        while self._reader is not None and self._reader.is_behind:
            await self._room.park()

    # The client's side.

    @property
    def is_attended(self) -> bool:
        """Whether a client is there."""
        return self._reader is not None

    @property
    def is_left(self) -> bool:
        """Whether the upstream is read though no client is there."""
        return self._reader is None and not self.is_resting

    def attach(self, number: int, after: int = 0) -> Reader:
        """Have a client read from the entry *number* on.  One that is there already is sent away.

        Args:
            after: A position up to which the client has seen everything, even what the
                upstream has yet to repeat, if it has an id to go on from.
        """
        if self._reader is not None:
            self._reader.scope.cancel()
        self.seen = 0 if self.resume is None else after
        self._reader = Reader(self, number)
        self.log.wanted = self._reader.number
        self.presence.deadline = math.inf
        self._room.unpark_all()
        return self._reader

    def detach(self, reader: Reader) -> None:
        """Note that a client has gone; does nothing if another has come."""
        if self._reader is reader:
            self._reader = self.log.wanted = None
            self.presence.deadline = trio.current_time() + self._linger
            self._room.unpark_all()
            self._on_left(self)

    def cursor(self, entry: LogEntry) -> Cursor:
        """Return the id of an event: what a client that has seen it can come back with."""
        return self._cursor_at(entry.event.position, entry.resume)

    def cursor_before(self, number: int) -> Cursor:
        """Return the id of a place: what a client can come back with that has not seen the entry *number*."""
        entries = self.log.read(number, 1)
        if not entries:
            return self._cursor_at(self.log.position, self.resume)
        return Cursor(self.key.stream_id, entries[0].event.position - 1, None, fence=self.ownership.fence)

    def _cursor_at(self, position: int, resume: ResumePoint | None) -> Cursor:
        return Cursor(self.key.stream_id, position, resume, position == self.last_position, self.ownership.fence)

    def make_room(self, reader: Reader) -> None:
        """Note that a client has read on."""
        if self._reader is reader:
            self.log.wanted = reader.number
            self._room.unpark_all()

    def wake(self) -> None:
        """Have whoever waits for news look up."""
        self._news.unpark_all()

    async def wait_news(self) -> None:
        """Return when something is published, the stream ends, or `wake` is called."""
        await self._news.park()

    # The store's side.

    def take_append(self, now: float) -> StreamAppend | None:
        """Return what the store has yet to be told; None if nothing, or if it need not know.

        What was answered and delivered before the store heard of it is not worth a
        write: whoever lost it on the way is served from memory, or by the upstream.
        """
        self._is_marked = False
        is_known = self._stored is not None or self.ownership.fence > 1
        if self.is_fenced or (self.is_ended and (self.is_delivered or self.is_lost) and not is_known):
            return None
        before = -1 if self._stored is None else self._stored.last_position
        events, last = first_of(self.log.events_after(before), self.log.position)
        append = StreamAppend(
            key=self.key,
            owner=self.ownership.owner,
            fence=self.ownership.fence,
            kind=self.kind,
            request_id=self.request_id,
            sent_id=self.sent_id,
            appended_at=0.0 if self._stored is None else self._stored.appended_at,
            events=events,
            last_position=last,
            resume_id=self._resume_id_at(last),
            # Who does not know why it ended must not keep others from finding out.
            is_ended=(self.is_ended or self.is_answered) and not self.is_lost and last == self.log.position,
            is_released=self.is_parked or self.is_lost,
        )
        return None if append == self._stored else attrs.evolve(append, appended_at=now)

    def note_stored(self, append: StreamAppend) -> None:
        """Note that the store has taken *append*."""
        self._stored = attrs.evolve(append, events=())
        self._resume_id = append.resume_id
        if append.last_position < self.log.position:
            self.mark()

    def _resume_id_at(self, position: int) -> str | None:
        """Return where the upstream goes on after *position*; with a later id, it would leave out what is between."""
        if position == self.log.position:
            return None if self.resume is None else self.resume.encode()
        point = self.log.resume_point(position)
        return self._resume_id if point is None else point.encode()

    def note_refused(self) -> None:
        """Give up the stream: the store has it from somebody else, or its session is over."""
        self.is_fenced = True
        self.presence.cancel()
        if self._reader is not None:
            self._reader.scope.cancel()

    @property
    def last_event_id(self) -> str:
        """The id of the newest event."""
        return self.cursor_before(self.log.end).encode().decode()

    def mark(self) -> None:
        """Have the store told what is new, once for however much there is until then."""
        if not self._is_marked:
            self._is_marked = True
            self._mark(self)

    @property
    def is_answered(self) -> bool:
        """Whether what the client waits for has been published."""
        return self.last_position is not None

    def settle(self) -> None:
        """Note that the upstream goes on with it."""
        self.is_settled = True
        self._news.unpark_all()

    def _notify(self) -> None:
        self.settle()
        self.mark()
