"""Stores that break one promise about activity and expiry, and what they are told."""

import math

import attrs
import pytest
import trio

from shadowcat.errors import SessionNotFound
from shadowcat.session import InMemoryStore

from ..opening import complaint_about


class RewindingStore(InMemoryStore):
    """Believes that the last touch to arrive is the latest."""

    async def touch_sessions(self, activities):
        for activity in activities:
            if entry := self._entries.get(activity.session_id):
                entry.session = attrs.evolve(
                    entry.session, last_activity=activity.last_activity, expires_at=activity.expires_at
                )


class MortalStore(InMemoryStore):
    """Takes infinity for a date that is not set."""

    async def touch_sessions(self, activities):
        for activity in activities:
            entry = self._entries.get(activity.session_id)
            if entry and entry.session.expires_at == math.inf:
                entry.session = attrs.evolve(entry.session, expires_at=0.0)
        await super().touch_sessions(activities)


class StrictTouchStore(InMemoryStore):
    async def touch_sessions(self, activities):
        for activity in activities:
            self._entry(activity.session_id)
        await super().touch_sessions(activities)


class CountingTouchStore(InMemoryStore):
    """Counts a touch as an update."""

    async def touch_sessions(self, activities):
        await super().touch_sessions(activities)
        for activity in activities:
            if entry := self._entries.get(activity.session_id):
                entry.session = attrs.evolve(entry.session, revision=entry.session.revision + 1)


class UntouchingStore(InMemoryStore):
    """Replaces the times too when it updates a session."""

    async def update_session(self, session):
        await super().update_session(session)
        entry = self._entry(session.id)
        entry.session = attrs.evolve(session, revision=session.revision + 1)
        return entry.session


class EarlyStore(InMemoryStore):
    """Rounds to milliseconds."""

    async def expire_sessions(self, now, limit=100):
        return await super().expire_sessions(math.ceil(now * 1000) / 1000, limit)


class LateStore(InMemoryStore):
    """Takes "or before" for "before"."""

    async def expire_sessions(self, now, limit=100):
        return await super().expire_sessions(math.nextafter(now, -math.inf), limit)


class HidingStore(InMemoryStore):
    """Hides what is overdue, as a store with a time to live does."""

    async def get_session(self, session_id):
        session = await super().get_session(session_id)
        if session.expires_at < 0.0:
            raise SessionNotFound("overdue")
        return session


class GreedyStore(InMemoryStore):
    async def expire_sessions(self, now, limit=100):
        return await super().expire_sessions(now, 1000)


class DoubleStore(InMemoryStore):
    """Looks for what is due, and deletes it later."""

    async def expire_sessions(self, now, limit=100):
        due = [session for session in await self.list_sessions() if session.expires_at <= now][:limit]
        await trio.lowlevel.checkpoint()
        for session in due:
            self._entries.pop(session.id, None)
        return due


class StaleQueueStore(InMemoryStore):
    """Forgets that what stands in its queue may have been touched since."""

    async def expire_sessions(self, now, limit=100):
        due = [s for s in await self.list_sessions() if self._entries[s.id].due <= now][:limit]
        for session in due:
            del self._entries[session.id]
        return due


BROKEN = [
    (RewindingStore, "Touching moves both times of a session forward", "(120.0, 300.0)"),
    (MortalStore, "A session that never expires", "a touch gave it an end"),
    (StrictTouchStore, "Touching sessions that are gone does nothing", "SessionNotFound was raised"),
    (CountingTouchStore, "Touching does not change the revision", "a touch changed the revision"),
    (UntouchingStore, "every field of it but the two times", "last_activity was"),
    (EarlyStore, "A session expires at its expires_at", "it expired before it was due"),
    (LateStore, "counted, listed and expired like one", "0 sessions expired, 15 were due"),
    (HidingStore, "A session that is due is a session like any other", "SessionNotFound was raised"),
    (GreedyStore, "at most as many sessions as the limit", "with a limit of 1"),
    (DoubleStore, "each session goes to exactly one", "different, of 60"),
    (StaleQueueStore, "never expiring when it is touched", "touched to live forever expired"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
