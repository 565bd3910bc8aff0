"""Work that belongs to a session and not to a request."""

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionNotFound, StoreUnavailable
from shadowcat.session import InMemoryStore, LogLimits, SessionConfig, SessionManager, StreamConfig, StreamKind

from .managing import create, open_manager

LIMITS = {"max_idle": 90, "reap_interval": 30}
LAG = 22.5


class TestStartIn:
    async def test_work_goes_on_when_its_request_is_over(self, autojump_clock):
        """It gets its arguments, and runs until it returns."""
        done = []

        async def work(number, name):
            await trio.sleep(5)
            done.append((number, name))

        async with open_manager() as manager:
            session = await create(manager)
            with trio.move_on_after(1):
                manager.start_in(session, work, 1, "a")
                await trio.sleep_forever()
            await trio.sleep(10)
        assert done == [(1, "a")]

    @pytest.mark.parametrize("is_begun", [True, False])
    async def test_work_ends_with_its_session(self, autojump_clock, is_begun):
        """However early that ends; the work of others goes on."""
        ended = []

        async def work(number):
            try:
                await trio.sleep(7)
            except trio.Cancelled:
                ended.append((number, trio.current_time()))
                raise
            ended.append((number, trio.current_time()))

        async with open_manager() as manager:
            session, other = await create(manager), await create(manager)
            manager.start_in(session, work, 1)
            manager.start_in(other, work, 2)
            if is_begun:
                await wait_all_tasks_blocked()
            await manager.end(session.id)
            await trio.sleep(10)
        assert ended == [(1, 0), (2, 7)]

    async def test_work_ends_with_the_manager(self, autojump_clock):
        """Nobody waits for what goes on for ever."""
        async with open_manager() as manager:
            manager.start_in(await create(manager), trio.sleep_forever)
            await wait_all_tasks_blocked()
        assert trio.current_time() == 0

    async def test_work_that_fails_ends_itself_alone(self, autojump_clock, caplog):
        """What it raised is logged."""
        done = []

        async def fail():
            raise ValueError("a bug")

        async def work():
            await trio.sleep(5)
            done.append(True)

        async with open_manager() as manager:
            session = await create(manager)
            manager.start_in(session, work)
            manager.start_in(session, fail)
            await trio.sleep(10)
        assert done == [True]
        assert [str(record.exc_info[1]) for record in caplog.records if record.levelname == "ERROR"] == ["a bug"]

    async def test_manager_that_nobody_runs_says_so(self, autojump_clock):
        manager = SessionManager(InMemoryStore(), SessionConfig())
        session = await create(manager)
        with pytest.raises(RuntimeError, match="open_session_manager"):
            manager.start_in(session, trio.sleep_forever)


class AbsentStore(InMemoryStore):
    """Cannot be asked for sessions when told so; counts the times it was."""

    def __init__(self):
        super().__init__()
        self.error = None
        self.asked = []

    async def get_sessions_batch(self, session_ids):
        self.asked.append(len(session_ids))
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return await super().get_sessions_batch(session_ids)


class TestEndedElsewhere:
    async def test_what_is_under_way_ends_within_a_round(self, autojump_clock):
        """Though nothing more arrives in the session: another proxy has deleted it."""
        store = InMemoryStore()
        async with open_manager(store, **LIMITS) as one, open_manager(store, **LIMITS) as other:
            session, kept = await create(one), await create(one)
            stream = other.streams.begin(session, StreamKind.LISTENING)
            reader = stream.attach(0)
            with other.use(kept), other.attached(kept) as kept_scope, other.use(session):
                with trio.move_on_after(1000), other.attached(session) as scope:
                    await one.end(session.id)
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            assert trio.current_time() <= LAG + 0.1
            assert not kept_scope.cancel_called
            assert (stream.is_fenced, stream.presence.cancel_called, reader.scope.cancel_called) == (True, True, True)
            assert list(other.streams.all()) == []

    async def test_store_that_cannot_be_asked_ends_nothing(self, autojump_clock):
        """The next round makes up for it."""
        store = AbsentStore()
        async with open_manager(store, **LIMITS) as manager:
            session = await create(manager)
            store.error = StoreUnavailable("down")
            with manager.use(session), manager.attached(session) as scope:
                await trio.sleep(LAG + 1)
                assert not scope.cancel_called
                store.error = None
                await store.delete_session(session.id)
                await trio.sleep(LAG + 1)
            assert scope.cancelled_caught
            with pytest.raises(SessionNotFound):
                await manager.find(session.id)

    async def test_many_sessions_are_asked_for_in_batches(self, autojump_clock):
        """Only those with something under way."""
        store = AbsentStore()
        async with open_manager(store, **LIMITS) as manager:
            for number in range(1200):
                session = await create(manager)
                if number % 2:
                    manager.start_in(session, trio.sleep_forever)
            await trio.sleep(LAG + 1)
        assert store.asked == [500, 100]


class TestStreams:
    async def test_old_streams_are_dropped_here_and_in_the_store(self, autojump_clock):
        """Those that have ended, within a round of their age; a session in use keeps the others."""
        store = InMemoryStore()
        streams = StreamConfig(limits=LogLimits(max_age=60))
        async with open_manager(store, streams=streams, **LIMITS) as manager:
            session = await create(manager)
            ended, open_one = (manager.streams.begin(session, StreamKind.LISTENING) for _ in range(2))
            for stream in (ended, open_one):
                stream.publish(b"data: x", "1", manager.now())
                stream.attach(0)
            ended.end(manager.now())
            manager.streams.note_rest(ended)
            with manager.use(session):
                await trio.sleep(59)
                assert set(manager.streams.of(session)) == {ended, open_one}
                assert await store.read_events(session.id, ended.key.stream_id, 0)
                await trio.sleep(2 * LAG + 1)
                assert set(manager.streams.of(session)) == {open_one}
                assert await store.read_events(session.id, ended.key.stream_id, 0) is None
                assert await store.read_events(session.id, open_one.key.stream_id, 0)


async def test_change_is_made_to_what_is_stored_by_then(autojump_clock):
    """A session that is gone, or a store that is down, is no failure of the call."""
    async with open_manager() as manager:
        session = await create(manager)
        await manager.change(session, lambda current: attrs.evolve(current, principal="p"))
        await manager.change(session, lambda current: attrs.evolve(current, metadata={"k": "v"}))
        found = await manager.find(session.id)
        assert (found.principal, found.metadata) == ("p", {"k": "v"})
        await manager.end(session.id)
        await manager.change(session, lambda current: attrs.evolve(current, principal="q"))
        assert await manager.store.count_sessions() == 0
