"""Sessions from initialize to their end, on a clock of the test's own."""

import logging
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionLimitReached, SessionNotFound
from shadowcat.protocol import ResponseMode
from shadowcat.session import (
    InMemoryStore,
    SessionConfig,
    SessionId,
    SessionManager,
    UpstreamSessionId,
    open_session_manager,
)

RESULT = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "s"}}


class SlowStore(InMemoryStore):
    """A store across a network: a second for each read, and deleting can be held up for ever."""

    def __init__(self):
        super().__init__()
        self.is_stuck = False

    async def get_session(self, session_id):
        await trio.sleep(1)
        return await super().get_session(session_id)

    async def delete_session(self, session_id):
        if self.is_stuck:
            await trio.sleep_forever()
        await super().delete_session(session_id)


@asynccontextmanager
async def open_manager(store=None, expired=None, **config):
    """Run a manager that adds to *expired* what it tells of expired sessions."""

    async def on_expired(session):
        if expired is not None:
            expired.append((trio.current_time(), session.id))
        await trio.lowlevel.checkpoint()

    async with open_session_manager(SessionConfig(**config), store or InMemoryStore()) as manager:
        manager.on_expired = on_expired
        yield manager


def create(manager, upstream_id="u", result=RESULT):
    return manager.create(UpstreamSessionId(upstream_id), {"capabilities": {}}, result, ResponseMode.JSON)


async def is_open(manager, session):
    return session.id in {kept.id for kept in await manager.store.list_sessions()}


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

    async def test_session_used_while_others_are_ended_is_spared(self, autojump_clock):
        """Telling a slow upstream of one takes seconds, in which another may come to life."""
        async with open_manager(max_idle=90, reap_interval=30) as manager:
            first, second, third = [await create(manager) for _ in range(3)]
            told = []

            async def tell_slowly(session):
                told.append(session.id)
                await trio.sleep(5)

            manager.on_expired = tell_slowly
            await trio.sleep(92)
            assert told == [first.id]
            await manager.find(second.id)
            with manager.use(third):
                await trio.sleep(20)

                assert await is_open(manager, second)
                assert await is_open(manager, third)
                assert told == [first.id]

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
        manager = SessionManager(InMemoryStore(), SessionConfig(max_idle=90))
        sessions = [await create(manager) for _ in range(3)]
        told = []

        async def tell(session):
            told.append(session.id)
            if len(told) == 2:
                await trio.sleep_forever()

        manager.on_expired = tell
        await trio.sleep(100)
        with trio.move_on_after(5) as scope:
            await manager.reap()
        assert scope.cancelled_caught
        assert [False, False, True] == [await is_open(manager, session) for session in sessions]

        await manager.reap()
        assert told == [session.id for session in sessions]
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


class TestUse:
    @pytest.mark.parametrize(
        ("first", "second", "is_taken"),
        [
            (b"1", b"1", True),
            (b'"1"', b"1", True),
            (b"1", b'"1"', True),
            (b'"a"', b'"a"', True),
            (b'""', b'""', True),
            (b"0", b'"0"', True),
            (b"1", b"2", False),
            (b'"a"', b'"b"', False),
            (b'""', b"0", False),
            (b"1", None, False),
            (None, None, False),
        ],
    )
    async def test_id_in_flight_is_taken(self, autojump_clock, first, second, is_taken):
        """MCP: the request ID MUST NOT have been previously used; there are servers that take "1" for 1."""
        async with open_manager() as manager:
            session = await create(manager)
            with manager.use(session, first) as before, manager.use(session, second) as after:
                assert before == first
                assert (after not in {second, None}) == is_taken

    async def test_id_is_free_after_the_answer(self, autojump_clock):
        """... also when the request failed; but not when only the second of two is over."""
        async with open_manager() as manager:
            session = await create(manager)
            with pytest.raises(KeyError), manager.use(session, b"1"):
                raise KeyError
            with manager.use(session, b"1") as sent_id:
                assert sent_id == b"1"
                with manager.use(session, b"1"):
                    pass
                with manager.use(session, b"1") as sent_id:
                    assert sent_id != b"1"

    async def test_other_sessions_have_ids_of_their_own(self, autojump_clock):
        """An id is unique within a session."""
        async with open_manager() as manager:
            with manager.use(await create(manager), b"1"), manager.use(await create(manager), b"1") as sent_id:
                assert sent_id == b"1"


class TestMode:
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
