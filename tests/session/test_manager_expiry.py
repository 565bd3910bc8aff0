"""When a session ends by itself: never early, and late by a known time at most."""

from typing import Any

import pytest
import trio

from shadowcat.errors import SessionNotFound, StoreUnavailable
from shadowcat.session import InMemoryStore, SessionConfig, SessionManager, open_failover_store, open_session_manager

from .managing import create, is_open, open_manager
from .stores.flaky import FlakyStore

IDLE = 90
LAG = 22.5
"""A quarter of it: the stored time of last use is late by this much at most."""

LIMITS: dict[str, Any] = {"max_idle": IDLE, "reap_interval": 30}


class RemoteStore(InMemoryStore):
    """Across a network: housekeeping takes a second a call, and fails or hangs when told to."""

    def __init__(self, delay=1.0):
        super().__init__()
        self.delay = delay
        self.error = None

    async def touch_sessions(self, activities):
        await self._answer()
        await super().touch_sessions(activities)

    async def expire_sessions(self, now, limit=100):
        await self._answer()
        return await super().expire_sessions(now, limit)

    async def _answer(self):
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error


class TestIdle:
    @pytest.mark.parametrize("start", [0, 1, 10, 22, 22.5, 23, 89.9])
    async def test_unused_session_ends_in_time(self, autojump_clock, start):
        """Never before the limit; after it by the lag and one round at most, whenever it began."""
        expired: list = []
        async with open_manager(expired=expired, **LIMITS) as manager:
            await trio.sleep(start)
            session = await create(manager)
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            ((when, session_id),) = expired
            assert session_id == session.id
            assert IDLE <= when - start <= IDLE + 2 * LAG
            assert not await is_open(manager, session)

    @pytest.mark.parametrize("pause", [0.3, 7, 20, 22, 23, 44, 70, 89.9])
    async def test_session_that_is_found_is_used(self, autojump_clock, pause):
        """Each request begins the wait anew, whether or not it was stored on its own."""
        expired: list = []
        async with open_manager(expired=expired, **LIMITS) as manager:
            session = await create(manager)
            for _ in range(int(600 / pause)):
                await trio.sleep(pause)
                await manager.find(session.id)
            used = trio.current_time()
            assert expired == []
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            ((when, session_id),) = expired
            assert session_id == session.id
            assert IDLE <= when - used <= IDLE + 2 * LAG

    @pytest.mark.parametrize("length", [5, 80, 91, 113, 1000])
    async def test_session_in_use_does_not_expire(self, autojump_clock, length):
        """A call that takes hours keeps its session; idleness begins at its end."""
        expired: list = []
        async with open_manager(expired=expired, **LIMITS) as manager:
            session = await create(manager)
            with manager.use(session), manager.use(session):
                await trio.sleep(length)
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            ((when, _),) = expired
            assert IDLE <= when - length <= IDLE + 2 * LAG

    async def test_one_of_two_uses_is_enough(self, autojump_clock):
        """Uses are counted."""
        async with open_manager(**LIMITS) as manager:
            session = await create(manager)
            with manager.use(session):
                with manager.use(session):
                    pass
                await trio.sleep(1000)
                assert await is_open(manager, session)

    @pytest.mark.parametrize("before", [0.01, 0.05, 0.5])
    async def test_use_at_the_last_moment_counts(self, autojump_clock, before):
        """The reaper stores what was used before it ends anything, also what is on its way to the store."""
        async with open_manager(**LIMITS) as manager:
            session = await create(manager)
            await trio.sleep(IDLE + LAG - before)
            await manager.find(session.id)
            await trio.sleep(IDLE - 1)
            assert await is_open(manager, session)

    @pytest.mark.parametrize("early", [0.9, 0.7, 0.2, 0, -0.1])
    async def test_session_found_while_uses_are_stored_is_spared(self, autojump_clock, early):
        """The store may be slow: whoever was told that the session is there keeps it."""
        manager = SessionManager(RemoteStore(), SessionConfig(**LIMITS))
        session = await create(manager)
        await trio.sleep(IDLE + LAG - early)
        with manager.use(await create(manager)):
            await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(manager.reap)
                await trio.sleep(0.5)
                try:
                    found = await manager.find(session.id)
                except SessionNotFound:
                    assert early < 0.5
                    return
                with manager.use(found):
                    await trio.sleep(5)
                    assert await is_open(manager, session)

    async def test_store_that_was_away_ends_nobody_early(self, autojump_clock):
        """What could not be stored is stored before anything is ended."""
        store = RemoteStore(delay=0)
        async with open_manager(store, **LIMITS) as manager:
            session = await create(manager)
            store.error = StoreUnavailable("away")
            with manager.use(session):
                await trio.sleep(100)
            await trio.sleep(20)
            store.error = None
            await trio.sleep(IDLE - 20 - 1)
            assert await is_open(manager, session)
            await trio.sleep(2 * LAG + 1.1)
            assert not await is_open(manager, session)

    @pytest.mark.parametrize("start", [0, 5, 22])
    async def test_attachment_alone_is_no_use(self, autojump_clock, start):
        """Whoever sends or receives says so with `use`; expiry then ends nothing that is under way."""
        async with open_manager(**LIMITS) as manager:
            await trio.sleep(start)
            session = await create(manager)
            with trio.move_on_after(1000), manager.attached(session) as scope:
                await trio.sleep_forever()
            assert scope.cancelled_caught
            assert IDLE <= trio.current_time() - start <= IDLE + 2 * LAG


