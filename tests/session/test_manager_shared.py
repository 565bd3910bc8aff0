"""Several managers on one store: proxies side by side, or one after the other."""

from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from shadowcat.errors import SessionNotFound
from shadowcat.protocol import ResponseMode
from shadowcat.session import InMemoryStore, SessionConfig, SessionManager, StreamKind

from .managing import create, is_open, open_manager
from .test_store import UserStore

IDLE = 90
LAG = 22.5
LIMITS: dict[str, Any] = {"max_idle": IDLE, "reap_interval": 30}


@asynccontextmanager
async def open_two(expired=None, store=None, apart=4.0, **config):
    """Run two managers on one store, which look for idle sessions *apart* seconds from each other."""
    store = store or InMemoryStore()
    config = LIMITS | config
    async with open_manager(store, expired=expired, **config) as one:
        await trio.sleep(apart)
        async with open_manager(store, expired=expired, **config) as other:
            yield one, other


class TestFind:
    @pytest.mark.parametrize("store", [InMemoryStore, UserStore])
    async def test_session_of_another_manager_is_found(self, autojump_clock, store):
        """Whole, and with what either of them has written."""
        async with open_two(store=store()) as (one, other):
            session = await create(one)
            assert session == await other.find(session.id)
            await other.record_mode(session, ResponseMode.SSE_STREAM)
            stream = other.streams.begin(session, StreamKind.LISTENING)
            stream.publish(b"data: x", "5", other.now())
            await trio.sleep(0.2)
            assert (await one.find(session.id)).response_mode is ResponseMode.SSE_STREAM
            assert await one.store.get_last_event_id(session.id) == stream.last_event_id

    async def test_session_outlives_its_manager(self, autojump_clock):
        """A proxy that is restarted goes on where it was."""
        store = InMemoryStore()
        async with open_manager(store, **LIMITS) as manager:
            session = await create(manager)
        async with open_manager(store, **LIMITS) as manager:
            assert session == await manager.find(session.id)

    async def test_session_ended_at_one_is_gone_at_the_other(self, autojump_clock):
        """... where its streams end when that is noticed."""
        async with open_two() as (one, other):
            session = await create(one)
            await other.find(session.id)
            await one.end(session.id)
            with other.attached(session) as scope:
                with pytest.raises(SessionNotFound):
                    await other.find(session.id)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    async def test_expired_session_of_somebody_else_is_not_found(self, autojump_clock):
        """Also before anybody has come to end it: by its stored time, to the second."""
        store = InMemoryStore()
        dead, late = SessionManager(store, SessionConfig(**LIMITS)), SessionManager(store, SessionConfig(**LIMITS))
        session = await create(dead)
        last = await create(dead)
        await trio.sleep(IDLE + LAG - 1)
        assert session == await late.find(session.id)
        await trio.sleep(1.1)
        with pytest.raises(SessionNotFound):
            await late.find(last.id)
        assert await is_open(late, last)

    async def test_limit_is_one_for_all(self, autojump_clock):
        """Sessions are counted where they are stored."""
        async with open_two(max_sessions=1) as (one, other):
            await create(one)
            with pytest.raises(Exception, match="too many"):
                async with other.reserve():
                    pytest.fail("there was no place")


class TestExpiry:
    @pytest.mark.parametrize("pause", [5, 22, 23, 50, 89])
    async def test_session_used_at_one_is_spared_by_the_other(self, autojump_clock, pause):
        """The one that opened it has not seen it for long."""
        expired: list = []
        async with open_two(expired) as (one, other):
            session = await create(one)
            for _ in range(int(800 / pause)):
                await trio.sleep(pause)
                await other.find(session.id)
            used = trio.current_time()
            assert expired == []
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            ((when, session_id),) = expired
            assert session_id == session.id
            assert IDLE <= when - used <= IDLE + 2 * LAG

    async def test_call_under_way_at_one_is_spared_by_the_other(self, autojump_clock):
        """Each says what it has under way, every round."""
        expired: list = []
        async with open_two(expired) as (one, other):
            session = await create(one)
            with other.use(await other.find(session.id)):
                await trio.sleep(1000)
                assert expired == []
            ended = trio.current_time()
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            ((when, _),) = expired
            assert IDLE <= when - ended <= IDLE + 2 * LAG

    @pytest.mark.parametrize("apart", [0, 4, LAG / 2])
    async def test_each_is_told_of_by_one_of_them(self, autojump_clock, apart):
        """The upstream gets one DELETE for each, in whatever order they look."""
        expired: list = []
        async with open_two(expired, UserStore(), apart) as (one, other):
            sessions = [await create(manager) for manager in (one, other) for _ in range(150)]
            for session in sessions[::3]:
                await one.find(session.id)
                await other.find(session.id)
            await trio.sleep(IDLE + 2 * LAG + 0.1)
            assert sorted(session_id for _, session_id in expired) == sorted(session.id for session in sessions)
            await trio.sleep(1000)
            assert len(expired) == 300

    async def test_session_of_a_killed_process_expires_by_its_stored_time(self, autojump_clock):
        """Not before: the last use that the dead one stored, the idle time and the lag."""
        store, expired = InMemoryStore(), []
        async with open_manager(store, expired=expired, **LIMITS) as survivor, trio.open_nursery() as nursery:
            killed = SessionManager(store, SessionConfig(**LIMITS))
            killed.open(nursery, nursery)
            await trio.sleep(3)
            session = await create(killed)
            await trio.sleep(40)
            await killed.find(session.id)
            await trio.sleep(0.2)
            # From here on it writes nothing: what it has used since is lost with it.
            await trio.sleep(10)
            await killed.find(session.id)

            stored = await store.get_session(session.id)
            assert stored.last_activity == pytest.approx(session.created_at + 40, abs=0.1)
            assert stored.expires_at == pytest.approx(stored.last_activity + IDLE + LAG)
            await trio.sleep(IDLE + 2 * LAG)
            ((when, session_id),) = expired
            assert session_id == session.id
            assert IDLE + LAG - 0.1 <= when - (3 + 40) <= IDLE + 2 * LAG
            assert IDLE <= when - (3 + 40.2 + 10)
            with pytest.raises(SessionNotFound):
                await survivor.find(session.id)
            nursery.cancel_scope.cancel()

    async def test_age_counts_from_where_it_was_opened(self, autojump_clock):
        """A session gets no younger by being used elsewhere."""
        expired: list = []
        async with open_two(expired, max_age=200) as (one, other):
            session = await create(one)
            opened = trio.current_time()
            await trio.sleep(60)
            with other.use(await other.find(session.id)):
                await trio.sleep(139.9)
                assert expired == []
                await trio.sleep(LAG + 0.2)
            ((when, _),) = expired
            assert 200 - 0.01 <= when - opened <= 200 + LAG
