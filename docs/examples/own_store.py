"""Keep each session in a file of its own, in a directory that several proxies may share.

python own_store.py DIRECTORY http://127.0.0.1:9000/mcp
"""

import fcntl
import hashlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec
import trio

from shadowcat import ReverseProxyServerBuilder, Session, SessionStore
from shadowcat.abc import Activity, MessageEnvelope, SessionId
from shadowcat.errors import SessionConflict, SessionExists, SessionNotFound, StoreCorrupt, StoreUnavailable

T = TypeVar("T")


@attrs.define
class Record:
    """What a file holds."""

    session: Session
    event_id: str | None = None
    frames: list[MessageEnvelope] = attrs.field(factory=list)


class DirectoryStore(SessionStore):
    """A file for each session, and a lock for all."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files hold session ids
        self._directory = directory

    async def create_session(self, session: Session) -> None:
        def create() -> None:
            if self._path(session.id).exists():
                raise SessionExists("a session with this id exists already")
            self._save(Record(session))

        await self._locked(create)

    async def get_session(self, session_id: SessionId) -> Session:
        return (await self._locked(self._load, session_id)).session

    async def update_session(self, session: Session) -> Session:
        def update() -> Session:
            record = self._load(session.id)
            stored = record.session
            if stored.revision != session.revision:
                raise SessionConflict("the session was updated elsewhere; read it again")
            record.session = attrs.evolve(
                session,
                revision=stored.revision + 1,
                last_activity=stored.last_activity,
                expires_at=stored.expires_at,
            )
            self._save(record)
            return record.session

        return await self._locked(update)

    async def delete_session(self, session_id: SessionId) -> None:
        def delete() -> None:
            try:
                self._path(session_id).unlink()
            except FileNotFoundError:
                raise _not_found() from None

        await self._locked(delete)

    async def list_sessions(self) -> Sequence[Session]:
        return await self._locked(lambda: [record.session for record in self._load_all()])

    async def count_sessions(self) -> int:
        return await self._locked(lambda: len(self._files()))

    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        def touch() -> None:
            for activity in activities:
                if not self._path(activity.session_id).exists():
                    continue
                record = self._load(activity.session_id)
                record.session = attrs.evolve(
                    record.session,
                    last_activity=max(record.session.last_activity, activity.last_activity),
                    expires_at=max(record.session.expires_at, activity.expires_at),
                )
                self._save(record)

        await self._locked(touch)

    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        def expire() -> list[Session]:
            due = [record.session for record in self._load_all() if record.session.expires_at <= now][:limit]
            for session in due:
                self._path(session.id).unlink()
            return due

        return await self._locked(expire)

    async def add_frame(self, frame: MessageEnvelope) -> None:
        def add() -> None:
            record = self._load(SessionId(frame.session_id))
            record.frames = [*record.frames[-999:], frame]
            self._save(record)

        await self._locked(add)

    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        def get() -> list[MessageEnvelope]:
            return self._load(session_id).frames if self._path(session_id).exists() else []

        return await self._locked(get)

    async def delete_frames(self, session_id: SessionId) -> None:
        def delete() -> None:
            if self._path(session_id).exists():
                record = self._load(session_id)
                record.frames = []
                self._save(record)

        await self._locked(delete)

    async def count_frames(self, session_id: SessionId) -> int:
        return len(await self.get_frames(session_id))

    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        def store() -> None:
            record = self._load(session_id)
            record.event_id = event_id
            self._save(record)

        await self._locked(store)

    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        return (await self._locked(self._load, session_id)).event_id

    async def aclose(self) -> None:
        """Do nothing: nothing is open between two calls."""

    async def _locked(self, work: Callable[..., T], *args: object) -> T:
        """Do *work* in a thread, alone among all processes.  Cancelled, it has not begun or is done."""

        def work_alone() -> T:
            try:
                with open(self._directory / "lock", "wb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    return work(*args)
            except OSError as error:
                raise StoreUnavailable("the session store cannot be read or written; check its disk") from error

        return await trio.to_thread.run_sync(work_alone)

    # From here on, in the thread and under the lock.

    def _path(self, session_id: SessionId) -> Path:
        # An id may hold any visible character, and a file system may not tell A from a.
        return self._directory / f"{hashlib.sha256(session_id.encode()).hexdigest()}.session"

    def _files(self) -> list[Path]:
        return list(self._directory.glob("*.session"))

    def _load(self, session_id: SessionId) -> Record:
        try:
            return _decode(self._path(session_id).read_bytes())
        except FileNotFoundError:
            raise _not_found() from None

    def _load_all(self) -> list[Record]:
        return [_decode(path.read_bytes()) for path in self._files()]

    def _save(self, record: Record) -> None:
        # Whole or not at all, also for a process that is killed here.
        path = self._path(record.session.id)
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(record))
        os.replace(new, path)


def _decode(content: bytes) -> Record:
    try:
        fields = msgspec.json.decode(content)
        if fields["session"]["expires_at"] is None:  # JSON has no infinity
            fields["session"]["expires_at"] = math.inf
        return msgspec.convert(fields, Record)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise StoreCorrupt("a stored session cannot be read; remove its file") from error


def _not_found() -> SessionNotFound:
    return SessionNotFound("no such session; send initialize, without Mcp-Session-Id, to open another")


async def serve(bind, directory, upstream, *, task_status=trio.TASK_STATUS_IGNORED):
    store = DirectoryStore(Path(directory))
    server = ReverseProxyServerBuilder(bind, upstream).with_session_store(store).build()
    await server.run(task_status=task_status)


if __name__ == "__main__":
    trio.run(serve, "127.0.0.1:8080", *sys.argv[1:])