class TestAge:
    async def test_session_ends_at_its_age_even_if_it_is_used(self, autojump_clock):
        """Neither a call under way nor new ones make it older; it is told of once."""
        expired: list = []
        async with open_manager(expired=expired, max_age=200, **LIMITS) as manager:
            await trio.sleep(3)
            session = await create(manager)
            with manager.use(session), manager.attached(session) as scope:
                for _ in range(19):
                    await trio.sleep(10)
                    await manager.find(session.id)
                await trio.sleep(9.9)
                assert expired == []
                await manager.find(session.id)
                await trio.sleep(0.2)
                with pytest.raises(SessionNotFound):
                    await manager.find(session.id)
                await trio.sleep(LAG)
                pytest.fail("its stream did not end")
            assert scope.cancelled_caught
            await trio.sleep(1000)
            ((when, session_id),) = expired
            assert session_id == session.id
            assert 200 <= when - 3 <= 200 + LAG

    async def test_idle_session_does_not_wait_for_its_age(self, autojump_clock):
        """Whichever comes first."""
        expired: list = []
        async with open_manager(expired=expired, max_age=1000, **LIMITS) as manager:
            await create(manager)
            await trio.sleep(999)
            ((when, _),) = expired
            assert IDLE <= when <= IDLE + 2 * LAG

    async def test_age_that_is_shorter_than_the_idle_time(self, autojump_clock):
        """The store is told of it, so that any process may end the session."""
        async with open_manager(max_age=10, **LIMITS) as manager:
            session = await create(manager)
            assert session.expires_at == pytest.approx(session.created_at + 10)
            await trio.sleep(LAG + 0.1)
            assert not await is_open(manager, session)


