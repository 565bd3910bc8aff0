"""What became of sessions, counted, and told to whoever wants to know."""

import pytest
import trio

from shadowcat.protocol import ResponseMode
from shadowcat.session import EndReason, InMemoryStore, SessionConfig, SessionJournal, open_session_manager
from shadowcat.session.model import new_session_id


async def create(manager):
    return await manager.create(None, {}, {"protocolVersion": "2025-11-25"}, ResponseMode.JSON)


async def test_sessions_are_counted_as_they_come_and_go(autojump_clock):
    """One is ended by its client, one is lost, one expires, and two are still there."""
    config = SessionConfig(max_idle=10)
    async with open_session_manager(config, InMemoryStore()) as manager:
        sessions = [await create(manager) for _ in range(5)]
        await manager.end(sessions[0].id, EndReason.CLIENT)
        await manager.end(sessions[0].id, EndReason.CLIENT)
        await manager.end(sessions[1].id, EndReason.UPSTREAM)
        with manager.use(sessions[3]), manager.use(sessions[4]):
            await trio.sleep(60)
            found = manager.journal.statistics()
    assert found.opened == 5
    assert found.ended == {EndReason.CLIENT: 1, EndReason.UPSTREAM: 1, EndReason.EXPIRED: 1, EndReason.ADMIN: 0}
    assert found.here == 2
    assert found.failures == 0


async def test_whoever_wants_to_know_is_told_before_the_client(autojump_clock):
    told = []

    async def opened(session):
        await trio.sleep(1)
        told.append(("opened", session.id))

    async def ended(session_id, reason):
        await trio.sleep(1)
        told.append((reason, session_id))

    async with open_session_manager(SessionConfig(), InMemoryStore()) as manager:
        manager.journal.on_opened, manager.journal.on_ended = opened, ended
        session = await create(manager)
        assert told == [("opened", session.id)]
        await manager.end(session.id)
        assert told == [("opened", session.id), (EndReason.ADMIN, session.id)]


async def take_long(session):
    await trio.sleep(10)


async def test_session_whose_opening_is_cancelled_while_it_is_told_is_none(autojump_clock):
    async with open_session_manager(SessionConfig(), InMemoryStore()) as manager:
        manager.journal.on_opened = take_long
        with trio.move_on_after(1) as scope:
            await create(manager)
        assert scope.cancelled_caught
        assert await manager.store.count_sessions() == 0


class LockedStore(InMemoryStore):
    async def expire_sessions(self, now, limit=100):
        await trio.lowlevel.checkpoint()
        raise OSError


async def test_store_that_cannot_be_looked_through_is_counted(autojump_clock):
    async with open_session_manager(SessionConfig(), LockedStore()) as manager:
        await trio.sleep(95)
        assert manager.journal.statistics().failures == 3


def test_journal_by_itself_counts_nobody():
    assert SessionJournal().statistics().here == 0


@pytest.mark.parametrize("reason", EndReason)
async def test_each_reason_is_counted_by_itself(reason):
    journal = SessionJournal()
    await journal.note_ended(new_session_id(), reason)
    assert journal.statistics().ended == {**dict.fromkeys(EndReason, 0), reason: 1}
