"""What one process knows of a store that is down, and what it owes it.

Values only: nothing here waits.  A *copy* is what the store last said about a
session; copies are dropped when there are too many, those used longest ago
first.  What is *owed* is what the store has yet to be told, in its newest state
only; it is never dropped, and when there is too much of it no more is taken.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

import attrs

from ...envelope import MessageEnvelope
from ...errors import SessionConflict, SessionExists, SessionNotFound, StoreUnavailable
from ..model import Session, SessionId
from ..store import Activity

BORN = "shadowcat.born"
"""The key in a session's metadata that tells where it was created, if not in the store."""

_GONE = "no such session; send initialize, without Mcp-Session-Id, to open another"
_MAX_ATTEMPTS = 8


@attrs.define(eq=False)
class Copy:
    """What the store last said about a session."""

    session: Session | None
    """None: it is gone."""

    event_id: str | None = None
    is_event_id_known: bool = False


@attrs.define(eq=False)
class Owed:
    """A session whose newest state the store does not have."""

    session: Session | None
    """None: it was deleted."""

    base: int | None
    """The store's revision that the newest state builds on; None if the store has no such session."""

    changes: int = 0
    attempts: deque[Session] = attrs.field(factory=lambda: deque(maxlen=_MAX_ATTEMPTS))
    """What the store was sent before it fell silent, and may have taken."""

    @property
    def is_born(self) -> bool:
        """Whether the store has certainly never heard of the session."""
        return self.base is None and not self.attempts


