"""A session store that somebody else might write."""

import attrs
import pytest
import trio

from shadowcat.errors import SessionConflict, SessionExists, SessionNotFound
from shadowcat.protocol import ResponseMode
from shadowcat.session import SessionStore, StreamKind
from shadowcat.testing import check_session_store
from tests.testing.opening import opener

from .managing import create, open_manager


@attrs.define
class Row:
    session: object
    frames: list = attrs.field(factory=list)
    event_id: str | None = None


class UserStore(SessionStore):
    """The least that keeps every promise: only what is abstract, and every method is a checkpoint."""

    def __init__(self):
        self.rows = {}

    async def create_session(self, session):
        await trio.lowlevel.checkpoint()
        if session.id in self.rows:
            raise SessionExists(session.id)
        self.rows[session.id] = Row(session)

    async def get_session(self, session_id):
        return (await self._row(session_id)).session

    async def update_session(self, session):
        row = await self._row(session.id)
        stored = row.session
        if stored.revision != session.revision:
            raise SessionConflict(session.id)
        times = {"last_activity": stored.last_activity, "expires_at": stored.expires_at}
        row.session = attrs.evolve(session, revision=stored.revision + 1, **times)
        return row.session

    async def delete_session(self, session_id):
        await self._row(session_id)
        del self.rows[session_id]

    async def list_sessions(self):
        await trio.lowlevel.checkpoint()
        return [row.session for row in self.rows.values()]

    async def count_sessions(self):
        await trio.lowlevel.checkpoint()
        return len(self.rows)

    async def touch_sessions(self, activities):
        await trio.lowlevel.checkpoint()
        for activity in activities:
            if row := self.rows.get(activity.session_id):
                row.session = attrs.evolve(
                    row.session,
                    last_activity=max(row.session.last_activity, activity.last_activity),
                    expires_at=max(row.session.expires_at, activity.expires_at),
                )

    async def expire_sessions(self, now, limit=100):
        await trio.lowlevel.checkpoint()
        due = [row.session for row in self.rows.values() if row.session.expires_at <= now][:limit]
        for session in due:
            del self.rows[session.id]
        return due

    async def add_frame(self, frame):
        (await self._row(frame.session_id)).frames.append(frame)

    async def get_frames(self, session_id):
        await trio.lowlevel.checkpoint()
        return list(self.rows[session_id].frames) if session_id in self.rows else []

    async def delete_frames(self, session_id):
        await trio.lowlevel.checkpoint()
        if session_id in self.rows:
            self.rows[session_id].frames.clear()

    async def count_frames(self, session_id):
        return len(await self.get_frames(session_id))

    async def store_last_event_id(self, session_id, event_id):
        (await self._row(session_id)).event_id = event_id

    async def get_last_event_id(self, session_id):
        return (await self._row(session_id)).event_id

    async def aclose(self):
        await trio.lowlevel.checkpoint()

    async def _row(self, session_id):
        await trio.lowlevel.checkpoint()
        if session_id not in self.rows:
            raise SessionNotFound(session_id)
        return self.rows[session_id]


async def test_it_keeps_the_contract():
    """What is abstract is enough; the rest of `SessionStore` is built on it."""
    with trio.fail_after(60):
        await check_session_store(opener(UserStore()), sessions=200)


@pytest.mark.parametrize("name", sorted(SessionStore.__abstractmethods__))
def test_none_of_its_methods_can_be_left_out(name):
    """A store that lacks one says so when it is made, not when a client needs it."""
    lacking = type("Lacking", (UserStore,), {name: getattr(SessionStore, name)})
    with pytest.raises(TypeError, match=name):
        lacking()


async def test_manager_works_with_it(autojump_clock):
    """A session is found, updated, touched, kept while it is used, and ended."""
    expired: list = []
    store = UserStore()
    async with open_manager(store, expired=expired, max_idle=80, reap_interval=20) as manager:
        session = await create(manager)
        ended = await create(manager)
        await manager.record_mode(session, ResponseMode.SSE_STREAM)
        stream = manager.streams.begin(session, StreamKind.LISTENING)
        stream.publish(b"data: x", "7", manager.now())
        await manager.end(ended.id)
        with manager.use(session):
            await trio.sleep(500)
        found = await manager.find(session.id)
        assert (found.response_mode, found.revision) == (ResponseMode.SSE_STREAM, 1)
        assert await store.get_last_event_id(session.id) == stream.last_event_id
        assert found.expires_at >= session.expires_at + 400

        await trio.sleep(80 + 2 * 20 + 1)
        assert [session.id] == [session_id for _, session_id in expired]
        assert await store.count_sessions() == 0
