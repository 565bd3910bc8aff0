"""What became of the sessions that passed through this process."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sized

import attrs

from .model import Session, SessionId


class EndReason(enum.Enum):
    """Why a session is over.  A closed set."""

    CLIENT = "client"
    """The client ended it."""
    EXPIRED = "expired"
    """It was idle for too long, or too old."""
    UPSTREAM = "upstream"
    """The server has lost it for good."""
    ADMIN = "admin"
    """Whoever runs the proxy ended it."""


@attrs.frozen
class SessionStatistics:
    """What became of sessions so far."""

    here: int
    """Sessions that this process has had to do with of late; others of the store are not counted."""
    opened: int
    ended: Mapping[EndReason, int]
    """Those that this process ended."""
    failures: int
    """Times that the store did not let sessions be looked through for those that are over."""


class SessionJournal:
    """Counts, and tells whoever wants to know.

    Args:
        here: The sessions that this process has to do with.
    """

    def __init__(self, here: Sized = ()) -> None:
        self._here = here
        self.opened = 0
        self.ended = dict.fromkeys(EndReason, 0)
        self.failures = 0
        self.on_opened: Callable[[Session], Awaitable[None]] | None = None
        """Called when a session has been stored, before its client learns of it."""
        self.on_ended: Callable[[SessionId, EndReason], Awaitable[None]] | None = None
        """Called when a session is gone from the store."""

    async def note_opened(self, session: Session) -> None:
        """Count a new session.  Cancel safe; a checkpoint only if somebody wants to know."""
        self.opened += 1
        if self.on_opened is not None:
            await self.on_opened(session)

    async def note_ended(self, session_id: SessionId, reason: EndReason) -> None:
        """Count a session that is over.  Cancel safe; a checkpoint only if somebody wants to know."""
        self.ended[reason] += 1
        if self.on_ended is not None:
            await self.on_ended(session_id, reason)

    def statistics(self) -> SessionStatistics:
        """Return a snapshot."""
        return SessionStatistics(len(self._here), self.opened, dict(self.ended), self.failures)
