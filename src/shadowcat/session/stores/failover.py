"""Going on without the store: a wrapper that answers from memory while it is down.

While the primary answers, every call goes to it, and what it says of a session
is kept as a copy.  While it does not, calls are answered from the copies, and
what is written is kept to be written to it later (`backlog`).  A session that
has something to be written is answered for here until that is done, so that
nobody in this process reads what is older than what it wrote.

Writing later is compare and set, as ever.  If the primary's revision moved on
meanwhile, somebody else updated the session: the higher revision stays, and it
counts as a conflict.  A session that was ended elsewhere stays ended.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import trio

from ...envelope import MessageEnvelope
from ...errors import SessionNotFound, StoreUnavailable
from ..model import Session, SessionId
from ..store import Activity, SessionStore
from ..stream import LogLimits, OwnerId, StreamAppend, StreamId, StreamKey, StreamRecord, StreamSlice
from .backlog import Backlog
from .breaker import BreakerOpen, BreakerState, CircuitBreaker
from .failover_config import FailoverConfig, FailoverStatistics
from .recovery import Recovery

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FailoverStore(SessionStore):
    """A store that goes on from memory while the *primary* raises `StoreUnavailable`.

    In an outage the promises of `SessionStore` hold within this process only:

    * Sessions it has seen are served; of others nothing is known, which is
      `StoreUnavailable`, never `SessionNotFound`.
    * `list_sessions` and `count_sessions` cover the sessions it has seen.
    * Frames written before cannot be read or deleted.
    * Only sessions expire of which the primary has certainly not heard: created in it, and
      not sent to the primary as it fell silent.  Others may have been used elsewhere.
    * Event streams are neither read nor kept: `StoreUnavailable`, also for appends to
      a session that the primary has yet to be told of.  Whoever appends keeps what it
      has and tries again.

    `open_failover_store` makes one and writes what is pending when it can.
    """

    def __init__(self, primary: SessionStore, config: FailoverConfig) -> None:
        self.keeps_streams = primary.keeps_streams
        # Who counts knows what to do in an outage.
        self.rates = primary.rates
        self._primary = primary
        self._config = config
        self._breaker = CircuitBreaker(config.breaker)
        self._backlog = Backlog(config.max_copies, config.max_pending)
        self._recovery = Recovery(primary, self._backlog, self._ask)
        self._failures = self._fallbacks = 0
        self._failed = trio.Event()
        self._pushing = trio.Lock()

    @property
    def is_degraded(self) -> bool:
        """Whether the primary is not asked, or has yet to be told something."""
        is_asked = self._breaker.state is BreakerState.CLOSED and not self._failed.is_set()
        return not is_asked or self._backlog.pending > 0

    def statistics(self) -> FailoverStatistics:
        """Return a snapshot."""
        return FailoverStatistics(
            is_degraded=self.is_degraded,
            failures=self._failures,
            fallbacks=self._fallbacks,
            pushed=self._recovery.pushed,
            conflicts=self._recovery.conflicts,
            pending=self._backlog.pending,
        )

    async def create_session(self, session: Session) -> None:
        is_attempted = False
        if session.id not in self._backlog.owed:
            try:
                await self._ask(self._primary.create_session, session)
                self._backlog.saw(session, is_new=True)
                return
            except StoreUnavailable as error:
                is_attempted = not isinstance(error, BreakerOpen)
        self._fall_back()
        self._backlog.create(session, is_attempted=is_attempted)

    async def get_session(self, session_id: SessionId) -> Session:
        if session_id not in self._backlog.owed:
            try:
                session = await self._ask(self._primary.get_session, session_id)
                return self._backlog.saw(session)
            except SessionNotFound:
                self._backlog.saw_gone(session_id)
                raise
            except StoreUnavailable:
                pass
        self._fall_back()
        return self._backlog.get(session_id)

    async def update_session(self, session: Session) -> Session:
        is_attempted = False
        if session.id not in self._backlog.owed:
            try:
                stored = await self._ask(self._primary.update_session, session)
                self._backlog.saw(stored)
                return stored
            except SessionNotFound:
                self._backlog.saw_gone(session.id)
                raise
            except StoreUnavailable as error:
                is_attempted = not isinstance(error, BreakerOpen)
        self._fall_back()
        return self._backlog.update(session, is_attempted=is_attempted)

    async def delete_session(self, session_id: SessionId) -> None:
        if session_id not in self._backlog.owed:
            try:
                await self._ask(self._primary.delete_session, session_id)
                self._backlog.saw_gone(session_id)
                return
            except SessionNotFound:
                self._backlog.saw_gone(session_id)
                raise
            except StoreUnavailable:
                pass
        self._fall_back()
        self._backlog.delete(session_id)

    async def list_sessions(self) -> Sequence[Session]:
        try:
            listed = await self._ask(self._primary.list_sessions)
        except StoreUnavailable:
            self._fall_back()
            return list(self._backlog.sessions())
        owed = self._backlog.owed
        newest = [entry.session for entry in owed.values() if entry.session is not None]
        return [self._backlog.with_touches(session) for session in listed if session.id not in owed] + newest

    async def count_sessions(self) -> int:
        if self._backlog.owed:
            return len(await self.list_sessions())
        try:
            return await self._ask(self._primary.count_sessions)
        except StoreUnavailable:
            self._fall_back()
            return sum(1 for _ in self._backlog.sessions())

    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        kept = [activity for activity in activities if activity.session_id in self._backlog.owed]
        others = [activity for activity in activities if activity.session_id not in self._backlog.owed]
        if others:
            try:
                await self._ask(self._primary.touch_sessions, others)
                for activity in others:
                    self._backlog.saw_touch(activity)
            except StoreUnavailable:
                kept = list(activities)
        if kept:
            self._fall_back()
        for activity in kept:
            self._backlog.touch(activity)

    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        if not self._backlog.pending:
            try:
                expired = await self._ask(self._primary.expire_sessions, now, limit)
                for session in expired:
                    self._backlog.saw_gone(session.id)
                return expired
            except StoreUnavailable:
                pass
        # The primary may have yet to be told that what is due there was used.
        self._fall_back()
        return self._backlog.expire(now, limit)

    async def add_frame(self, frame: MessageEnvelope) -> None:
        session_id = SessionId(frame.session_id)
        if session_id not in self._backlog.owed and not self._backlog.frames_of(session_id):
            try:
                await self._ask(self._primary.add_frame, frame)
                return
            except StoreUnavailable:
                pass
        self._fall_back()
        self._backlog.add_frame(frame)

    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        if self._backlog.is_born(session_id):
            return self._backlog.frames_of(session_id)
        if self._is_deleted(session_id):
            return []
        frames = await self._ask(self._primary.get_frames, session_id)
        return [*frames, *self._backlog.frames_of(session_id)]

    async def delete_frames(self, session_id: SessionId) -> None:
        if not self._backlog.is_born(session_id):
            await self._ask(self._primary.delete_frames, session_id)
        self._backlog.drop_frames(session_id)

    async def count_frames(self, session_id: SessionId) -> int:
        kept = len(self._backlog.frames_of(session_id))
        if self._backlog.is_born(session_id) or self._is_deleted(session_id):
            return kept
        return kept + await self._ask(self._primary.count_frames, session_id)

    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        if not self._keeps_event_id(session_id):
            try:
                await self._ask(self._primary.store_last_event_id, session_id, event_id)
                self._backlog.saw_event_id(session_id, event_id)
                return
            except StoreUnavailable:
                pass
        self._fall_back()
        self._backlog.store_event_id(session_id, event_id)

    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        if not self._keeps_event_id(session_id):
            try:
                event_id = await self._ask(self._primary.get_last_event_id, session_id)
                self._backlog.saw_event_id(session_id, event_id)
                return event_id
            except StoreUnavailable:
                pass
        self._fall_back()
        return self._backlog.event_id(session_id)

    async def append_events(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        # The primary would refuse a session it has never heard of, and refused is for ever.
        if any(append.key.session_id in self._backlog.owed for append in appends):
            raise StoreUnavailable("the store has yet to be told of a session whose events these are; try again")
        return await self._ask(self._primary.append_events, appends, limits)

    async def read_events(
        self, session_id: SessionId, stream_id: StreamId, after: int, limit: int = 100
    ) -> StreamSlice | None:
        return await self._ask(self._primary.read_events, session_id, stream_id, after, limit)

    async def claim_stream(self, session_id: SessionId, stream_id: StreamId, owner: OwnerId) -> StreamRecord | None:
        return await self._ask(self._primary.claim_stream, session_id, stream_id, owner)

    async def renew_owner(self, owner: OwnerId, ttl: float) -> None:
        await self._ask(self._primary.renew_owner, owner, ttl)

    async def expire_streams(self, before: float) -> int:
        return await self._ask(self._primary.expire_streams, before)

    async def wait_events(self, session_id: SessionId, stream_id: StreamId, after: int) -> None:
        # Not by way of the breaker: a second of silence is no failure of the primary.
        await self._primary.wait_events(session_id, stream_id, after)

    async def get_sessions_batch(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        if self._backlog.owed.keys().isdisjoint(session_ids):
            try:
                found = await self._ask(self._primary.get_sessions_batch, session_ids)
                return [self._backlog.saw(session) for session in found]
            except StoreUnavailable:
                pass
        return await super().get_sessions_batch(session_ids)

    async def store_event_ids_batch(self, event_ids: Sequence[tuple[SessionId, str]]) -> Sequence[SessionId]:
        if not any(self._keeps_event_id(session_id) for session_id, _ in event_ids):
            try:
                gone = await self._ask(self._primary.store_event_ids_batch, event_ids)
                for session_id, event_id in event_ids:
                    self._backlog.saw_event_id(session_id, event_id)
                return gone
            except StoreUnavailable:
                pass
        return await super().store_event_ids_batch(event_ids)

    async def aclose(self) -> None:
        """Write what is pending, for ``flush_timeout`` seconds at most, and close the primary."""
        try:
            with trio.move_on_after(self._config.flush_timeout, shield=True):
                await self.flush()
        finally:
            await self._primary.aclose()

    async def flush(self) -> None:
        """Try once to write what is pending, whatever the breaker says."""
        self._breaker.probe_now()
        try:
            if self._backlog.pending:
                await self._push()
        except StoreUnavailable as error:
            log.warning("the session store fails at the end: %s", error)
        finally:
            if self._backlog.pending:
                log.error("%d updates of sessions did not reach the store", self._backlog.pending)

    async def run(self) -> None:
        """Write what is pending whenever the primary can be asked, until cancelled."""
        while True:
            await self._failed.wait()
            await trio.sleep(max(self._config.retry_interval, self._breaker.retry_after))
            try:
                await self._push()
            except StoreUnavailable:
                continue
            if self._breaker.state is BreakerState.CLOSED and not self._backlog.pending:
                self._failed = trio.Event()
                log.info("session store is back: %s", self.statistics())

    async def _push(self) -> None:
        async with self._pushing:
            await self._recovery.push()
            await self._ask(self._primary.count_sessions)
            while self._breaker.state is not BreakerState.CLOSED:
                await self._ask(self._primary.count_sessions)

    async def _ask(self, operation: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Ask the primary, if the breaker lets us."""
        try:
            with self._breaker.guard():
                with trio.move_on_after(self._config.primary_timeout):
                    return await operation(*args)
                raise StoreUnavailable("the session store did not answer in time; try again later")
        except BreakerOpen:
            raise
        except StoreUnavailable as error:
            self._failures += 1
            if not self._failed.is_set():
                log.warning("session store failed, going on from memory: %s", error)
                self._failed.set()
            raise

    def _fall_back(self) -> None:
        self._fallbacks += 1
        self._failed.set()

    def _is_deleted(self, session_id: SessionId) -> bool:
        owed = self._backlog.owed.get(session_id)
        return owed is not None and owed.session is None

    def _keeps_event_id(self, session_id: SessionId) -> bool:
        return session_id in self._backlog.owed or session_id in self._backlog.event_ids


@asynccontextmanager
async def open_failover_store(
    primary: SessionStore, config: FailoverConfig | None = None
) -> AsyncGenerator[FailoverStore, None]:
    """Wrap *primary* for as long as the block lasts; then write what is pending.

    The primary is not closed, unless the store is.
    """
    config = config or FailoverConfig()
    store = FailoverStore(primary, config)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            # So that an outage at the start is known before the first request.
            await store.count_sessions()
            yield store
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(config.flush_timeout, shield=True):
            await store.flush()
