"""Writing behind, on the mock clock."""

import logging
import math

import pytest
import trio

from shadowcat.abc import ResponseMode
from shadowcat.errors import StoreCorrupt, StoreUnavailable
from shadowcat.session import (
    Activity,
    InMemoryStore,
    PersistenceConfig,
    PersistenceWorker,
    Session,
    SessionConfig,
    SessionId,
    SessionManager,
    StreamKind,
    open_session_manager,
)
from shadowcat.session.persistence import CHANNEL_SIZE


class RecordingStore(InMemoryStore):
    """Takes note of its batches; fails or hangs when told to."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.touches = []
        self.down = False
        self.hung = False
        self.poison = None
        """The session of which nothing can be kept."""
        self.answers = math.inf
        """Calls until it is down."""

    async def _answer(self, names):
        await trio.lowlevel.checkpoint()
        if self.hung:
            await trio.sleep_forever()
        self.answers -= 1
        if self.down or self.answers < 0:
            raise StoreUnavailable("the store is down")
        if self.poison in names:
            raise StoreCorrupt("the store has something else in its place")

    async def store_event_ids_batch(self, event_ids):
        await self._answer([session_id for session_id, _ in event_ids])
        self.batches.append((trio.current_time(), list(event_ids)))
        return await super().store_event_ids_batch(event_ids)

    async def touch_sessions(self, activities):
        await self._answer([activity.session_id for activity in activities])
        self.touches.append(list(activities))
        await super().touch_sessions(activities)

    async def last(self, name):
        return await self.get_last_event_id(SessionId(name))


@pytest.fixture
def store():
    return RecordingStore()


async def start(store, nursery, names=("s",), **config):
    for name in names:
        await store.create_session(Session(id=SessionId(name)))
    worker = PersistenceWorker(store, PersistenceConfig(**config))
    scope = trio.CancelScope()

    async def run():
        with scope:
            await worker.run()

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    return worker, scope


async def test_marks_are_written_together_a_moment_after_the_first(autojump_clock, nursery, store):
    """One store call for many sessions, within the flush interval."""
    names = [f"s{number}" for number in range(20)]
    worker, _ = await start(store, nursery, names)
    began = trio.current_time()
    for name in names:
        worker.mark_event_id(SessionId(name), "1")
    await trio.sleep(0.2)

    ((when, batch),) = store.batches
    assert when - began == pytest.approx(0.1)
    assert len(batch) == 20


async def test_only_the_newest_is_written(autojump_clock, nursery, store):
    """A burst of events of one session is one write."""
    worker, _ = await start(store, nursery)
    for number in range(500):
        worker.mark_event_id(SessionId("s"), str(number))
    await trio.sleep(1)

    assert [batch for _, batch in store.batches] == [[("s", "499")]]
    assert worker.statistics().coalesced == 499
    assert worker.statistics().pending == 0


async def test_full_batch_does_not_wait(autojump_clock, nursery, store):
    """The interval is an upper bound."""
    names = [f"s{number}" for number in range(50)]
    worker, _ = await start(store, nursery, names)
    began = trio.current_time()
    for name in names:
        worker.mark_event_id(SessionId(name), "1")
    await trio.testing.wait_all_tasks_blocked()

    assert [when for when, _ in store.batches] == [began]


async def test_outage_neither_blocks_nor_spins_nor_reorders(autojump_clock, nursery, store):
    """Marking stays immediate, tries become rare, and the newest id wins at the end."""
    worker, _ = await start(store, nursery)
    store.down = True
    for number in range(5 * CHANNEL_SIZE):
        worker.mark_event_id(SessionId("s"), str(number))
    await trio.sleep(600)
    assert 10 < worker.statistics().failures < 200
    assert worker.statistics().is_degraded
    assert worker.statistics().pending <= 1

    worker.mark_event_id(SessionId("s"), "newest")
    store.down = False
    await trio.sleep(60)
    assert await store.last("s") == "newest"
    assert not worker.statistics().is_degraded


async def test_what_waits_is_bounded_by_the_sessions(autojump_clock, nursery, store):
    """A store that hangs does not make the marks pile up."""
    store.hung = True
    worker, _ = await start(store, nursery)
    for round_ in range(20):
        for number in range(1000):
            worker.mark_event_id(SessionId(f"s{number}"), str(round_))
    await trio.sleep(1)

    assert worker.statistics().pending <= CHANNEL_SIZE + 1000 + 50


async def test_newer_mark_survives_a_failed_older_write(autojump_clock, nursery, store):
    """A batch that comes back never replaces what was marked meanwhile."""
    worker, _ = await start(store, nursery, base_backoff=10)
    store.down = True
    worker.mark_event_id(SessionId("s"), "old")
    await trio.sleep(0.15)
    worker.mark_event_id(SessionId("s"), "new")
    store.down = False
    await trio.sleep(60)

    assert [batch for _, batch in store.batches] == [[("s", "new")]]


async def test_cancelling_writes_what_is_left(autojump_clock, nursery, store):
    """A thousand ids under way are in the store when the worker has ended."""
    names = [f"s{number}" for number in range(1000)]
    worker, scope = await start(store, nursery, names)
    for name in names:
        worker.mark_event_id(SessionId(name), "last")
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()

    assert {await store.last(name) for name in names} == {"last"}
    assert worker.statistics().pending == 0


async def test_hung_store_delays_the_end_by_the_flush_timeout(autojump_clock, store, caplog):
    """It cannot keep the process alive, and what is lost is counted."""
    store.hung = True
    began = trio.current_time()
    async with open_session_manager(SessionConfig(), store) as manager:
        session = await manager.create(None, {}, {}, ResponseMode.JSON)
        manager.streams.begin(session, StreamKind.LISTENING).publish(b"data: x", "7", manager.now())
    assert trio.current_time() - began == pytest.approx(5)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "1 updates of sessions did not reach the store"
    ]


async def test_ended_session_is_not_written(autojump_clock, nursery, store):
    """Its marks go with it."""
    worker, _ = await start(store, nursery)
    store.down = True
    worker.mark_event_id(SessionId("s"), "1")
    await trio.sleep(1)
    worker.forget(SessionId("s"))
    store.down = False
    await trio.sleep(60)
    assert store.batches == []


async def test_uses_go_to_the_store_too(autojump_clock, nursery, store):
    """The newest time of use, once a batch."""
    worker, _ = await start(store, nursery)
    for number in range(10):
        worker.mark_activity(Activity(SessionId("s"), float(number), number + 60.0))
    await trio.sleep(1)
    assert store.touches == [[Activity(SessionId("s"), 9.0, 69.0)]]


class TestPoison:
    """What the store can never take is given up, and alone."""

    async def test_event_id(self, autojump_clock, nursery, store, caplog):
        worker, _ = await start(store, nursery, ["a", "b", "c"])
        store.poison = "b"
        for name in "abc":
            worker.mark_event_id(SessionId(name), "1")
        await trio.sleep(1)
        store.poison = None
        assert [await store.last(name) for name in "abc"] == ["1", None, "1"]
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        statistics = worker.statistics()
        assert (statistics.lost, statistics.pending, statistics.is_degraded) == (1, 0, False)

        worker.mark_event_id(SessionId("b"), "2")
        await trio.sleep(1)
        assert await store.last("b") == "2"

    async def test_use(self, autojump_clock, nursery, store):
        worker, _ = await start(store, nursery, ["a", "b", "c"])
        store.poison = "a"
        for name in "abc":
            worker.mark_activity(Activity(SessionId(name), 1.0, 60.0))
            worker.mark_event_id(SessionId(name), "1")
        await trio.sleep(1)
        touched = [activity.session_id for touch in store.touches for activity in touch]
        assert touched == ["b", "c"]
        assert [await store.last(name) for name in "bc"] == ["1", "1"]

    async def test_store_that_fails_meanwhile_is_waited_for(self, autojump_clock, nursery, store):
        """One by one does not mean that the others are given up too."""
        worker, _ = await start(store, nursery, ["a", "b", "c"])
        store.poison, store.answers = "a", 2
        for name in "abc":
            worker.mark_event_id(SessionId(name), "1")
        await trio.sleep(10)
        assert await store.last("c") is None
        store.answers = math.inf
        await trio.sleep(60)
        assert [await store.last(name) for name in "abc"] == [None, "1", "1"]


class TestLazyStart:
    def test_constructing_needs_no_event_loop(self):
        SessionManager(InMemoryStore(), SessionConfig())

    async def test_hundred_callers_start_one_worker(self, autojump_clock):
        tasks = []
        async with open_session_manager(SessionConfig(), InMemoryStore()) as manager, trio.open_nursery() as nursery:

            async def call():
                tasks.append(await manager.ensure_persistence_started())

            for _ in range(100):
                nursery.start_soon(call)
        assert len(tasks) == 100
        assert len(set(map(id, tasks))) == 1
        assert isinstance(tasks[0], PersistenceWorker)

    async def test_nothing_is_started_before_it_is_needed(self, autojump_clock):
        async with open_session_manager(SessionConfig(), InMemoryStore()):
            await trio.testing.wait_all_tasks_blocked()
            names = [task.name for task in running_tasks()]
            assert not [name for name in names if "PersistenceWorker" in name]

    async def test_zero_turns_it_off(self, autojump_clock):
        store = RecordingStore()
        async with open_session_manager(SessionConfig(max_pending_per_session=0), store) as manager:
            assert await manager.ensure_persistence_started() is None
            session = await manager.create(None, {}, {}, ResponseMode.JSON)
            manager.streams.begin(session, StreamKind.LISTENING).publish(b"data: x", "1", manager.now())
            await trio.sleep(5)
        assert store.batches == []


def running_tasks():
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks, waiting = [], [root]
    while waiting:
        task = waiting.pop()
        tasks.append(task)
        waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return tasks