class Backlog:
    """Copies and what is owed; answers as a store would, from both."""

    def __init__(self, max_copies: int, max_pending: int) -> None:
        self._max_copies = max_copies
        self._max_pending = max_pending
        self._copies: OrderedDict[SessionId, Copy] = OrderedDict()
        self.owed: dict[SessionId, Owed] = {}
        self.touches: dict[SessionId, Activity] = {}
        self.event_ids: dict[SessionId, str] = {}
        self.frames: deque[MessageEnvelope] = deque()

    @property
    def copies(self) -> int:
        """How many copies are kept."""
        return len(self._copies)

    @property
    def pending(self) -> int:
        """How many writes are owed."""
        return len(self.owed) + len(self.touches) + len(self.event_ids) + len(self.frames)

    # What the store said.

    def saw(self, session: Session, *, is_new: bool = False) -> Session:
        """Note that the store has *session*; return it with the times that it has yet to be told.

        An answer older than what is known does not change what is known.
        """
        session = self.with_touches(session)
        copy = self._copies.get(session.id)
        if copy is None or is_new:
            self._keep(session.id, Copy(session, None, is_new))
        elif copy.session is not None:
            newer = session if session.revision >= copy.session.revision else copy.session
            copy.session = _touched(newer, copy.session.last_activity, copy.session.expires_at)
            self._copies.move_to_end(session.id)
        return session

    def with_touches(self, session: Session) -> Session:
        """Return *session* with the times that the store has yet to be told."""
        touch = self.touches.get(session.id)
        return session if touch is None else _touched(session, touch.last_activity, touch.expires_at)

    def saw_gone(self, session_id: SessionId) -> None:
        """Note that the store has no such session; nothing that it sends late brings it back."""
        if session_id in self._copies:
            self._keep(session_id, Copy(None))
        self._drop(session_id)

    def saw_touch(self, activity: Activity) -> None:
        """Note that the store took *activity*."""
        copy = self._copies.get(activity.session_id)
        if copy is not None and copy.session is not None:
            copy.session = _touched(copy.session, activity.last_activity, activity.expires_at)

    def saw_event_id(self, session_id: SessionId, event_id: str | None) -> None:
        """Note the session's last event id."""
        copy = self._copies.get(session_id)
        if copy is not None:
            copy.event_id, copy.is_event_id_known = event_id, True

    # What is asked while the store is down.

    def get(self, session_id: SessionId) -> Session:
        """Return the newest state known."""
        session = self._find(session_id)
        if session is None:
            raise StoreUnavailable("the session store is unavailable and nothing is known of this session; try again")
        return session

    def sessions(self) -> Iterator[Session]:
        """Yield every session known."""
        yield from self.owed_sessions()
        for session_id, copy in self._copies.items():
            if copy.session is not None and session_id not in self.owed:
                yield copy.session

    def owed_sessions(self) -> Iterator[Session]:
        """Yield the sessions whose newest state the store does not have."""
        yield from (owed.session for owed in self.owed.values() if owed.session is not None)

    def create(self, session: Session, *, is_attempted: bool) -> None:
        """Keep a new session here for now."""
        owed = self.owed.get(session.id)
        if owed is not None and owed.session is None:
            raise StoreUnavailable("the store has yet to be told that a session of this id was deleted; try again")
        copy = self._copies.get(session.id)
        if owed is not None or (copy is not None and copy.session is not None):
            raise SessionExists("a session with this id exists already")
        born = attrs.evolve(session, metadata={**session.metadata, BORN: "fallback"})
        self._owe(session.id, born, None, session if is_attempted else None)
        self._keep(session.id, Copy(born, None, True))

    def update(self, session: Session, *, is_attempted: bool) -> Session:
        """Replace a session as `SessionStore.update_session` does.  One that nothing is known of is taken as it is."""
        stored = self._find(session.id) or session
        if stored.revision != session.revision:
            raise SessionConflict("the session was updated elsewhere; read it again")
        newest = attrs.evolve(
            session,
            revision=session.revision + 1,
            last_activity=stored.last_activity,
            expires_at=stored.expires_at,
        )
        self._owe(session.id, newest, session.revision, newest if is_attempted else None)
        return newest

    def delete(self, session_id: SessionId) -> None:
        """Remember that a session is gone."""
        self.get(session_id)
        owed = self.owed.get(session_id)
        if owed is not None and owed.is_born:
            del self.owed[session_id]
            self._keep(session_id, Copy(None))
        else:
            self._owe(session_id, None, 0, None)
        self._drop(session_id)

    def touch(self, activity: Activity) -> None:
        """Note that a session was used, whether anything is known of it or not."""
        session_id = activity.session_id
        self.saw_touch(activity)
        owed = self.owed.get(session_id)
        if owed is not None:
            if owed.session is None:
                return
            owed.session = _touched(owed.session, activity.last_activity, activity.expires_at)
        elif session_id in self._copies and self._copies[session_id].session is None:
            return
        before = self.touches.get(session_id)
        if before is None:
            self._take_place()
            self.touches[session_id] = activity
        else:
            last_activity = max(before.last_activity, activity.last_activity)
            self.touches[session_id] = Activity(session_id, last_activity, max(before.expires_at, activity.expires_at))

    def store_event_id(self, session_id: SessionId, event_id: str) -> None:
        """Remember the newest event id, whether anything is known of the session or not."""
        self._find(session_id)
        if session_id not in self.event_ids:
            self._take_place()
        self.event_ids[session_id] = event_id

    def event_id(self, session_id: SessionId) -> str | None:
        """Return the newest event id known."""
        if session_id in self.event_ids:
            return self.event_ids[session_id]
        self.get(session_id)
        copy = self._copies.get(session_id)
        if copy is not None and copy.is_event_id_known:
            return copy.event_id
        if self.is_born(session_id):
            return None
        raise StoreUnavailable("the session store is unavailable and this session's event id is not known; try again")

    def is_born(self, session_id: SessionId) -> bool:
        """Tell whether the store has certainly never heard of the session."""
        return session_id in self.owed and self.owed[session_id].is_born

    def add_frame(self, frame: MessageEnvelope) -> None:
        """Keep a frame, behind those that are kept already."""
        self.get(SessionId(frame.session_id))
        self._take_place()
        self.frames.append(frame)

    def frames_of(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        """Return the frames that the store does not have yet."""
        return [frame for frame in self.frames if frame.session_id == session_id]

    def drop_frames(self, session_id: SessionId) -> None:
        """Forget the frames that the store does not have yet."""
        self.frames = deque(frame for frame in self.frames if frame.session_id != session_id)

    def expire(self, now: float, limit: int) -> list[Session]:
        """End sessions that are due and that nobody else can know of."""
        born = (owed.session for owed in self.owed.values() if owed.is_born and owed.session is not None)
        due = [session for session in born if session.expires_at <= now][:limit]
        for session in due:
            self.delete(session.id)
        return due

    # What the store has been told.

    def settle(self, session_id: SessionId, stored: Session | None) -> None:
        """Owe no more: the store has *stored*, or no such session."""
        del self.owed[session_id]
        copy = self._copies.get(session_id, Copy(None))
        is_known = copy.is_event_id_known or session_id in self.event_ids
        self._keep(session_id, Copy(stored, self.event_ids.get(session_id, copy.event_id), is_known))
        if stored is None:
            self._drop(session_id)

    def _find(self, session_id: SessionId) -> Session | None:
        entry = self.owed.get(session_id) or self._copies.get(session_id)
        if entry is None:
            return None
        if entry.session is None:
            raise SessionNotFound(_GONE)
        if session_id in self._copies:
            self._copies.move_to_end(session_id)
        return entry.session

    def _owe(self, session_id: SessionId, session: Session | None, base: int | None, attempt: Session | None) -> None:
        owed = self.owed.get(session_id)
        if owed is None:
            self._take_place()
            owed = self.owed[session_id] = Owed(session, base)
        owed.session = session
        owed.changes += 1
        if attempt is not None:
            owed.attempts.append(attempt)

    def _take_place(self) -> None:
        if self.pending >= self._max_pending:
            raise StoreUnavailable("the session store is unavailable and too much is waiting for it; try again later")

    def _keep(self, session_id: SessionId, copy: Copy) -> None:
        self._copies[session_id] = copy
        self._copies.move_to_end(session_id)
        while len(self._copies) > self._max_copies:
            self._copies.popitem(last=False)

    def _drop(self, session_id: SessionId) -> None:
        self.touches.pop(session_id, None)
        self.event_ids.pop(session_id, None)
        if self.frames:
            self.drop_frames(session_id)


def _touched(session: Session, last_activity: float, expires_at: float) -> Session:
    return attrs.evolve(
        session,
        last_activity=max(session.last_activity, last_activity),
        expires_at=max(session.expires_at, expires_at),
    )
