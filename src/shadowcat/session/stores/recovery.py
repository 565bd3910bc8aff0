"""Telling a store that is back what it missed.

Order matters: sessions first, since the rest needs them; frames last, in the
order they were added.  What changes while it is being written is written again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple

import attrs

from ...errors import SessionConflict, SessionExists, SessionNotFound, StoreCorrupt
from ..model import Session, SessionId
from ..store import SessionStore
from .backlog import BORN, Backlog, Owed

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

K = TypeVar("K")
V = TypeVar("V")

_BATCH = 100


class Ask(Protocol):
    """Makes one call to the primary."""

    async def __call__(self, operation: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Raise `StoreUnavailable` if it is down."""


class Recovery:
    """Writes what a backlog owes to its primary; stops at the first `StoreUnavailable`.

    Safe to cancel: what was under way is still owed.
    """

    def __init__(self, primary: SessionStore, backlog: Backlog, ask: Ask) -> None:
        self._primary = primary
        self._backlog = backlog
        self._ask = ask
        self.pushed = 0
        self.conflicts = 0

    async def push(self) -> None:
        """Write everything.

        Raises:
            StoreUnavailable: The primary is down again.
        """
        while self._backlog.owed:
            for session_id in list(self._backlog.owed):
                await self._push_session(session_id)
        await self._push_touches()
        await self._push_event_ids()
        await self._push_frames()

    async def _push_session(self, session_id: SessionId) -> None:
        owed = self._backlog.owed.get(session_id)
        if owed is None:  # born and deleted while others were written
            return
        changes, newest = owed.changes, owed.session
        try:
            stored = await self._write(session_id, owed)
        except StoreCorrupt as error:
            log.error("a session was lost, since the store has something else in its place: %s", error)
            self.conflicts += 1
            stored = None
        if stored is None or newest is None:
            is_settled = True
        else:
            is_settled = owed.changes == changes and stored.revision >= newest.revision
        if is_settled:
            self._backlog.settle(session_id, stored)
            self.pushed += 1

    async def _write(self, session_id: SessionId, owed: Owed) -> Session | None:
        """Write the newest state once; return what the primary has then, None if it has no such session."""
        session = owed.session
        try:
            if session is None:
                await self._ask(self._primary.delete_session, session_id)
                return None
            if owed.base is None:
                owed.attempts.append(session)
                await self._ask(self._primary.create_session, session)
                stored = session
            else:
                attempt = attrs.evolve(session, revision=owed.base)
                owed.attempts.append(attempt)
                stored = await self._ask(self._primary.update_session, attempt)
        except SessionNotFound:
            self.conflicts += session is not None
            return None
        except (SessionConflict, SessionExists):
            assert session is not None
            return await self._resolve(session, owed)
        owed.base = stored.revision
        return stored

    async def _resolve(self, ours: Session, owed: Owed) -> Session | None:
        """Find out who was faster, and build on that: if ours is newer it is written over it next."""
        try:
            theirs = await self._ask(self._primary.get_session, ours.id)
        except SessionNotFound:
            self.conflicts += 1
            return None
        if not any(_is_same(theirs, attempt) for attempt in owed.attempts):
            self.conflicts += 1
            log.info("a session was updated elsewhere in the outage; the newer revision stays")
        owed.base = theirs.revision
        return theirs

    async def _push_touches(self) -> None:
        touches = self._backlog.touches
        while some := dict(list(touches.items())[:_BATCH]):
            await self._ask(self._primary.touch_sessions, list(some.values()))
            self.pushed += _settle(touches, some)

    async def _push_event_ids(self) -> None:
        event_ids = self._backlog.event_ids
        while some := dict(list(event_ids.items())[:_BATCH]):
            await self._ask(self._primary.store_event_ids_batch, list(some.items()))
            for session_id, event_id in some.items():
                self._backlog.saw_event_id(session_id, event_id)
            self.pushed += _settle(event_ids, some)

    async def _push_frames(self) -> None:
        while self._backlog.frames:
            frame = self._backlog.frames[0]
            try:
                await self._ask(self._primary.add_frame, frame)
            except SessionNotFound:
                log.debug("a session ended before its frames were stored")
            if self._backlog.frames and self._backlog.frames[0] is frame:
                self._backlog.frames.popleft()
                self.pushed += 1


def _settle(pending: dict[K, V], written: dict[K, V]) -> int:
    """Take out what was written, unless it was replaced meanwhile; return how many were written."""
    for key, value in written.items():
        if pending.get(key) is value:
            del pending[key]
    return len(written)


def _is_same(theirs: Session, ours: Session) -> bool:
    """Tell whether the store has what we sent it, whatever it counts and adds itself."""
    return _comparable(theirs) == _comparable(ours)


def _comparable(session: Session) -> Session:
    metadata = {key: value for key, value in session.metadata.items() if key != BORN}
    return attrs.evolve(session, revision=0, last_activity=0.0, expires_at=0.0, metadata=metadata)
