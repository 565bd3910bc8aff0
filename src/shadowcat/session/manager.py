"""Sessions from `initialize` to their end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import trio

from ..errors import SessionConflict, SessionLimitReached, SessionNotFound, StoreError
from ..protocol import RawId, ResponseMode, mint_id
from .model import Session, SessionId, UpstreamSessionId, new_session_id
from .persistence import PersistenceConfig, PersistenceWorker
from .store import Activity, SessionStore

log = logging.getLogger(__name__)

_MAX_MINTED = 1000

_MAX_FAREWELLS = 32
"""Sessions that the upstream is told of at once when they expire."""

_GONE = "no such session; send initialize, without Mcp-Session-Id, to open another"


@attrs.frozen(kw_only=True)
class SessionConfig:
    """Limits on legacy sessions, and how they are kept."""

    max_sessions: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """How many may be open at once; one more ``initialize`` is answered with 503."""

    max_idle: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """Seconds without a request or an open stream after which a session is ended."""

    max_age: float = attrs.field(default=math.inf, validator=attrs.validators.gt(0))
    """Seconds after which a session is ended even if it is used."""

    reap_interval: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds between two looks for sessions to end; fewer if ``max_idle`` is short."""

    max_pending_per_session: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    """0 turns writing behind off: last event ids are then not stored, times of use only before expiry."""

    persistence: PersistenceConfig = attrs.field(factory=PersistenceConfig)

    @property
    def touch_interval(self) -> float:
        """Seconds that the stored time of last use may lag behind."""
        return min(self.reap_interval, self.max_idle / 4)


@attrs.define(eq=False)
class _Presence:
    """What this process has under way in one session."""

    created_at: float
    last_used: float
    """By trio's clock."""
    last_stored: float = -math.inf
    """Which use the store is known to have."""
    last_marked: float = -math.inf
    """Which use was handed to the persistence worker."""
    in_use: int = 0
    in_flight: dict[RawId, list[tuple[RawId, RawId]]] = attrs.field(factory=dict)
    """Of requests under way, the client's id and the one that went upstream."""
    minted: dict[RawId, RawId] = attrs.field(factory=dict)
    """The client's id for each of the latest that were replaced."""
    listeners: set[trio.CancelScope] = attrs.field(factory=set)

    def take(self, request_id: RawId | None) -> RawId | None:
        """Return the id under which a request goes upstream, and keep it until `release`."""
        if request_id is None:
            return None
        pairs = self.in_flight.setdefault(_key(request_id), [])
        sent_id = request_id
        if pairs:
            sent_id = mint_id()
            self.minted[sent_id] = request_id
            if len(self.minted) > _MAX_MINTED:
                del self.minted[next(iter(self.minted))]
        pairs.append((request_id, sent_id))
        return sent_id

    def release(self, request_id: RawId | None, sent_id: RawId | None) -> None:
        """Free what `take` returned."""
        if request_id is None or sent_id is None:
            return
        pairs = self.in_flight[_key(request_id)]
        pairs.remove((request_id, sent_id))
        if not pairs:
            del self.in_flight[_key(request_id)]


