"""Sessions from `initialize` to their end."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVarTuple

import attrs
import trio

from ..errors import SessionConflict, SessionLimitReached, SessionNotFound, StoreError, StoreUnavailable
from ..protocol import RawId, ResponseMode
from .config import SessionConfig
from .event_stream import EventStream
from .journal import EndReason, SessionJournal
from .lease import OwnerLease
from .model import Session, SessionId, UpstreamSessionId, new_session_id
from .persistence import PersistenceStatistics, PersistenceWorker
from .presence import HeldId, Presence, Presences, Use, id_key
from .store import Activity, SessionStore
from .streams import SessionStreams

Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

_BATCH = 500
"""Sessions that the store is asked for at once."""

_MAX_FAREWELLS = 32
"""Sessions that the upstream is told of at once when they expire."""

_GONE = "no such session; send initialize, without Mcp-Session-Id, to open another"


class SessionManager:
    """Creates, finds, counts, expires and ends sessions, through one store.

    Constructing it starts nothing, and needs no event loop; `open_session_manager`
    runs it.  An injected store is never closed here.
    """

    def __init__(self, store: SessionStore, config: SessionConfig) -> None:
        self.store = store
        self.config = config
        self.on_expired: Callable[[Session], Awaitable[None]] | None = None
        """Called for each session that is ended for idleness or age, after it is
        gone from the store; the place to end it upstream as well."""

        self._presences = Presences()
        self.journal = SessionJournal(self._presences)
        """What became of sessions."""
        self._opening = 0
        self._epoch = 0.0
        self._nursery: trio.Nursery | None = None
        self._tasks: trio.Nursery | None = None
        self._worker: PersistenceWorker | None = None
        self._is_lease_kept = False
        self._lease = OwnerLease(store, config.streams.lease_timeout)
        self.streams = SessionStreams(store, config.streams, self._lease, self._presences, self._mark_stream, self.now)
        """The event streams of sessions that this process has."""

    def open(self, persistence: trio.Nursery, tasks: trio.Nursery) -> None:
        """Begin to write behind, in *persistence*, and to run what `start_in` is given, in *tasks*."""
        self._nursery = persistence
        self._tasks = tasks
        self._epoch = time.time() - trio.current_time()

    async def ensure_persistence_started(self) -> PersistenceWorker | None:
        """Start the persistence worker if it is not running, and return it.

        However many callers there are at once, one worker is started.  None if
        persistence is turned off, or if nobody runs this manager.
        """
        await trio.lowlevel.checkpoint()
        return self._persistence()

    def _persistence(self) -> PersistenceWorker | None:
        # Synchronous, so that no two callers can both find that there is none.
        if self._worker is None and self._nursery is not None and self.config.max_pending_per_session > 0:
            self._worker = PersistenceWorker(
                self.store, self.config.persistence, self._lease, self.config.streams.limits, self.now
            )
            self._nursery.start_soon(self._worker.run)
        return self._worker

    def persistence_statistics(self) -> PersistenceStatistics | None:
        """Return what writing behind has done so far; None if it has not begun."""
        return None if self._worker is None else self._worker.statistics()

    async def give_up_streams(self) -> None:
        """Let other proxies take over at once; for when nothing is under way any more."""
        await self._lease.give_up()

    def _mark_stream(self, stream: EventStream) -> None:
        if worker := self._persistence():
            worker.mark_stream(stream)
            if self.store.keeps_streams and not self._is_lease_kept and self._nursery is not None:
                self._is_lease_kept = True
                self._nursery.start_soon(self._keep_lease)

    async def _keep_lease(self) -> None:
        await self._lease.keep(lambda: any(self.streams.all()))
        self._is_lease_kept = False

    def now(self) -> float:
        """Return seconds since the Unix epoch, by trio's clock: a mock clock moves it too."""
        return self._epoch + trio.current_time()

    @asynccontextmanager
    async def reserve(self) -> AsyncGenerator[None, None]:
        """Hold a place for one more session while the upstream is asked to open it.

        Raises:
            SessionLimitReached: There is none left.
        """
        open_now = await self.store.count_sessions()
        if open_now + self._opening >= self.config.max_sessions:
            raise SessionLimitReached("too many open sessions; try again later, or end one you no longer need")
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    async def create(
        self,
        upstream_session_id: UpstreamSessionId | None,
        initialize_params: Mapping[str, Any],
        initialize_result: Mapping[str, Any],
        response_mode: ResponseMode,
        *,
        upstream_name: str = "default",
    ) -> Session:
        """Keep a new session and return it; it is stored when this returns.

        If cancelled, there is none.
        """
        version = initialize_result.get("protocolVersion")
        now = self.now()
        session = Session(
            id=new_session_id(),
            upstream_session_id=upstream_session_id,
            upstream_name=upstream_name,
            response_mode=response_mode,
            protocol_version=version if isinstance(version, str) else "",
            initialize_params=initialize_params,
            initialize_result=initialize_result,
            created_at=now,
            last_activity=now,
            expires_at=self._expiry(now, now),
        )
        try:
            await self.store.create_session(session)
            await self.journal.note_opened(session)
        except trio.Cancelled:
            with trio.move_on_after(1, shield=True):
                await self.end(session.id, EndReason.CLIENT)
            raise
        self._presences.of(session).last_stored = trio.current_time()
        return session

    async def find(self, session_id: SessionId) -> Session:
        """Return the session called *session_id*, and count it as used just now.

        Raises:
            SessionNotFound: It never was, has expired or has been ended.
        """
        try:
            session = await self.store.get_session(session_id)
        except SessionNotFound:
            self._forget(session_id)
            raise
        if self._is_over(session):
            raise SessionNotFound(_GONE)
        self._note_use(session.id, self._presences.of(session))
        return session

    async def record_mode(self, session: Session, mode: ResponseMode) -> None:
        """Keep *mode* as how the session's last answer was relayed.

        Takes a second at most; a call does not fail because this does.
        """
        if session.response_mode is not mode:
            with trio.move_on_after(1):
                await self.change(session, lambda current: attrs.evolve(current, response_mode=mode))

    async def change(self, session: Session, change: Callable[[Session], Session]) -> None:
        """Update what is only good to know; a call does not fail because it could not be."""
        try:
            await self.store.modify(session.id, change)
        except (SessionNotFound, SessionConflict, StoreError) as error:
            log.debug("a session was not updated: %s", error)

    async def end(self, session_id: SessionId, reason: EndReason = EndReason.ADMIN) -> None:
        """Forget a session and end its listening streams.  Does nothing if it is gone."""
        self._forget(session_id)
        try:
            await self.store.delete_session(session_id)
        except SessionNotFound:
            log.debug("session was ended already")
            return
        await self.journal.note_ended(session_id, reason)

    def presence_of(self, session_id: SessionId) -> Presence | None:
        """Return what this process has had under way in a session of late; None if nothing."""
        return self._presences.get(session_id)

    def use(self, session: Session) -> AbstractContextManager[None]:
        """Keep the session from expiring while a request in it is under way."""
        return Use(self._presences.of(session), session.id, self._note_use)

    def hold(self, session: Session, request_id: RawId) -> HeldId:
        """Return the id to send a request upstream with: *request_id*, or another if that is in flight.

        It is in flight until it is released.
        """
        return self._presences.of(session).hold(request_id)

    def ids_in_flight(self, session: Session, request_id: RawId) -> Sequence[RawId]:
        """Return the ids under which requests that the client called *request_id* went upstream."""
        pairs = self._presences.of(session).in_flight.get(id_key(request_id), ())
        return [sent_id for own_id, sent_id in pairs if own_id == request_id]

    def minted_ids(self, session: Session) -> Mapping[RawId, RawId]:
        """Return the client's ids by those that replaced them, as they are at any time.

        The latest thousand: the answer to one may come late, on a stream that is resumed.
        """
        return self._presences.of(session).minted

    @contextmanager
    def attached(self, session: Session) -> Generator[trio.CancelScope, None, None]:
        """Yield a scope that is cancelled when the session ends."""
        presence = self._presences.of(session)
        with trio.CancelScope() as scope:
            presence.scopes.add(scope)
            try:
                yield scope
            finally:
                presence.scopes.discard(scope)

    def start_in(self, session: Session, work: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run *work* beside all requests, until it returns or the session or this manager ends.

        What it raises ends it alone, and is logged.

        Raises:
            RuntimeError: Nobody runs this manager.
        """
        if self._tasks is None:
            raise RuntimeError("open the manager with open_session_manager() first")
        presence, scope = self._presences.of(session), trio.CancelScope()
        presence.scopes.add(scope)  # not in the task: the session may end before that begins
        self._tasks.start_soon(self._run_in, presence, scope, partial(work, *args))

    async def _run_in(self, presence: Presence, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with scope:
                await work()
        except Exception:
            # A boundary: what one session does to itself must not end the others.
            log.exception("work for a session failed")
        finally:
            presence.scopes.discard(scope)

    async def reap(self) -> None:
        """End the sessions that are idle or too old, in the store and then upstream.

        Several proxies may do so at once: each session is given to one of them.
        Safe to cancel: a session is either ended or untouched, though the
        upstream may then not have been told of one that is ended.
        """
        now = self.now()
        self.streams.sweep()
        await self._store_uses()
        await self._forget_gone()
        limiter = trio.CapacityLimiter(_MAX_FAREWELLS)
        async with trio.open_nursery() as nursery:
            while expired := await self.store.expire_sessions(now):
                for session in expired:
                    self._forget(session.id)
                    await limiter.acquire_on_behalf_of(session.id)
                    nursery.start_soon(self._tell_expired, session, limiter)
                log.info("ended %d sessions", len(expired))
        try:
            await self.store.expire_streams(now - self.config.streams.limits.max_age)
        except StoreUnavailable as error:
            # A store that goes on from memory has none; they go with their sessions at the latest.
            log.debug("streams that ended are kept for now: %s", error)

    async def _tell_expired(self, session: Session, limiter: trio.CapacityLimiter) -> None:
        try:
            await self.journal.note_ended(session.id, EndReason.EXPIRED)
            if self.on_expired is not None:
                await self.on_expired(session)
        except Exception:
            # The boundary of housekeeping: an upstream of the user's own that
            # fails must not keep the others from being told.
            log.exception("the upstream could not be told of the end of a session")
        finally:
            limiter.release_on_behalf_of(session.id)

    async def run(self) -> None:
        """Reap until cancelled."""
        while True:
            await trio.sleep(self.config.touch_interval)
            try:
                await self.reap()
            except* (StoreError, OSError) as group:
                self.journal.failures += 1
                log.error("sessions and streams could not be ended, trying again later: %s", group.exceptions)

    async def _store_uses(self) -> None:
        """Bring the store up to date before anything is ended for idleness."""
        now = trio.current_time()
        stored, activities = [], []
        for session_id, presence in self._presences.items():
            if presence.in_use:
                presence.last_used = now
            elif presence.last_used < now - self.config.max_idle - self.config.touch_interval:
                if not presence.scopes and presence.last_used <= presence.last_stored:
                    self._forget(session_id)
            if presence.last_used > presence.last_stored:
                stored.append((presence, presence.last_used))
                activities.append(self._activity(session_id, presence))
        if activities:
            await self.store.touch_sessions(activities)
        for presence, last_used in stored:
            presence.last_stored = last_used

    async def _forget_gone(self) -> None:
        """End what is under way in sessions that were ended by another proxy."""
        busy = [session_id for session_id, presence in self._presences.items() if presence.scopes]
        for start in range(0, len(busy), _BATCH):
            asked = busy[start : start + _BATCH]
            for session_id in set(asked) - {s.id for s in await self.store.get_sessions_batch(asked)}:
                self._forget(session_id)

    def _expiry(self, created_at: float, last_activity: float) -> float:
        # The stored time of last use lags; nobody is ended early for that.
        return min(created_at + self.config.max_age, last_activity + self.config.max_idle + self.config.touch_interval)

    def _activity(self, session_id: SessionId, presence: Presence) -> Activity:
        last_activity = self._epoch + presence.last_used
        return Activity(session_id, last_activity, self._expiry(presence.created_at, last_activity))

    def _is_over(self, session: Session) -> bool:
        """Whether *session* has expired and nobody has come to end it yet."""
        now = self.now()
        if session.created_at + self.config.max_age <= now:
            return True
        if session.expires_at > now:
            return False
        presence = self._presences.get(session.id)
        if presence is None:
            return True
        return not presence.in_use and presence.last_used + self.config.max_idle <= trio.current_time()

    def _note_use(self, session_id: SessionId, presence: Presence) -> None:
        presence.last_used = now = trio.current_time()
        last = max(presence.last_stored, presence.last_marked)
        if now - last >= self.config.touch_interval and (worker := self._persistence()):
            presence.last_marked = now
            worker.mark_activity(self._activity(session_id, presence))

    def _forget(self, session_id: SessionId) -> None:
        presence = self._presences.pop(session_id)
        streams = () if presence is None else self.streams.forget(presence)
        if self._worker is not None:
            self._worker.forget(session_id, streams)
        if presence is not None:
            for scope in presence.scopes:
                scope.cancel()
