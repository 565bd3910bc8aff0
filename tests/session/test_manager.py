"""Sessions from initialize to their end, on a clock of the test's own."""

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionLimitReached, SessionNotFound
from shadowcat.protocol import ResponseMode
from shadowcat.session import InMemoryStore, SessionConfig, SessionId, SessionManager, open_session_manager

from .managing import RESULT, SlowStore, create, is_open, open_manager


class TestCreate:
    async def test_session_is_stored_with_what_both_sides_said(self, autojump_clock):
        """MCP 2025-11-25, lifecycle: version, capabilities and info are settled by initialize."""
        async with open_manager() as manager:
            session = await create(manager)

            assert session == await manager.find(session.id)
            assert (session.upstream_session_id, session.protocol_version) == ("u", "2025-11-25")
            assert (session.initialize_params, session.initialize_result) == ({"capabilities": {}}, RESULT)
            assert (session.response_mode, session.created_at > 1.7e9) == (ResponseMode.JSON, True)

    @pytest.mark.parametrize("result", [{}, {"protocolVersion": 5}, {"protocolVersion": None}])
    async def test_version_that_is_none_is_empty(self, autojump_clock, result):
        """What an upstream answers is kept, however odd."""
        async with open_manager() as manager:
            assert (await create(manager, result=result)).protocol_version == ""

    async def test_unknown_session_is_not_found(self, autojump_clock):
        """MCP 2025-11-25: requests to a session that is over get 404."""
        async with open_manager() as manager:
            with pytest.raises(SessionNotFound):
                await manager.find(SessionId("never"))


class TestLimit:
    async def test_as_many_as_the_limit_and_no_more(self, autojump_clock):
        """One more initialize is refused, and possible again when a session has ended."""
        async with open_manager(max_sessions=2) as manager:
            for _ in range(2):
                async with manager.reserve():
                    await create(manager)
            with pytest.raises(SessionLimitReached):
                async with manager.reserve():
                    pytest.fail("there was no place")

            session, _ = await manager.store.list_sessions()
            await manager.end(session.id)
            async with manager.reserve():
                await create(manager)

    async def test_place_is_held_while_the_upstream_is_asked(self, autojump_clock):
        """Two clients that come at once do not both get the last place."""
        async with open_manager(max_sessions=1) as manager:
            async with manager.reserve():
                with pytest.raises(SessionLimitReached):
                    async with manager.reserve():
                        pytest.fail("the place was held")

            async with manager.reserve():
                pass

    async def test_place_is_free_again_however_it_was_left(self, autojump_clock):
        """An upstream that refuses, and a client that is cancelled, take no place."""
        async with open_manager(max_sessions=1) as manager:
            with pytest.raises(KeyError):
                async with manager.reserve():
                    raise KeyError
            with trio.move_on_after(1):
                async with manager.reserve():
                    await trio.sleep_forever()

            async with manager.reserve():
                pass


