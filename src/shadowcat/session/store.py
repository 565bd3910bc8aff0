"""Where sessions are kept: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import attrs
import trio

from ..envelope import MessageEnvelope
from ..errors import SessionConflict, SessionNotFound
from .model import Session, SessionId
from .rates import RateCounter
from .stream import LogLimits, OwnerId, StreamAppend, StreamId, StreamKey, StreamRecord, StreamSlice

_MAX_CONFLICTS = 1000
"""Rounds that `SessionStore.modify` loses to others before it gives up."""

_TAIL_INTERVAL = 0.05
"""Seconds between two looks at a stream that another proxy appends to."""


@attrs.frozen
class Activity:
    """When a session was last used, and until when it lives."""

    session_id: SessionId
    last_activity: float
    expires_at: float


class SessionStore(ABC):
    """Where sessions live between two requests, and between two processes.

    A store may be shared by several proxies.  Every method is atomic unless it
    says otherwise: it happened in full or not at all, also when cancelled, and
    nobody sees half of it.  Whoever reads after a write has returned, in whatever
    process, sees it.  A cancelled write may have happened; all writes but
    `create_session`, `add_frame` and `claim_stream` can simply be made again.  A method may be a
    checkpoint or not; a caller that loops over many calls adds its own.

    Every method may raise:

    * `StoreUnavailable`: the backend cannot be reached or does not answer in
      time.  Reads can be repeated; a write may have happened.
    * `StoreCorrupt`: the backend holds something that cannot be read.

    A store need not keep event streams: those methods, from `append_events` to
    `wait_events`, keep nothing unless they are overridden.  A client can then resume
    only at the proxy that has its stream in memory.
    """

    keeps_streams: bool = False
    """Whether event streams are kept; set by a store that overrides those methods, all of them."""

    rates: RateCounter | None = None
    """What counts for all proxies that share the store; None if each counts for itself."""

    @abstractmethod
    async def create_session(self, session: Session) -> None:
        """Keep a new *session*, as it is.  Atomic.

        If cancelled, it may have been created: delete it to be sure.

        Raises:
            SessionExists: There is one with this id already; it is left as it was.
        """

    @abstractmethod
    async def get_session(self, session_id: SessionId) -> Session:
        """Return the session called *session_id*, expired or not.  Atomic.

        Raises:
            SessionNotFound: There is none.
        """

    @abstractmethod
    async def update_session(self, session: Session) -> Session:
        """Replace the session as a whole, if nobody else has since it was read.  Atomic.

        Returns what is stored now: *session* with the next revision.  Its
        ``last_activity`` and ``expires_at`` stay what `touch_sessions` made them.

        Raises:
            SessionNotFound: There is none; none is created.
            SessionConflict: The stored revision is not that of *session*.
        """

    @abstractmethod
    async def delete_session(self, session_id: SessionId) -> None:
        """Forget a session, its frames, its streams and its event ids.  Atomic.

        Raises:
            SessionNotFound: There is none.
        """

    @abstractmethod
    async def list_sessions(self) -> Sequence[Session]:
        """Return every session, in no particular order.

        Not atomic: sessions made or ended meanwhile may be there or not.
        """

    @abstractmethod
    async def count_sessions(self) -> int:
        """Return how many sessions there are, without loading them.  Atomic."""

    @abstractmethod
    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        """Note that sessions were used.  Atomic for each of them.

        Times only move forward, in whatever order calls arrive; revisions do not
        change.  Sessions that are gone are passed over.
        """

    @abstractmethod
    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        """Delete up to *limit* sessions whose ``expires_at`` is *now* or before, and return them.

        Atomic for each: of several proxies that try at once, one gets it.
        """

    @abstractmethod
    async def add_frame(self, frame: MessageEnvelope) -> None:
        """Append a message to its session's frames.  Atomic; cancelled, it may be there.

        A store keeps at least the newest thousand of a session and may drop older.

        Raises:
            SessionNotFound: There is no such session.
        """

    @abstractmethod
    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        """Return the frames of a session in the order they were added; none if it is gone.  Atomic."""

    @abstractmethod
    async def delete_frames(self, session_id: SessionId) -> None:
        """Drop the frames of a session; the session stays.  Atomic."""

    @abstractmethod
    async def count_frames(self, session_id: SessionId) -> int:
        """Return how many frames a session has, without loading them.  Atomic."""

    @abstractmethod
    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        """Remember the newest event id of a session.  Atomic.

        Raises:
            SessionNotFound: There is no such session.
        """

    @abstractmethod
    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        """Return what `store_last_event_id` stored last; None if nothing.  Atomic.

        Raises:
            SessionNotFound: There is no such session.
        """

    async def append_events(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        """Add to the logs of streams; return those that were refused.

        The first append makes the stream.  One is refused if its session is gone, or if
        the stream has another owner or fence by now.  Atomic for each; made again, it
        changes nothing: events at or below the newest position are passed over, and so is
        an append that is behind it altogether.  What is beyond *limits* is dropped, the
        oldest first; ages count from the newest ``recorded_at``.  A store may be late in
        dropping, but not without bound.
        """
        return ()

    async def read_events(
        self, session_id: SessionId, stream_id: StreamId, after: int, limit: int = 100
    ) -> StreamSlice | None:
        """Return a stream with its events beyond position *after*, at most *limit*, in order; None if unknown.

        Atomic: events that the record counts and that are not there were dropped.
        """
        return None

    async def claim_stream(self, session_id: SessionId, stream_id: StreamId, owner: OwnerId) -> StreamRecord | None:
        """Make *owner* the owner of a stream if it has no live one; return the stream, None if unknown.

        Atomic: of several claimants one gets it, with a fence of its own, and whoever
        owned it before can append no more.  The others get the record as it is.  A live
        owner that claims its own stream gets a new fence too.
        """
        return None

    async def renew_owner(self, owner: OwnerId, ttl: float) -> None:
        """Count *owner* as alive for *ttl* seconds from now, by the store's own clock; 0 for no more.  Atomic."""

    async def expire_streams(self, before: float) -> int:
        """Drop streams that have ended, and whose newest append came before that time; return how many.

        Seconds since the Unix epoch, compared to the newest ``appended_at``.  Not atomic.
        Streams that have not ended go with their session, and so do the events of one that
        is silent: it is `append_events` that drops those that are too old.
        """
        return 0

    async def wait_events(self, session_id: SessionId, stream_id: StreamId, after: int) -> None:
        """Return when a stream may have an event beyond *after*, or may have ended or lost its owner.

        May return early, and returns within a second whatever happens.  By default it
        just lets a little time pass.
        """
        await trio.sleep(_TAIL_INTERVAL)

    async def get_sessions_batch(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        """Return those of the sessions that exist, in the order asked for.

        One by one unless the store does better, so not atomic as a whole.
        """
        found = []
        for session_id in session_ids:
            try:
                found.append(await self.get_session(session_id))
            except SessionNotFound:
                continue
        return found

    async def update_sessions_batch(self, sessions: Sequence[Session]) -> Sequence[SessionId]:
        """Update each session as `update_session` does; return the ids that were not.

        Those are gone, or were updated by somebody else.  Atomic for each only.
        """
        refused = []
        for session in sessions:
            try:
                await self.update_session(session)
            except (SessionNotFound, SessionConflict):
                refused.append(session.id)
        return refused

    async def store_event_ids_batch(self, event_ids: Sequence[tuple[SessionId, str]]) -> Sequence[SessionId]:
        """Store the newest event id of each session; return the ids of sessions that are gone.

        Atomic for each only.
        """
        gone = []
        for session_id, event_id in event_ids:
            try:
                await self.store_last_event_id(session_id, event_id)
            except SessionNotFound:
                gone.append(session_id)
        return gone

    async def modify(self, session_id: SessionId, change: Callable[[Session], Session]) -> Session:
        """Replace a session by what *change* makes of it; try again when somebody was faster.

        *change* may be called several times, and must do nothing else.  Atomic.

        Raises:
            SessionNotFound: There is none.
            SessionConflict: Others were faster a thousand times running.
        """
        for _ in range(_MAX_CONFLICTS):
            try:
                return await self.update_session(change(await self.get_session(session_id)))
            except SessionConflict:
                continue
        raise SessionConflict("this session is updated too often elsewhere; try again later")

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is pending and let go of the backend.  Safe to call twice.

        If cancelled, the backend is let go of all the same.
        """