def _key(request_id: RawId) -> RawId:
    """Return what ids that a careless server takes for the same have in common."""
    return request_id.strip(b'"')


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

        self._presences: dict[SessionId, _Presence] = {}
        self._opening = 0
        self._epoch = 0.0
        self._nursery: trio.Nursery | None = None
        self._worker: PersistenceWorker | None = None

    def open(self, nursery: trio.Nursery) -> None:
        """Begin to write behind, in *nursery*, when there is something to write."""
        self._nursery = nursery
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
            self._worker = PersistenceWorker(self.store, self.config.persistence)
            self._nursery.start_soon(self._worker.run)
        return self._worker

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
    ) -> Session:
        """Keep a new session and return it; it is stored when this returns.

        If cancelled, there is none.
        """
        version = initialize_result.get("protocolVersion")
        now = self.now()
        session = Session(
            id=new_session_id(),
            upstream_session_id=upstream_session_id,
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
        except trio.Cancelled:
            with trio.move_on_after(1, shield=True):
                await self.end(session.id)
            raise
        self._presences[session.id] = _Presence(now, trio.current_time(), last_stored=trio.current_time())
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
        self._note_use(session.id, self._presence_of(session))
        return session

    async def record_mode(self, session: Session, mode: ResponseMode) -> None:
        """Keep *mode* as how the session's last answer was relayed.

        Takes a second at most; a call does not fail because this does.
        """
        if session.response_mode is not mode:
            with trio.move_on_after(1):
                await self._change(session.id, lambda current: attrs.evolve(current, response_mode=mode))

    def record_event_id(self, session: Session, event_id: str) -> None:
        """Have *event_id* stored as the session's last, a little later."""
        if worker := self._persistence():
            worker.mark_event_id(session.id, event_id)

    async def _change(self, session_id: SessionId, change: Callable[[Session], Session]) -> None:
        """Update what is only good to know; a call does not fail because it could not be."""
        try:
            await self.store.modify(session_id, change)
        except (SessionNotFound, SessionConflict, StoreError) as error:
            log.debug("a session was not updated: %s", error)

    async def end(self, session_id: SessionId) -> None:
        """Forget a session and end its listening streams.  Does nothing if it is gone."""
        self._forget(session_id)
        try:
            await self.store.delete_session(session_id)
        except SessionNotFound:
            log.debug("session was ended already")

    @contextmanager
    def use(self, session: Session, request_id: RawId | None = None) -> Generator[RawId | None, None, None]:
        """Keep the session from expiring while a request in it is under way.

        Yields the id to send upstream: *request_id*, or another if that is in flight
        in this session already.
        """
        presence = self._presence_of(session)
        sent_id = presence.take(request_id)
        presence.in_use += 1
        try:
            yield sent_id
        finally:
            presence.in_use -= 1
            self._note_use(session.id, presence)
            presence.release(request_id, sent_id)

    def ids_in_flight(self, session: Session, request_id: RawId) -> Sequence[RawId]:
        """Return the ids under which requests that the client called *request_id* went upstream."""
        pairs = self._presence_of(session).in_flight.get(_key(request_id), ())
        return [sent_id for own_id, sent_id in pairs if own_id == request_id]

    def minted_ids(self, session: Session) -> Mapping[RawId, RawId]:
        """Return the client's ids by those that replaced them, as they are at any time.

        The latest thousand: the answer to one may come late, on a stream that is resumed.
        """
        return self._presence_of(session).minted

    @contextmanager
    def listen(self, session: Session) -> Generator[trio.CancelScope, None, None]:
        """Yield a scope that is cancelled when the session ends."""
        presence = self._presence_of(session)
        with trio.CancelScope() as scope:
            presence.listeners.add(scope)
            try:
                yield scope
            finally:
                presence.listeners.discard(scope)

    async def reap(self) -> None:
        """End the sessions that are idle or too old, in the store and then upstream.

        Several proxies may do so at once: each session is given to one of them.
        Safe to cancel: a session is either ended or untouched, though the
        upstream may then not have been told of one that is ended.
        """
        now = self.now()
        await self._store_uses()
        limiter = trio.CapacityLimiter(_MAX_FAREWELLS)
        async with trio.open_nursery() as nursery:
            while expired := await self.store.expire_sessions(now):
                for session in expired:
                    self._forget(session.id)
                    await limiter.acquire_on_behalf_of(session.id)
                    nursery.start_soon(self._tell_expired, session, limiter)
                log.info("ended %d sessions", len(expired))

    async def _tell_expired(self, session: Session, limiter: trio.CapacityLimiter) -> None:
        try:
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
                log.error("sessions could not be ended, trying again later: %s", group.exceptions)

    async def _store_uses(self) -> None:
        """Bring the store up to date before anything is ended for idleness."""
        now = trio.current_time()
        stored, activities = [], []
        for session_id, presence in list(self._presences.items()):
            if presence.in_use:
                presence.last_used = now
            elif presence.last_used < now - self.config.max_idle - self.config.touch_interval:
                if not presence.listeners and presence.last_used <= presence.last_stored:
                    del self._presences[session_id]
            if presence.last_used > presence.last_stored:
                stored.append((presence, presence.last_used))
                activities.append(self._activity(session_id, presence))
        if activities:
            await self.store.touch_sessions(activities)
        for presence, last_used in stored:
            presence.last_stored = last_used

    def _expiry(self, created_at: float, last_activity: float) -> float:
        # The stored time of last use lags; nobody is ended early for that.
        return min(created_at + self.config.max_age, last_activity + self.config.max_idle + self.config.touch_interval)

    def _activity(self, session_id: SessionId, presence: _Presence) -> Activity:
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

    def _note_use(self, session_id: SessionId, presence: _Presence) -> None:
        presence.last_used = now = trio.current_time()
        last = max(presence.last_stored, presence.last_marked)
        if now - last >= self.config.touch_interval and (worker := self._persistence()):
            presence.last_marked = now
            worker.mark_activity(self._activity(session_id, presence))

    def _presence_of(self, session: Session) -> _Presence:
        presence = self._presences.get(session.id)
        if presence is None:
            presence = self._presences[session.id] = _Presence(session.created_at, trio.current_time())
        return presence

    def _forget(self, session_id: SessionId) -> None:
        if self._worker is not None:
            self._worker.forget(session_id)
        presence = self._presences.pop(session_id, None)
        if presence is not None:
            for scope in presence.listeners:
                scope.cancel()


@asynccontextmanager
async def open_session_manager(config: SessionConfig, store: SessionStore) -> AsyncGenerator[SessionManager, None]:
    """Run a `SessionManager` for as long as the block lasts.

    Sessions stay in *store*, which is not closed; what is to be written behind
    is written before this returns, for a few seconds at most, also when cancelled.
    """
    manager = SessionManager(store, config)
    async with trio.open_nursery() as persistence, trio.open_nursery() as reaping:
        manager.open(persistence)
        reaping.start_soon(manager.run)
        yield manager
        reaping.cancel_scope.cancel()
        persistence.cancel_scope.cancel()
