"""Writing streams behind."""

import pytest
import trio

from shadowcat.errors import StoreCorrupt, StoreUnavailable
from shadowcat.session import Cursor, InMemoryStore, PersistenceConfig, PersistenceWorker, StreamKind

from .managing import create, open_manager
from .streaming import publish
from .test_event_stream import stream_of

MANY = 40


class AppendStore(InMemoryStore):
    """Takes note of appends; fails or hangs when told to."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.appends = []
        self.error = None
        self.claim_error = None
        self.delay = 0.0

    async def claim_stream(self, session_id, stream_id, owner):
        if self.claim_error is not None:
            raise self.claim_error
        return await super().claim_stream(session_id, stream_id, owner)

    async def renew_owner(self, owner, ttl):
        self.calls.append("renew")
        await super().renew_owner(owner, ttl)

    async def append_events(self, appends, limits):
        self.calls.append("append")
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.appends.append((trio.current_time(), list(appends)))
        return await super().append_events(appends, limits)

    async def stored(self, stream):
        page = await self.read_events(stream.key.session_id, stream.key.stream_id, 0, 1000)
        return [] if page is None else [event.position for event in page.events]


@pytest.fixture
def store():
    return AppendStore()


def over(manager, session, *messages):
    """Return a stream of which nothing more will come."""
    stream = manager.streams.begin(session, StreamKind.ANSWER)
    publish(manager, stream, *messages)
    stream.end(manager.now())
    manager.streams.note_rest(stream)
    return stream


class TestBatches:
    async def test_streams_are_stored_together_a_moment_after_the_first(self, autojump_clock, store):
        """One call for many, within the flush interval."""
        async with open_manager(store) as manager:
            session = await create(manager)
            streams = [manager.streams.begin(session, StreamKind.LISTENING) for _ in range(MANY)]
            for stream in streams:
                publish(manager, stream, "1", "2")
            await trio.sleep(0.2)
            ((when, appends),) = store.appends
            assert when == pytest.approx(0.1)
            assert [len(append.events) for append in appends] == [2] * MANY

    async def test_each_event_is_stored_once(self, autojump_clock, store):
        """However they come."""
        async with open_manager(store) as manager:
            stream = manager.streams.begin(await create(manager), StreamKind.LISTENING)
            for number in range(100):
                publish(manager, stream, str(number))
                await trio.sleep(0.03)
            await trio.sleep(0.2)
            written = [event.position for _, (append,) in store.appends for event in append.events]
            assert written == list(range(1, 101))
            assert 20 < len(store.appends) < 40

    async def test_owner_is_alive_before_its_streams_are_there(self, autojump_clock, nursery, store):
        """Else another would take them at once; not asked of anybody else."""
        worker = PersistenceWorker(store, PersistenceConfig())
        nursery.start_soon(worker.run)
        worker.mark_stream(stream_of())
        await trio.sleep(0.2)
        assert store.calls == ["renew", "append"]

    async def test_much_that_is_left_at_the_end_is_stored_all_the_same(self, autojump_clock, store):
        """It takes several pieces, and an orderly stop waits for them."""
        async with open_manager(store) as manager:
            stream = manager.streams.begin(await create(manager), StreamKind.LISTENING)
            for _ in range(10):
                stream.publish(b"x" * 100_000, None, manager.now())
        assert await store.stored(stream) == list(range(1, 11))

    async def test_store_that_keeps_no_streams_gets_the_last_event_id(self, autojump_clock, store):
        store.keeps_streams = False
        async with open_manager(store) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, "1")
            await trio.sleep(10)
            assert await store.get_last_event_id(session.id) == stream.last_event_id
        assert store.calls == []


class TestFailure:
    async def test_what_was_not_taken_is_stored_later(self, autojump_clock, store):
        """With what has come since; neither lost nor twice."""
        async with open_manager(store, persistence=PersistenceConfig(max_backoff=1.0)) as manager:
            stream = manager.streams.begin(await create(manager), StreamKind.LISTENING)
            store.error = StoreUnavailable("down")
            for number in range(60):
                publish(manager, stream, str(number))
                await trio.sleep(0.5)
            assert store.appends == []
            store.error = None
            await trio.sleep(3)
            assert await store.stored(stream) == list(range(1, 61))
            worker = await manager.ensure_persistence_started()
            assert worker.statistics().pending == 0

    async def test_what_is_marked_while_the_store_is_slow_is_not_forgotten(self, autojump_clock, store):
        async with open_manager(store) as manager:
            stream = manager.streams.begin(await create(manager), StreamKind.LISTENING)
            store.delay = 1.0
            for number in range(50):
                publish(manager, stream, str(number))
                await trio.sleep(0.13)
            await trio.sleep(3)
            assert await store.stored(stream) == list(range(1, 51))

    @pytest.mark.parametrize("seconds", [0.05, 0.15, 0.5])
    async def test_cancelled_while_it_waits_or_writes(self, autojump_clock, store, seconds):
        """What is under way is written again, once the worker ends."""
        store.delay = 0.3
        with trio.move_on_after(seconds):
            async with open_manager(store) as manager:
                stream = manager.streams.begin(await create(manager), StreamKind.LISTENING)
                publish(manager, stream, "1", "2")
                await trio.sleep(0.3)
                publish(manager, stream, "3")
                await trio.sleep_forever()
        assert await store.stored(stream) == ([1, 2] if seconds < 0.3 else [1, 2, 3])

    async def test_hung_store_does_not_make_marks_pile_up(self, autojump_clock, store):
        """One for each stream, however much is published."""
        config = PersistenceConfig(flush_timeout=0)
        async with open_manager(store, persistence=config) as manager:
            session = await create(manager)
            store.delay = 1e6
            streams = [manager.streams.begin(session, StreamKind.LISTENING) for _ in range(MANY)]
            for _ in range(200):
                for stream in streams:
                    publish(manager, stream, "x")
                await trio.sleep(0.1)
            worker = await manager.ensure_persistence_started()
            assert worker.statistics().pending <= 2 * MANY


class TestRefused:
    async def test_stream_of_a_session_that_is_gone_is_given_up(self, autojump_clock, store):
        """Deleted by another proxy; those of other sessions in the batch are stored."""
        async with open_manager(store) as manager:
            session, other = await create(manager), await create(manager)
            stream, kept = (manager.streams.begin(one, StreamKind.LISTENING) for one in (session, other))
            reader = stream.attach(0)
            publish(manager, stream, "1")
            publish(manager, kept, "1")
            await store.delete_session(session.id)
            await trio.sleep(0.2)
            assert (stream.is_fenced, reader.scope.cancel_called, kept.is_fenced) == (True, True, False)
            assert await store.stored(kept) == [1]

    async def test_session_that_ends_takes_its_marks_along(self, autojump_clock, store):
        """Nothing of it reaches the store after that."""
        async with open_manager(store) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, "1")
            await trio.sleep(0.05)
            await manager.end(session.id)
            publish(manager, stream, "2")
            await trio.sleep(1)
            assert store.appends == []

    async def test_nothing_is_kept_when_writing_behind_is_off(self, autojump_clock, store):
        """Not in the store; streams can be found here."""
        async with open_manager(store, max_pending_per_session=0) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, "1")
            await trio.sleep(10)
            assert manager.streams.find(session, stream.cursor_before(stream.log.end)) is stream
        assert store.calls == []


class TestGivenUp:
    async def test_what_the_store_can_never_take_keeps_nothing_else_from_it(self, autojump_clock):
        """It is given up alone, and its stream goes on."""

        class PickyStore(AppendStore):
            async def append_events(self, appends, limits):
                if any(b"poison" in event.block for append in appends for event in append.events):
                    raise StoreCorrupt("cannot be kept")
                return await super().append_events(appends, limits)

        store = PickyStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            streams = [manager.streams.begin(session, StreamKind.LISTENING) for _ in range(3)]
            for stream, message in zip(streams, ["1", "poison", "3"], strict=True):
                publish(manager, stream, message)
            await trio.sleep(1)
            publish(manager, streams[1], "after")
            await trio.sleep(1)
            assert [await store.stored(stream) for stream in streams] == [[1], [2], [1]]
            statistics = manager.persistence_statistics()
            assert (statistics.lost, statistics.is_degraded) == (1, False)

    async def test_streams_that_are_over_wait_for_a_dead_store_within_bounds(self, autojump_clock, store):
        store.error = StoreUnavailable("down")
        persistence = PersistenceConfig(max_pending_bytes=100_000)
        async with open_manager(store, persistence=persistence) as manager:
            session = await create(manager)
            for _ in range(200):
                over(manager, session, "x" * 5000)
                await trio.sleep(1)
            await trio.sleep(100)
            statistics = manager.persistence_statistics()
            assert statistics.pending <= 20
            assert statistics.lost >= 180
            store.error = None
            await trio.sleep(60)
            assert manager.persistence_statistics().pending == 0

    async def test_bound_holds_between_two_tries_too(self, autojump_clock, store, caplog):
        """However far apart those are; it is logged once in an outage."""
        persistence = PersistenceConfig(max_pending_bytes=100_000, base_backoff=1e6, max_backoff=1e6)
        async with open_manager(store, persistence=persistence) as manager:
            for _ in range(2):
                store.error = StoreUnavailable("down")
                session = await create(manager)
                for _ in range(200):
                    over(manager, session, "x" * 5000)
                    await trio.sleep(0.1)
                await trio.sleep(1)
                assert manager.persistence_statistics().pending <= 20
            store.error = None
        assert [record.message[:8] for record in caplog.records] == ["session ", "too much"]

    async def test_what_clients_have_had_is_given_up_first(self, autojump_clock, store):
        """Without being missed."""
        persistence = PersistenceConfig(max_pending_bytes=100_000, max_backoff=1.0)
        async with open_manager(store, persistence=persistence) as manager:
            session = await create(manager)
            store.error = StoreUnavailable("down")
            waiting = [over(manager, session, "x" * 5000) for _ in range(10)]
            for _ in range(100):
                over(manager, session, "x" * 5000).is_delivered = True
                await trio.sleep(0.05)
            await trio.sleep(2)
            store.error = None
            await trio.sleep(5)
            assert [await store.stored(stream) for stream in waiting] == [[1]] * 10
            statistics = manager.persistence_statistics()
            assert (statistics.lost, statistics.pending) == (0, 0)
            assert sum(len(appends) for _, appends in store.appends) == 10

    async def test_what_clients_have_had_does_not_wait(self, autojump_clock, store):
        """There is nothing to store, so it need not be tried again."""
        async with open_manager(store, persistence=PersistenceConfig(max_backoff=1.0)) as manager:
            session = await create(manager)
            store.error = StoreUnavailable("down")
            kept = manager.streams.begin(session, StreamKind.LISTENING)
            for _ in range(40):
                over(manager, session, "x").is_delivered = True
            await trio.sleep(1)
            assert manager.persistence_statistics().pending == 1
            store.error = None
            await trio.sleep(5)
            assert [append.key for _, appends in store.appends for append in appends] == [kept.key]

    async def test_stream_that_cannot_be_claimed_back_keeps_nothing_else_from_the_store(self, autojump_clock, store):
        async with open_manager(store) as manager:
            session = await create(manager)
            stream, other = (manager.streams.begin(session, StreamKind.LISTENING) for _ in range(2))
            publish(manager, stream, "1")
            await trio.sleep(1)
            await store.claim_stream(session.id, stream.key.stream_id, stream.ownership.owner)
            store.claim_error = StoreCorrupt("cannot be read")
            publish(manager, stream, "2")
            publish(manager, other, "1")
            await trio.sleep(1)
            assert (stream.is_fenced, other.is_fenced) == (True, False)
            assert await store.stored(other) == [1]
            assert manager.persistence_statistics().pending == 0

    async def test_stream_whose_claim_was_cut_short_goes_on(self, autojump_clock):
        """The store has another fence by then, which nobody here was told of."""

        class HangingStore(AppendStore):
            async def claim_stream(self, session_id, stream_id, owner):
                record = await super().claim_stream(session_id, stream_id, owner)
                if record is not None and record.fence == 2:
                    await trio.sleep_forever()
                return record

        store = HangingStore()
        async with open_manager(store) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER)
            publish(manager, stream, "1")
            await trio.sleep(1)
            with trio.move_on_after(1):
                await manager.streams.claim(session, Cursor(stream.key.stream_id, 0, None))
            publish(manager, stream, "2")
            await trio.sleep(1)
            assert not stream.is_fenced
            assert await store.stored(stream) == [1, 2]
