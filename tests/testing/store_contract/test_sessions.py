"""Stores that break one promise about sessions, and what they are told."""

import attrs
import pytest
import trio

from shadowcat.errors import SessionConflict, SessionNotFound
from shadowcat.session import InMemoryStore, SessionId, decode_session, encode_session

from ..opening import complaint_about


class FloatingStore(InMemoryStore):
    """Reads large numbers as JavaScript does."""

    async def create_session(self, session):
        params = {**session.initialize_params}
        if "n" in params:
            params["n"] = int(float(params["n"]))
        await super().create_session(attrs.evolve(session, initialize_params=params))


class TidyStore(InMemoryStore):
    """Drops the fields that it does not know."""

    async def create_session(self, session):
        await super().create_session(attrs.evolve(decode_session(encode_session(session)), unknown={}))


class PartialUpdateStore(InMemoryStore):
    """Updates the fields it thinks can change."""

    async def update_session(self, session):
        stored = await self.get_session(session.id)
        return await super().update_session(attrs.evolve(session, created_at=stored.created_at))


class CaselessStore(InMemoryStore):
    """Looks ids up as a database with the wrong collation does."""

    def _entry(self, session_id):
        return super()._entry(SessionId(session_id.lower() if len(session_id) == 1 else session_id))


class OverwritingStore(InMemoryStore):
    async def create_session(self, session):
        self._entries.pop(session.id, None)
        await super().create_session(session)


class HastyStore(InMemoryStore):
    """Looks, and leaps later."""

    async def create_session(self, session):
        is_taken = session.id in self._entries
        await trio.lowlevel.checkpoint()
        if not is_taken:
            self._entries.pop(session.id, None)
        await super().create_session(session)


class UpsertingStore(InMemoryStore):
    async def update_session(self, session):
        if session.id not in self._entries:
            await self.create_session(session)
        return await super().update_session(session)


class OrphanStore(InMemoryStore):
    """Keeps event ids beside the sessions, and does not ask whether there is one."""

    def __init__(self):
        super().__init__()
        self._ids = {}

    async def store_last_event_id(self, session_id, event_id):
        self._ids[session_id] = event_id

    async def get_last_event_id(self, session_id):
        await self.get_session(session_id)
        return self._ids.get(session_id)


class LastWriteStore(InMemoryStore):
    """Lets whoever writes last win."""

    async def update_session(self, session):
        revision = self._entry(session.id).session.revision
        return await super().update_session(attrs.evolve(session, revision=revision))


class EchoingStore(InMemoryStore):
    """Returns what it was given, not what it stored."""

    async def update_session(self, session):
        await super().update_session(session)
        return session


class RacingStore(InMemoryStore):
    """Compares, waits, and swaps."""

    async def update_session(self, session):
        if self._entry(session.id).session.revision != session.revision:
            raise SessionConflict("too late")
        await trio.lowlevel.checkpoint()
        revision = self._entry(session.id).session.revision
        return await super().update_session(attrs.evolve(session, revision=revision))


class LossyModifyStore(InMemoryStore):
    """Modifies without comparing, though its update compares."""

    async def modify(self, session_id, change):
        changed = change(await self.get_session(session_id))
        await trio.lowlevel.checkpoint()
        revision = self._entry(session_id).session.revision
        return await self.update_session(attrs.evolve(changed, revision=revision))


class ImpatientModifyStore(InMemoryStore):
    """Gives up at the first conflict."""

    async def modify(self, session_id, change):
        session = await self.get_session(session_id)
        await trio.lowlevel.checkpoint()
        return await self.update_session(change(session))


class HoardingStore(OrphanStore):
    """Deletes a session, but not its event ids."""

    async def store_last_event_id(self, session_id, event_id):
        await self.get_session(session_id)
        await super().store_last_event_id(session_id, event_id)


class ForgivingStore(InMemoryStore):
    """Lets everybody delete what one has deleted."""

    async def delete_session(self, session_id):
        self._entry(session_id)
        await trio.lowlevel.checkpoint()
        self._entries.pop(session_id, None)


class PagedStore(InMemoryStore):
    """Lists the first page."""

    async def list_sessions(self):
        return list(await super().list_sessions())[:25]


class SilentStore(InMemoryStore):
    """Deletes what is not there."""

    async def delete_session(self, session_id):
        try:
            await super().delete_session(session_id)
        except SessionNotFound:
            return


BROKEN = [
    (FloatingStore, "A session comes back as it was created", "initialize_params was"),
    (TidyStore, "A session comes back as it was created", "unknown was"),
    (PartialUpdateStore, "An update replaces the session as a whole", "created_at was"),
    (CaselessStore, "Sessions whose ids differ in any way", "'a' has another's event id"),
    (OverwritingStore, "Creating a session whose id is taken", "did not raise SessionExists"),
    (HastyStore, "Of several that create the same id at once", "10 of 10 succeeded"),
    (UpsertingStore, "Whatever needs a session that does not exist", "update_session of a session"),
    (OrphanStore, "Whatever needs a session that does not exist", "store_last_event_id of a session"),
    (SilentStore, "Whatever needs a session that does not exist", "delete_session of a session"),
    (LastWriteStore, "raises SessionConflict if the session was updated", "did not raise SessionConflict"),
    (EchoingStore, "An update replaces the session as a whole", "in what update_session returned"),
    (RacingStore, "Of several that update the same revision at once", "10 of 10 succeeded"),
    (LossyModifyStore, "every change is in the end result", "2 tasks added 1 10 times"),
    (ImpatientModifyStore, "every change is in the end result", "modify raised"),
    (HoardingStore, "Deleting a session forgets its frames and event ids", "has a deleted one's event id"),
    (ForgivingStore, "Of several that delete a session at once", "not exactly one succeeded"),
    (PagedStore, "A large number of sessions", "list_sessions missed some"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_that_breaks_a_promise_is_told_which(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
