"""`RedisStore` on a real cluster of three nodes."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import attrs
import pytest
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import ConfigError, SessionNotFound, StoreUnavailable
from shadowcat.session import Session, SessionId
from shadowcat.session.store import Activity
from shadowcat.session.stores.redis import RedisConfig, RedisStore, open_redis_store
from shadowcat.testing.store_contract.client import LIMITS, append_of, event_at
from shadowcat.testing.stores import check_session_store
from tests.session.stores.redis_server import Cluster, ClusterNode, running_cluster

pytestmark = pytest.mark.slow

_numbers = itertools.count()


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def own_cluster():
    """One of which the test may stop a node."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def replicated():
    with running_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def config(cluster):
    return RedisConfig(url=cluster.url, prefix=f"test-{next(_numbers)}")


def key_of(config: RedisConfig, session_id: str) -> str:
    return f"{config.prefix}:{{s:{session_id}}}:session"


def sessions_on(cluster: Cluster, config: RedisConfig, number: int, count: int) -> list[SessionId]:
    """Return ids whose keys are on one node."""
    ids = (SessionId(f"s{i}") for i in itertools.count())
    return list(itertools.islice((i for i in ids if cluster.number_of(key_of(config, i)) == number), count))


async def test_it_keeps_the_contract(cluster):
    """The check that every store passes, with two clients that come in by different nodes."""
    urls = itertools.cycle(node.url for node in cluster.primaries)
    with trio.fail_after(90):
        await check_session_store(lambda: open_redis_store(RedisConfig(url=next(urls))), sessions=100)


async def test_sessions_are_spread_over_all_nodes(cluster, config):
    """Each is found by whoever came in by another node; none of them leaves anything behind."""
    ids = {SessionId(f"s{number}") for number in range(60)}
    async with (
        open_redis_store(config) as one,
        open_redis_store(attrs.evolve(config, url=cluster.primaries[2].url)) as other,
    ):
        for session_id in ids:
            await one.create_session(Session(id=session_id, expires_at=1.0))
            assert [] == await one.append_events([append_of([event_at(1)], session=session_id)], LIMITS)
        counts = [sum(key.startswith(config.prefix) for key in cluster.keys(number)) for number in range(3)]
        assert min(counts) > 10
        assert ids == {session.id for session in await other.list_sessions()}
        assert ids == {session.id for session in await other.get_sessions_batch(sorted(ids))}
        assert ids == {session.id for session in await other.expire_sessions(2.0)}
    assert [] == [key for number in range(3) for key in cluster.keys(number) if key.startswith(config.prefix)]


async def test_another_database_is_refused(config):
    with pytest.raises(ConfigError, match="cluster has database 0 only"):
        async with open_redis_store(attrs.evolve(config, url=config.url + "/1")):
            pass


async def test_a_cluster_that_is_not_set_up_is_said():
    with running_cluster(nodes=1) as cluster:
        cluster.primaries[0].ask("CLUSTER", "FLUSHSLOTS")
        with pytest.raises(StoreUnavailable, match="finish setting the cluster up"):
            async with open_redis_store(RedisConfig(url=cluster.url)):
                pass


# ------------------------------------------------------------------------- moving slots


class Traffic:
    """Calls of all kinds in a few sessions, until told to stop; none may fail."""

    def __init__(self, store: RedisStore, ids: list[SessionId]) -> None:
        self._store = store
        self.updates = dict.fromkeys(ids, 0)
        self.events = dict.fromkeys(ids, 0)
        self.is_over = False
        self.calls = 0

    async def run(self) -> None:
        async with trio.open_nursery() as lanes:
            for session_id in self.updates:
                lanes.start_soon(self._use, session_id)
            lanes.start_soon(self._read_all)

    async def _use(self, session_id: SessionId) -> None:
        store, times = self._store, itertools.count(1)
        while not self.is_over:
            await store.modify(session_id, lambda s: attrs.evolve(s, metadata={"n": str(int(s.metadata["n"]) + 1)}))
            self.updates[session_id] += 1
            position = self.events[session_id] = self.events[session_id] + 1
            appends = [append_of([event_at(position)], session=session_id)]
            assert [] == await store.append_events(appends, LIMITS)
            at = float(next(times))
            await store.touch_sessions([Activity(session_id, at, 1e10 + at)])
            await store.store_last_event_id(session_id, str(position))
            assert str(position) == await store.get_last_event_id(session_id)
            self.calls += 1

    async def _read_all(self) -> None:
        while not self.is_over:
            assert set(self.updates) == {session.id for session in await self._store.list_sessions()}
            assert len(self.updates) == len(await self._store.get_sessions_batch(list(self.updates)))