class TestTelling:
    async def test_everyone_is_told_of_once(self, autojump_clock):
        """Only those that were idle, each after it was gone."""
        expired: list = []
        async with open_manager(expired=expired, **LIMITS) as manager:
            idle = [await create(manager) for _ in range(3)]
            await trio.sleep(60)
            fresh = await create(manager)
            await trio.sleep(IDLE + 2 * LAG + 0.1 - 60)

            assert sorted(session.id for session in idle) == sorted(session_id for _, session_id in expired)
            assert await is_open(manager, fresh)
            await trio.sleep(1000)
            assert len(expired) == len({session_id for _, session_id in expired}) == 4

    async def test_session_that_was_ended_does_not_expire(self, autojump_clock):
        """Nobody is told of it a second time."""
        expired: list = []
        async with open_manager(expired=expired, **LIMITS) as manager:
            await manager.end((await create(manager)).id)
            behind = await create(manager)
            await manager.store.delete_session(behind.id)
            await trio.sleep(1000)

            assert expired == []

    async def test_slow_upstream_holds_up_no_other_session(self, autojump_clock):
        """Two hundred and fifty farewells of five seconds each, 32 at a time, do not take minutes."""
        async with open_manager(**LIMITS) as manager:
            sessions = [await create(manager) for _ in range(250)]
            told = []

            async def tell_slowly(session):
                assert not await is_open(manager, session)
                await trio.sleep(5)
                told.append(session.id)

            manager.on_expired = tell_slowly
            await trio.sleep(IDLE + 2 * LAG + 5 * 8 + 0.5)
            assert sorted(told) == sorted(session.id for session in sessions)

    async def test_housekeeping_survives_a_store_and_an_upstream_that_fail(self, autojump_clock, caplog):
        """Both may be a user's own; the next round makes up for it."""
        store = RemoteStore(delay=0)
        async with open_manager(store, **LIMITS) as manager:
            await create(manager)

            async def fail(session):
                raise ValueError("upstream")

            manager.on_expired = fail
            store.error = OSError("disk")
            await trio.sleep(LAG + 1)
            store.error = None
            await trio.sleep(IDLE + LAG)
            assert await store.count_sessions() == 0
            again = await create(manager)
            manager.on_expired = None
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            assert not await is_open(manager, again)
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 2

    async def test_sessions_expire_in_an_outage(self, autojump_clock):
        """A store that goes on from memory has no streams to drop; what the store cannot know of ends in time."""
        primary, expired = FlakyStore(), []
        async with open_failover_store(primary) as store, open_manager(store, expired, **LIMITS) as manager:
            primary.mode = "down"
            for _ in range(5):
                await store.count_sessions()  # until it is not asked any more
            tried, *others = [await create(manager) for _ in range(3)]
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            assert [session.id for session in others] == [session_id for _, session_id in expired]
            assert all(IDLE <= when <= IDLE + 2 * LAG for when, _ in expired)

            primary.mode = "up"
            await trio.sleep(LAG + 60)
            assert tried.id == expired[-1][1]
            assert await primary.count_sessions() == 0

    async def test_nobody_need_be_told(self, autojump_clock):
        """A manager by itself ends sessions as well."""
        async with open_session_manager(SessionConfig(max_idle=1, reap_interval=1), InMemoryStore()) as manager:
            session = await create(manager)
            await trio.sleep(5)
            assert not await is_open(manager, session)

    @pytest.mark.parametrize(("seconds", "left"), [(0.5, 3), (1.5, 3), (2.5, 0)])
    async def test_cancelled_half_way_each_is_ended_or_untouched(self, autojump_clock, seconds, left):
        """While uses are stored, while sessions are expired, and while the upstream is told."""
        manager = SessionManager(RemoteStore(), SessionConfig(**LIMITS))
        told = []

        async def tell(session):
            told.append(session.id)
            await trio.sleep(5)

        manager.on_expired = tell
        sessions = [await create(manager) for _ in range(3)]
        await trio.sleep(10)
        for session in sessions:
            await manager.find(session.id)
        await trio.sleep(IDLE + LAG + 1)
        used = await create(manager)
        await trio.sleep(1)
        with trio.move_on_after(seconds) as scope, manager.use(used):
            await manager.reap()
        assert scope.cancelled_caught
        assert left == [await is_open(manager, session) for session in sessions].count(True)
        assert len(told) == 3 - left

        await trio.sleep(10)
        await manager.reap()
        assert sorted(told) == sorted(session.id for session in sessions)
        assert await is_open(manager, used)
