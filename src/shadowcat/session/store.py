"""Where sessions are kept: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .model import Session, SessionId


class SessionStore(ABC):
    """Where sessions live between two requests.

    A store may be shared by several proxies.  Each method is atomic: it happened
    in full or not at all, also when it is cancelled, and another caller never
    sees half of it.  A method may be a checkpoint or not; a caller that loops
    over many calls adds its own.
    """

    @abstractmethod
    async def create_session(self, session: Session) -> None:
        """Keep a new *session*.

        If cancelled, it may have been created: delete it to be sure.

        Raises:
            SessionExists: There is one with this id already; it is left as it was.
        """

    @abstractmethod
    async def get_session(self, session_id: SessionId) -> Session:
        """Return the session called *session_id*.

        Raises:
            SessionNotFound: There is none.
        """

    @abstractmethod
    async def update_session(self, session: Session) -> None:
        """Replace the session that has the id of *session*, as a whole.

        Raises:
            SessionNotFound: There is none; none is created.
        """

    @abstractmethod
    async def delete_session(self, session_id: SessionId) -> None:
        """Forget a session and all that belongs to it.

        Raises:
            SessionNotFound: There is none.
        """

    @abstractmethod
    async def list_sessions(self) -> Sequence[Session]:
        """Return every session, in no particular order."""

    @abstractmethod
    async def count_sessions(self) -> int:
        """Return how many sessions there are, without loading them."""