async def take(steps: Iterator[None]) -> None:
    """Do all steps, with time for calls in between."""
    while await trio.to_thread.run_sync(lambda: next(steps, "done")) != "done":  # noqa: ASYNC110  (another process)
        await trio.sleep(0.02)


async def test_slots_move_while_they_are_used(cluster, config):
    """No call fails, and nothing is lost or done twice: there and back, the index too."""
    config = attrs.evolve(config, response_timeout=3.0)
    async with open_redis_store(config) as store:
        ids = [i for number in range(3) for i in sessions_on(cluster, config, number, 3)]
        for session_id in ids:
            await store.create_session(Session(id=session_id, metadata={"n": "0"}, expires_at=1e10))
        traffic = Traffic(store, ids)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await trio.sleep(0.1)
            for key in [f"{config.prefix}:index", *(key_of(config, i) for i in ids[::2])]:
                home = cluster.number_of(key)
                for source, target in ((home, (home + 1) % 3), ((home + 1) % 3, home)):
                    steps = cluster.move(cluster.slot_of(key), source, target)
                    await take(steps)
            traffic.is_over = True
        assert traffic.calls > 100
        for session_id in ids:
            assert str(traffic.updates[session_id]) == (await store.get_session(session_id)).metadata["n"]
            found = await store.read_events(session_id, append_of().key.stream_id, 0, 10_000)
            assert found is not None
            assert traffic.events[session_id] == found.record.last_position
            await store.delete_session(session_id)


async def test_sessions_come_and_go_in_a_slot_that_moves(cluster, config):
    """They wait until it has arrived, if their calls take that long; half of its keys are here, half there."""
    config = attrs.evolve(config, response_timeout=3.0)
    (session_id,) = sessions_on(cluster, config, 0, 1)
    async with open_redis_store(config) as store:
        for _ in range(3):
            await store.create_session(Session(id=session_id))
            await store.append_events([append_of([event_at(1)], session=session_id)], LIMITS)
            for source, target in ((0, 1), (1, 0)):
                steps = cluster.move(cluster.slot_of(key_of(config, session_id)), source, target)
                async with trio.open_nursery() as nursery:
                    next(steps)
                    next(steps)
                    nursery.start_soon(store.delete_session, session_id)
                    await trio.sleep(0.1)
                    await take(steps)
                with pytest.raises(SessionNotFound):
                    await store.get_session(session_id)
                await store.create_session(Session(id=session_id))
            await store.delete_session(session_id)
    assert [] == [key for number in range(3) for key in cluster.keys(number) if key.startswith(config.prefix)]


async def test_a_script_that_was_broken_off_is_done_in_full(cluster, config):
    """A session is kept for longer, and all that belongs to it: also if one of its keys was not to be had at first."""
    config = attrs.evolve(config, response_timeout=3.0)
    (session_id,) = sessions_on(cluster, config, 0, 1)
    async with open_redis_store(config) as store:
        await store.create_session(Session(id=session_id, expires_at=5e9))
        await store.add_frame(MessageEnvelope(session_id, Direction.TO_CLIENT, b"{}", 1.0))
        # Their keys for events are missing, which a node that gives a slot away takes for gone.
        await store.append_events([append_of(session=session_id, stream=name) for name in "st"], LIMITS)
        steps = cluster.move(cluster.slot_of(key_of(config, session_id)), 0, 1)
        next(steps)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.touch_sessions, [Activity(session_id, 1.0, 6e9)])
            await trio.sleep(0.1)
            await take(steps)
        keys = [key for key in cluster.keys(1) if key.startswith(config.prefix + ":{")]
        assert 5 == len(keys)
        for key in keys:
            expires_at = cluster.primaries[1].ask("PEXPIRETIME", key)
            assert isinstance(expires_at, int)
            assert 6e9 * 1000 < expires_at
        await take(cluster.move(cluster.slot_of(key_of(config, session_id)), 1, 0))


