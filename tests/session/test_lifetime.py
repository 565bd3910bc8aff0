"""What is running while a manager is open, and in which order it ends."""

import trio

from shadowcat.protocol import ResponseMode
from shadowcat.session import InMemoryStore, SessionConfig, StreamKind, open_session_manager


class Hung(InMemoryStore):
    """Takes nothing from the moment it hangs."""

    async def renew_owner(self, owner, ttl):
        await trio.sleep_forever()

    async def touch_sessions(self, activities):
        await trio.sleep_forever()


async def test_nothing_runs_beyond_the_block(autojump_clock):
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_session_manager(SessionConfig(), InMemoryStore()) as manager:
        await manager.ensure_persistence_started()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living > before
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_work_for_a_session_ends_before_what_it_uses(autojump_clock):
    """Its last words are still written."""
    store, ended = InMemoryStore(), []
    async with open_session_manager(SessionConfig(), store) as manager:
        session = await manager.create(None, {}, {}, ResponseMode.JSON)

        async def work():
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    ended.append(await manager.find(session.id))

        manager.start_in(session, work)
        await trio.sleep(1)
    assert [found.id for found in ended] == [session.id]


async def test_cancellation_ends_it_within_the_time_for_farewells(autojump_clock):
    with trio.move_on_after(5):
        async with open_session_manager(SessionConfig(), Hung()) as manager:
            manager.streams.begin(
                await manager.create(None, {}, {}, ResponseMode.JSON), StreamKind.LISTENING, None, None
            )
            await manager.ensure_persistence_started()
            await trio.sleep_forever()
    assert trio.current_time() <= 5 + 6