class TestExpiry:
    async def test_idle_session_ends_exactly_at_the_limit(self, autojump_clock):
        """The last look before leaves it, the look at the limit ends it."""
        expired: list = []
        async with open_manager(expired=expired, max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            await trio.sleep(89)
            assert await is_open(manager, session)
            await trio.sleep(2)

            assert not await is_open(manager, session)
            assert expired == [(90, session.id)]

    async def test_session_that_is_found_is_used(self, autojump_clock):
        """Each request begins the wait anew."""
        expired: list = []
        async with open_manager(expired=expired, max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            for _ in range(5):
                await trio.sleep(80)
                await manager.find(session.id)
            await trio.sleep(125)

            assert [(510, session.id)] == expired

    async def test_session_in_use_does_not_expire(self, autojump_clock):
        """A call that takes hours keeps its session; idleness begins at its end."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            with manager.use(session), manager.use(session):
                await trio.sleep(1000)
            assert await is_open(manager, session)
            await trio.sleep(80)
            assert await is_open(manager, session)
            await trio.sleep(40)
            assert not await is_open(manager, session)

    async def test_one_of_two_uses_is_enough(self, autojump_clock):
        """Uses are counted."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            with manager.use(session):
                with manager.use(session):
                    pass
                await trio.sleep(1000)
                assert await is_open(manager, session)

    async def test_everyone_is_told_of_once(self, autojump_clock):
        """Only those that were idle, each after it was gone."""
        expired: list = []
        async with open_manager(expired=expired, max_idle=90, reap_interval=30) as manager:
            idle = [await create(manager) for _ in range(3)]
            await trio.sleep(60)
            fresh = await create(manager)
            await trio.sleep(60)

            assert sorted(session.id for session in idle) == sorted(id for _, id in expired)
            assert await is_open(manager, fresh)
            await trio.sleep(1000)
            assert len(expired) == len({id for _, id in expired}) == 4

    async def test_session_that_was_ended_does_not_expire(self, autojump_clock):
        """Nobody is told of it a second time."""
        expired: list = []
        async with open_manager(expired=expired, max_idle=90, reap_interval=30) as manager:
            await manager.end((await create(manager)).id)
            behind = await create(manager)
            await manager.store.delete_session(behind.id)
            await trio.sleep(1000)

            assert expired == []

    async def test_slow_upstream_holds_up_no_other_session(self, autojump_clock):
        """A hundred farewells of five seconds each do not take minutes."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            sessions = [await create(manager) for _ in range(100)]
            told = []

            async def tell_slowly(session):
                await trio.sleep(5)
                told.append(session.id)

            manager.on_expired = tell_slowly
            await trio.sleep(90 + 20.5)
            assert sorted(told) == sorted(session.id for session in sessions)

    async def test_housekeeping_survives_a_store_and_an_upstream_that_fail(self, autojump_clock, caplog):
        """Both may be a user's own; the next round makes up for it."""

        class FailingOnce(InMemoryStore):
            async def get_session(self, session_id):
                if self.fails:
                    self.fails -= 1
                    raise OSError("disk")
                return await super().get_session(session_id)

            fails = 1

        async with open_manager(FailingOnce(), max_idle=90, reap_interval=30) as manager:
            await create(manager)

            async def fail(session):
                raise ValueError("upstream")

            manager.on_expired = fail
            await trio.sleep(160)
            assert await manager.store.count_sessions() == 0
        assert [record.levelname for record in caplog.records].count("ERROR") == 2

    async def test_session_used_while_it_is_read_is_spared(self, autojump_clock):
        """The store may be slow, too."""
        async with open_manager(SlowStore(), max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            await trio.sleep(90.5)
            with manager.use(session):
                await trio.sleep(20)
                assert await is_open(manager, session)

    async def test_nobody_need_be_told(self, autojump_clock):
        """A manager by itself ends sessions as well."""
        async with open_session_manager(SessionConfig(max_idle=1, reap_interval=1), InMemoryStore()) as manager:
            session = await create(manager)
            await trio.sleep(5)
            assert not await is_open(manager, session)

    async def test_cancelled_half_way_each_is_ended_or_untouched(self, autojump_clock):
        """The upstream may not have been told of one that is ended; none is lost."""
        manager = SessionManager(SlowStore(), SessionConfig(max_idle=90))
        sessions = [await create(manager) for _ in range(3)]
        await trio.sleep(100)
        with trio.move_on_after(1.5) as scope:
            await manager.reap()
        assert scope.cancelled_caught
        assert [False, True, True] == [await is_open(manager, session) for session in sessions]

        await trio.sleep(100)
        await manager.reap()
        assert await manager.store.count_sessions() == 0


class TestEnd:
    async def test_listening_streams_end_with_the_session(self, autojump_clock):
        """MCP 2025-11-25: after the session has ended the server closes its streams."""
        ended = []
        async with open_manager() as manager, trio.open_nursery() as nursery:
            session, other = await create(manager), await create(manager)

            async def listen(session, number):
                with manager.listen(session) as scope:
                    await trio.sleep_forever()
                ended.append((number, scope.cancelled_caught))

            for number, where in enumerate([session, session, other]):
                nursery.start_soon(listen, where, number)
            await wait_all_tasks_blocked()
            await manager.end(session.id)
            await wait_all_tasks_blocked()

            assert sorted(ended) == [(0, True), (1, True)]
            nursery.cancel_scope.cancel()

    async def test_listener_that_left_is_not_cancelled(self, autojump_clock):
        """What its task does next is its own."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.listen(session) as scope:
                pass
            await manager.end(session.id)
            assert not scope.cancel_called

    async def test_listening_alone_is_no_use(self, autojump_clock):
        """Whoever listens says so with `use`; expiry then ends no stream that is read."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            session = await create(manager)
            with manager.listen(session) as scope:
                await trio.sleep(1000)
            assert scope.cancelled_caught

    async def test_ending_twice_is_ending(self, autojump_clock):
        """Client and reaper may both."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.end(session.id)
            await manager.end(session.id)
            with pytest.raises(SessionNotFound):
                await manager.find(session.id)

    async def test_stream_of_a_session_ended_elsewhere_ends_when_that_is_noticed(self, autojump_clock):
        """A store may be shared by several proxies."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.store.delete_session(session.id)
            with manager.listen(session) as scope:
                with pytest.raises(SessionNotFound):
                    await manager.find(session.id)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    async def test_listeners_are_told_even_if_the_store_hangs(self, autojump_clock):
        """Ending begins here and then goes to the store."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            store.is_stuck = True
            with manager.listen(session) as scope, trio.move_on_after(1):
                await manager.end(session.id)
            assert scope.cancel_called


class TestMode:
    async def test_call_does_not_fail_because_its_store_hangs(self, autojump_clock):
        """How the answer was relayed is worth a second and no more."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            store.is_stuck = True
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            assert trio.current_time() == 1

    async def test_mode_that_is_known_is_not_stored_again(self, autojump_clock):
        """Most answers of a session are alike."""
        store = SlowStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.JSON)
            assert trio.current_time() == 0

    async def test_mode_of_the_last_answer_is_kept(self, autojump_clock):
        """The session says how its last answer was relayed."""
        async with open_manager() as manager:
            session = await create(manager)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)
            assert (await manager.find(session.id)).response_mode is ResponseMode.SSE_STREAM

    async def test_session_that_ended_meanwhile_stays_ended(self, autojump_clock, caplog):
        """An answer that comes late brings nothing back."""
        caplog.set_level(logging.DEBUG)
        async with open_manager() as manager:
            session = await create(manager)
            await manager.end(session.id)
            await manager.record_mode(session, ResponseMode.SSE_STREAM)

            assert await manager.store.count_sessions() == 0


@pytest.mark.parametrize(
    "wrong", [{"max_sessions": 0}, {"max_idle": 0}, {"reap_interval": 0}, {"max_idle": float("nan")}]
)
def test_limits_are_positive(wrong):
    """A limit of nothing is a mistake."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SessionConfig(**wrong)