# ------------------------------------------------------------------------- nodes that fail


def stop(node: ClusterNode) -> None:
    node.signal(signal.SIGSTOP)


async def refused_in_time(store: RedisStore, session_id: SessionId) -> bool:
    """Tell whether a call is refused, and see that it is in time and names no address."""
    refusal = ""
    began = trio.current_time()
    try:
        await store.modify(session_id, lambda session: session)
    except StoreUnavailable as error:
        refusal = str(error)
    assert trio.current_time() - began < 1.5
    assert "127.0.0.1" not in refusal
    return bool(refusal)


@pytest.mark.parametrize("fail", [ClusterNode.kill, stop], ids=["killed", "stopped"])
async def test_a_replica_takes_over(fail, replicated):
    """Calls for its slots are refused until it has; the others go on. The node that fails was the way in."""
    config = RedisConfig(url=replicated.url, prefix="p2")
    assert 0 != replicated.number_of("p2:index")
    async with open_redis_store(config) as store:
        hit, *spared = (sessions_on(replicated, config, number, 1)[0] for number in range(3))
        for session_id in (hit, *spared):
            await store.create_session(Session(id=session_id))
        await trio.sleep(0.3)
        fail(replicated.primaries[0])
        refusals = 0
        with trio.fail_after(20):
            while await refused_in_time(store, hit):
                refusals += 1
                for session_id in spared:
                    assert not await refused_in_time(store, session_id)
                await trio.sleep(0.05)
        assert refusals > 0
        for session_id in (hit, *spared):
            assert not await refused_in_time(store, session_id)

        if fail is stop:
            # It comes back, and has not heard that it is no primary any more.
            replicated.primaries[0].signal(signal.SIGCONT)
            for _ in range(40):
                assert not await refused_in_time(store, hit)
                await trio.sleep(0.05)
        assert {hit, *spared} == {session.id for session in await store.list_sessions()}


async def test_a_node_without_a_replica_is_missed_by_its_own_sessions_only(own_cluster):
    """Clean refusals for as long as it is gone; when it is back, so are its calls."""
    config = RedisConfig(url=own_cluster.url, prefix="p2")
    async with open_redis_store(config) as store:
        hit, *spared = (sessions_on(own_cluster, config, number, 1)[0] for number in range(3))
        for session_id in (hit, *spared):
            await store.create_session(Session(id=session_id))
        own_cluster.primaries[0].kill()
        for _ in range(60):
            assert await refused_in_time(store, hit)
            for session_id in spared:
                assert not await refused_in_time(store, session_id)
            await trio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await store.get_sessions_batch([hit, *spared])

        await trio.to_thread.run_sync(own_cluster.primaries[0].start)
        with trio.fail_after(20):
            while True:
                try:
                    await store.create_session(Session(id=hit))
                    break
                except StoreUnavailable:
                    await trio.sleep(0.05)
        assert hit == (await store.get_session(hit)).id


async def test_without_the_index_sessions_can_be_used_and_not_opened(own_cluster):
    """It is on one node, and is told first; to end a session tells it last."""
    config = RedisConfig(url=own_cluster.url, prefix="p2")
    index = own_cluster.number_of("p2:index")
    one, two = sessions_on(own_cluster, config, (index + 1) % 3, 2)
    async with open_redis_store(config) as store:
        await store.create_session(Session(id=one))
        own_cluster.primaries[index].kill()
        assert not await refused_in_time(store, one)
        for call in (store.create_session(Session(id=two)), store.list_sessions(), store.delete_session(one)):
            with pytest.raises(StoreUnavailable):
                await call
        for session_id in (one, two):
            with pytest.raises(SessionNotFound):
                await store.get_session(session_id)
