"""Sessions in this process's memory: the default."""

from __future__ import annotations

from ...errors import SessionExists, SessionNotFound
from ..model import Session, SessionId
from ..store import SessionStore

# No method here is a checkpoint: each is a dictionary operation that cannot wait,
# and a checkpoint costs more than the whole look-up (measured: 5 us against 0.2).


class InMemoryStore(SessionStore):
    """Keep sessions in a dictionary; they are gone when the process ends."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, Session] = {}

    async def create_session(self, session: Session) -> None:
        if session.id in self._sessions:
            raise SessionExists("a session with this id exists already")
        self._sessions[session.id] = session

    async def get_session(self, session_id: SessionId) -> Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise _not_found() from None

    async def update_session(self, session: Session) -> None:
        if session.id not in self._sessions:
            raise _not_found()
        self._sessions[session.id] = session

    async def delete_session(self, session_id: SessionId) -> None:
        if self._sessions.pop(session_id, None) is None:
            raise _not_found()

    async def list_sessions(self) -> list[Session]:
        return list(self._sessions.values())

    async def count_sessions(self) -> int:
        return len(self._sessions)


def _not_found() -> SessionNotFound:
    return SessionNotFound("no such session; send initialize, without Mcp-Session-Id, to open another")
