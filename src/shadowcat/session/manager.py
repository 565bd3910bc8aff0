"""Sessions from `initialize` to their end."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import trio

from ..errors import SessionLimitReached, SessionNotFound
from ..protocol import RawId, ResponseMode, mint_id
from .model import Session, SessionId, UpstreamSessionId, new_session_id
from .store import SessionStore

log = logging.getLogger(__name__)

_MAX_MINTED = 1000

_MAX_FAREWELLS = 32
"""Sessions that the upstream is told of at once when they expire."""


@attrs.frozen(kw_only=True)
class SessionConfig:
    """Limits on legacy sessions."""

    max_sessions: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """How many may be open at once; one more ``initialize`` is answered with 503."""

    max_idle: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """Seconds without a request or an open stream after which a session is ended."""

    reap_interval: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds between two looks for idle sessions."""


@attrs.define(eq=False)
class _Activity:
    """What this process has under way in one session."""

    last_used: float
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

    Constructing it starts nothing; `open_session_manager` runs it.  An injected
    store is never closed here.
    """

    def __init__(self, store: SessionStore, config: SessionConfig) -> None:
        self.store = store
        self.config = config
        self.on_expired: Callable[[Session], Awaitable[None]] | None = None
        """Called for each session that is ended for idleness, after it is gone
        from the store; the place to end it upstream as well."""

        self._activities: dict[SessionId, _Activity] = {}
        self._opening = 0

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
        """Keep a new session and return it; it is stored when this returns."""
        version = initialize_result.get("protocolVersion")
        session = Session(
            id=new_session_id(),
            upstream_session_id=upstream_session_id,
            response_mode=response_mode,
            protocol_version=version if isinstance(version, str) else "",
            initialize_params=initialize_params,
            initialize_result=initialize_result,
            created_at=time.time(),
        )
        await self.store.create_session(session)
        self._activities[session.id] = _Activity(trio.current_time())
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
        self._activity_of(session_id).last_used = trio.current_time()
        return session

    async def record_mode(self, session: Session, mode: ResponseMode) -> None:
        """Keep *mode* as how the session's last answer was relayed.

        Takes a second at most; a call does not fail because this does.
        """
        if session.response_mode is mode:
            return
        with trio.move_on_after(1):
            try:
                current = await self.store.get_session(session.id)
                await self.store.update_session(attrs.evolve(current, response_mode=mode))
            except SessionNotFound:
                log.debug("session ended while a request in it was answered")

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
        activity = self._activity_of(session.id)
        sent_id = activity.take(request_id)
        activity.in_use += 1
        try:
            yield sent_id
        finally:
            activity.in_use -= 1
            activity.last_used = trio.current_time()
            activity.release(request_id, sent_id)

    def ids_in_flight(self, session: Session, request_id: RawId) -> Sequence[RawId]:
        """Return the ids under which requests that the client called *request_id* went upstream."""
        pairs = self._activity_of(session.id).in_flight.get(_key(request_id), ())
        return [sent_id for own_id, sent_id in pairs if own_id == request_id]

    def minted_ids(self, session: Session) -> Mapping[RawId, RawId]:
        """Return the client's ids by those that replaced them, as they are at any time.

        The latest thousand: the answer to one may come late, on a stream that is resumed.
        """
        return self._activity_of(session.id).minted

    @contextmanager
    def listen(self, session: Session) -> Generator[trio.CancelScope, None, None]:
        """Yield a scope that is cancelled when the session ends."""
        activity = self._activity_of(session.id)
        with trio.CancelScope() as scope:
            activity.listeners.add(scope)
            try:
                yield scope
            finally:
                activity.listeners.discard(scope)

    async def reap(self) -> None:
        """End the sessions that have been idle for too long, here and then upstream.

        Safe to cancel: a session is either ended or untouched, though the
        upstream may then not have been told of one that is ended.
        """
        limit = trio.current_time() - self.config.max_idle
        idle = [key for key, seen in self._activities.items() if not seen.in_use and seen.last_used <= limit]
        limiter = trio.CapacityLimiter(_MAX_FAREWELLS)
        async with trio.open_nursery() as nursery:
            for session_id in idle:
                try:
                    session = await self.store.get_session(session_id)
                except SessionNotFound:
                    self._forget(session_id)
                    continue
                # Reading it took time, in which it may have been used.
                seen = self._activities.get(session_id)
                if seen is None or seen.in_use or seen.last_used > limit:
                    continue
                await self.end(session_id)
                await limiter.acquire_on_behalf_of(session_id)
                nursery.start_soon(self._tell_expired, session, limiter)
        if idle:
            log.info("ended %d idle sessions", len(idle))

    async def _tell_expired(self, session: Session, limiter: trio.CapacityLimiter) -> None:
        try:
            if self.on_expired is not None:
                await self.on_expired(session)
        finally:
            limiter.release_on_behalf_of(session.id)

    async def run(self) -> None:
        """Reap until cancelled."""
        while True:
            await trio.sleep(self.config.reap_interval)
            try:
                await self.reap()
            except Exception:
                # The boundary of housekeeping: a store or an upstream of the user's
                # own that fails must not end the proxy.
                log.exception("idle sessions could not be ended; trying again in %g s", self.config.reap_interval)

    def _activity_of(self, session_id: SessionId) -> _Activity:
        activity = self._activities.get(session_id)
        if activity is None:
            activity = self._activities[session_id] = _Activity(trio.current_time())
        return activity

    def _forget(self, session_id: SessionId) -> None:
        activity = self._activities.pop(session_id, None)
        if activity is not None:
            for scope in activity.listeners:
                scope.cancel()


@asynccontextmanager
async def open_session_manager(
    config: SessionConfig,
    store: SessionStore,
) -> AsyncGenerator[SessionManager, None]:
    """Run a `SessionManager` for as long as the block lasts.

    Cancel safe.  Sessions stay in *store*, which is not closed.
    """
    manager = SessionManager(store, config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        yield manager
        nursery.cancel_scope.cancel()
