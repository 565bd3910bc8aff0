"""Writing behind: what may reach the store a little later.

The last event id and the time of last use of a session change with every event
and every call; only the newest of each matters.  So the data path only notes
them and never waits, one task writes them in batches, and however fast they
come, what is kept is bounded by the number of sessions.

A mark travels through a bounded channel.  When that is full, because the store
is slow or down, it goes into one slot per session instead, where a newer one
replaces it.  Marks are numbered, so that of two on their way to the store by
different routes the newer wins.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import attrs
import trio

from ..errors import StoreCorrupt, StoreError, StoreUnavailable
from .event_stream import EventStream
from .lease import OwnerLease
from .model import SessionId
from .store import Activity, SessionStore
from .stream import LogLimits, Ownership, StreamAppend, StreamKey

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

CHANNEL_SIZE = 1000
"""Marks under way to the worker."""

_LOOK_INTERVAL = 1.0
"""Seconds between two looks at how much waits, while the store is down."""


@attrs.frozen(kw_only=True)
class PersistenceConfig:
    """How the worker batches, and how long it tries."""

    batch_size: int = attrs.field(default=50, validator=attrs.validators.ge(1))
    """Dirty keys that are written at once without waiting for more."""

    flush_interval: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    """Seconds from the first mark to the write; what a kill -9 can lose."""

    base_backoff: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    """Seconds before the first new try when the store is down; doubled for each, with full jitter."""

    max_backoff: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))

    max_pending_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=attrs.validators.ge(0))
    """Bytes of memory for streams that are over and wait for a store that is down; the oldest are given up."""

    flush_timeout: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    """Seconds that the last write may take when the proxy stops."""


@attrs.frozen
class PersistenceStatistics:
    """What the worker has done so far."""

    pending: int
    """Keys that are not in the store yet, and marks under way to the worker."""
    written: int
    coalesced: int
    """Marks that a newer one replaced before they were written."""
    failures: int
    """Batches that the store did not take."""
    lost: int
    """Updates, streams and parts of one that were given up because the store did not or could not take them."""
    is_degraded: bool
    """Whether the store did not take the last batch."""
    batches: int
    """Batches that were offered to the store, taken or not."""
    flush_time: float
    """Seconds that those took together."""


@attrs.frozen
class _EventIdKey:
    session_id: SessionId


@attrs.frozen
class _ActivityKey:
    session_id: SessionId


_Key = _EventIdKey | _ActivityKey | StreamKey
_Mark = str | Activity | EventStream
_Numbered = tuple[int, _Mark]
_Marks = dict[_Key, _Numbered]


class PersistenceWorker:
    """Writes marks to a store, newest first come or not.

    Marking is synchronous, never waits and never fails.  `run` does the writing.
    """

    def __init__(
        self,
        store: SessionStore,
        config: PersistenceConfig,
        lease: OwnerLease | None = None,
        limits: LogLimits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._config = config
        self._lease = lease or OwnerLease(store, 3.0)
        self._limits = limits or LogLimits()
        self._now = now
        self._numbers = itertools.count()
        self._sender, self._receiver = trio.open_memory_channel[tuple[_Key, _Numbered]](CHANNEL_SIZE)
        self._overflow: _Marks = {}
        self._dirty: _Marks = {}
        self._in_flight: _Marks = {}
        self._written = self._coalesced = self._failures = self._lost = 0
        self._batches, self._flush_time = 0, 0.0
        self._is_degraded = self._has_shed = False

    def mark_event_id(self, session_id: SessionId, event_id: str) -> None:
        """Have *event_id* stored as the session's last."""
        self._mark(_EventIdKey(session_id), event_id)

    def mark_activity(self, activity: Activity) -> None:
        """Have a session's last use stored."""
        self._mark(_ActivityKey(activity.session_id), activity)

    def mark_stream(self, stream: EventStream) -> None:
        """Have what is new of a stream stored.  It is fetched from the stream's own log when it is time."""
        self._mark(stream.key, stream)

    def forget(self, session_id: SessionId, streams: Iterable[StreamKey] = ()) -> None:
        """Drop what is marked for a session that has ended, and its streams.  Marks in the channel are harmless."""
        for marks in (self._overflow, self._dirty):
            marks.pop(_EventIdKey(session_id), None)
            marks.pop(_ActivityKey(session_id), None)
            for key in streams:
                marks.pop(key, None)

    def statistics(self) -> PersistenceStatistics:
        """Return a snapshot."""
        queued = self._receiver.statistics().current_buffer_used
        pending = len(self._dirty) + len(self._in_flight) + len(self._overflow) + queued
        return PersistenceStatistics(
            pending,
            self._written,
            self._coalesced,
            self._failures,
            self._lost,
            self._is_degraded,
            self._batches,
            self._flush_time,
        )

    async def run(self) -> None:
        """Write until cancelled; then write what is left, for ``flush_timeout`` seconds at most."""
        try:
            while True:
                await self._collect()
                await self._flush_until_taken()
        finally:
            with trio.move_on_after(self._config.flush_timeout, shield=True):
                await self._flush_last()
            self._take_all()
            lost = len(self._dirty) + len(self._in_flight)
            if lost:
                log.error("%d updates of sessions did not reach the store", lost)

    async def _collect(self) -> None:
        """Wait for a mark, and for more until the batch is full or it is time."""
        if not (self._dirty or self._overflow):
            self._note(await self._receiver.receive())
        with trio.move_on_after(self._config.flush_interval):
            while len(self._dirty) < self._config.batch_size:
                self._note(await self._receiver.receive())
        self._take_all()

    async def _flush_until_taken(self) -> None:
        attempt = 0
        while self._dirty:
            try:
                await self._flush()
                attempt = 0
                self._is_degraded = self._has_shed = False
            except (StoreError, OSError) as error:
                self._failures += 1
                if not self._is_degraded:
                    log.warning("session updates are kept back: %s", error)
                self._is_degraded = True
                limit = min(self._config.base_backoff * 2.0 ** min(attempt, 30), self._config.max_backoff)
                await self._back_off(random.uniform(0, limit) + 0.01)
                attempt += 1

    async def _back_off(self, seconds: float) -> None:
        """Sleep, and keep what comes meanwhile within bounds."""
        until = trio.current_time() + seconds
        while (left := until - trio.current_time()) > 0:
            await trio.sleep(min(left, _LOOK_INTERVAL))
            self._take_all()
            self._shed()

    async def _flush(self) -> None:
        """Write one batch.  If it fails or is cancelled, all of it is dirty again."""
        keys = list(itertools.islice(self._dirty, self._config.batch_size))
        self._in_flight = {key: self._dirty.pop(key) for key in keys}
        began = trio.current_time()
        try:
            await self._write(self._in_flight)
            self._written += len(self._in_flight)
        except BaseException:
            for key, value in self._in_flight.items():
                self._merge(key, value)
            raise
        finally:
            self._batches += 1
            self._flush_time += trio.current_time() - began
            self._in_flight = {}

    async def _write(self, batch: Mapping[_Key, _Numbered]) -> None:
        event_ids: list[tuple[SessionId, str]] = []
        activities: list[Activity] = []
        streams: list[EventStream] = []
        for key, (_, value) in batch.items():
            match value:
                case Activity():
                    activities.append(value)
                case EventStream():
                    streams.append(value)
                case _:
                    event_ids.append((key.session_id, value))
        now = self._now()
        appends: list[tuple[EventStream, StreamAppend]] = []
        for stream in streams:
            if (append := stream.take_append(now)) is not None:
                appends.append((stream, append))
            else:
                del self._in_flight[stream.key]  # it need not wait for a store that is down
        event_ids += [(stream.key.session_id, stream.last_event_id) for stream in streams]
        await self._write_all(self._store.touch_sessions, activities)
        if gone := await self._write_all(self._store.store_event_ids_batch, event_ids):
            log.debug("%d sessions ended before their last event id was stored", len(gone))
        if appends and self._store.keeps_streams:
            await self._append(appends)

    async def _append(self, appends: Sequence[tuple[EventStream, StreamAppend]]) -> None:
        # First, or others would take a stream of ours, seeing that its owner is unknown.
        await self._lease.ensure()
        append_all = partial(self._store.append_events, limits=self._limits)
        refused = set(await self._write_all(append_all, [append for _, append in appends]))
        for stream, append in appends:
            if append.key not in refused:
                stream.note_stored(append)
            elif append.fence == stream.ownership.fence and not await self._is_reclaimed(stream, append):
                log.debug("a stream is continued elsewhere, or its session has ended")
                stream.note_refused()
            else:
                stream.mark()  # it was claimed again here meanwhile

    async def _write_all(
        self, write: Callable[[Sequence[T]], Awaitable[Sequence[R] | None]], items: Sequence[T]
    ) -> Sequence[R]:
        """Write *items*; one by one if the store can never take one of them, so that this one alone is given up."""
        if not items:
            return ()
        try:
            return await write(items) or ()
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(items) == 1:
                log.error("an update of a session is given up: %s", error)
                self._lost += 1
                return ()
        refused: list[R] = []
        for item in items:
            refused += await self._write_all(write, [item])
        return refused

    async def _is_reclaimed(self, stream: EventStream, append: StreamAppend) -> bool:
        """Take a stream back that a claim of ours, cut short, has given another fence; nobody else may have had it."""
        key, owner = stream.key, stream.ownership.owner
        try:
            record = await self._store.claim_stream(key.session_id, key.stream_id, owner)
        except StoreCorrupt as error:
            log.error("a stream is not kept any more: %s", error)
            return False
        if record is None or record.owner != owner or record.last_position > append.last_position:
            return False
        stream.ownership = Ownership(owner=owner, fence=record.fence)
        return True

    def _shed(self) -> None:
        """Give up streams that are over and wait for the store in vain, if they take too much.

        First those whose clients have had everything, then those that have waited longest.
        """
        marked = (value for _, value in self._dirty.values() if isinstance(value, EventStream))
        over = [stream for stream in marked if stream.is_resting or stream.is_fenced]
        excess = sum(stream.log.footprint for stream in over) - self._config.max_pending_bytes
        if excess <= 0:
            return
        over.sort(key=lambda stream: not (stream.is_fenced or (stream.is_ended and stream.is_delivered)))
        for stream in over:
            if excess <= 0:
                break
            excess -= stream.log.footprint
            del self._dirty[stream.key]
            self._lost += stream.take_append(self._now()) is not None
        if not self._has_shed:
            self._has_shed = True
            log.warning("too much waits for the session store; streams that are over are not kept there")

    async def _flush_last(self) -> None:
        self._take_all()
        while self._dirty:
            try:
                await self._flush()
            except (StoreError, OSError) as error:
                log.warning("the session store fails at the end: %s", error)
                await trio.sleep(self._config.base_backoff)
            self._take_all()

    def _mark(self, key: _Key, value: _Mark) -> None:
        mark = (next(self._numbers), value)
        try:
            self._sender.send_nowait((key, mark))
        except trio.WouldBlock:
            self._coalesced += key in self._overflow
            self._overflow[key] = mark
            if len(self._overflow) > CHANNEL_SIZE and isinstance(value, EventStream):
                self._take_all()
                self._shed()

    def _note(self, item: tuple[_Key, _Numbered]) -> None:
        self._merge(*item)

    def _merge(self, key: _Key, mark: _Numbered) -> None:
        present = self._dirty.get(key)
        if present is not None:
            self._coalesced += 1
        if present is None or present[0] < mark[0]:
            self._dirty[key] = mark

    def _take_all(self) -> None:
        """Move every mark that has arrived to the dirty ones."""
        while True:
            try:
                self._note(self._receiver.receive_nowait())
            except trio.WouldBlock:
                break
        for key, mark in self._overflow.items():
            self._merge(key, mark)
        self._overflow.clear()
