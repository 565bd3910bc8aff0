"""Stores that do half of what is cancelled, and what they are told."""

import attrs
import pytest
import trio

from shadowcat.errors import StoreUnavailable
from shadowcat.session import InMemoryStore

from ..opening import complaint_about


class HalfCreatingStore(InMemoryStore):
    """Inserts a row, and fills it in later."""

    async def create_session(self, session):
        await super().create_session(attrs.evolve(session, created_at=0.0))
        await trio.lowlevel.checkpoint()
        self._entry(session.id).session = session


class HalfDeletingStore(InMemoryStore):
    """Deletes the frames first, and the session later."""

    async def delete_session(self, session_id):
        self._entry(session_id).frames.clear()
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        await super().delete_session(session_id)


class HalfTouchingStore(InMemoryStore):
    """Writes one time, and then the other."""

    async def touch_sessions(self, activities):
        await super().touch_sessions([attrs.evolve(activity, expires_at=0.0) for activity in activities])
        await trio.lowlevel.checkpoint()
        await super().touch_sessions(activities)


class BrokenConnectionStore(InMemoryStore):
    """Has one connection, which a cancelled call leaves in the middle of an answer."""

    def __init__(self):
        super().__init__()
        self._is_busy = False

    async def count_frames(self, session_id):
        if self._is_busy:
            raise StoreUnavailable("the connection is in use")
        self._is_busy = True
        await trio.lowlevel.checkpoint()
        self._is_busy = False
        return await super().count_frames(session_id)


class HalfExpiringStore(InMemoryStore):
    """Drops the frames of what it is about to expire."""

    async def expire_sessions(self, now, limit=100):
        for entry in self._entries.values():
            if entry.session.expires_at <= now:
                entry.frames.clear()
        await trio.lowlevel.checkpoint()
        return await super().expire_sessions(now, limit)


BROKEN = [
    (HalfCreatingStore, "A cancelled create_session has created the whole", "create_session, cancelled in step 0,"),
    (HalfDeletingStore, "A cancelled write has happened in full", "delete_session, cancelled in step"),
    (HalfTouchingStore, "A cancelled write has happened in full", "touch_sessions, cancelled in step"),
    (HalfExpiringStore, "A cancelled write has happened in full", "expire_sessions, cancelled in step"),
    (BrokenConnectionStore, "A cancelled read changes nothing", "the connection is in use"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
