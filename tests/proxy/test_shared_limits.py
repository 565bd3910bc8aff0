"""Limits that a store counts for several proxies, and what holds while it does not."""

import logging
import signal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import StoreCorrupt, StoreUnavailable
from shadowcat.proxy import shared_limits
from shadowcat.proxy.shared_limits import SharedLimits
from shadowcat.session import InMemoryStore, RateCounter, RateTaken
from shadowcat.session.stores.redis import RedisConfig, open_redis_store
from shadowcat.testing import request
from tests.proxy.limiting import open_limited
from tests.session.stores.redis_server import running_redis

PING = request(1, "ping")


class Counter(RateCounter):
    """Buckets that do not leak, and fail as told."""

    def __init__(self):
        self.levels = {}
        self.error = None
        self.asked = 0
        self.delay = 0.0

    async def take(self, takes):
        self.asked += 1
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        before = [self.levels.get(take.key, 0) for take in takes]
        is_taken = all(level + take.step <= take.span for level, take in zip(before, takes, strict=True))
        if is_taken:
            self.levels |= {take.key: level + take.step for level, take in zip(before, takes, strict=True)}
        return RateTaken(is_taken, before)


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
def store(counter):
    store = InMemoryStore()
    store.rates = counter
    return store


async def test_the_store_counts(autojump_clock, store, counter):
    """Two proxies have one allowance."""
    async with (
        open_limited(store, per_client="5/h", per_tool={"a": "1/h"}) as one,
        open_limited(store, per_client="5/h", per_tool={"a": "1/h"}) as other,
    ):
        first, second = await one.session(), await other.session()
        statuses = [await one.status(first, PING), await other.status(second, PING), await one.status(first, PING)]
        assert statuses == [200, 200, 200]
        response = await second.post(PING)
        assert response.status == 429
        assert response.headers["ratelimit"] == '"per_client";r=0;t=720'
        assert response.headers["retry-after"] == "720"
        assert set(counter.levels) == {"per_client:5/3600/5:127.0.0.1"}


async def test_in_an_outage_each_process_counts_for_itself(autojump_clock, store, counter, caplog):
    """Nobody is let off, and nobody waits for the store for long."""
    caplog.set_level(logging.INFO, "shadowcat.proxy.shared_limits")
    async with open_limited(store, per_client="4/h") as limited:
        client = await limited.session()
        counter.error = StoreUnavailable("gone")
        counter.asked = 0
        assert [await limited.status(client, PING) for _ in range(6)] == [200] * 4 + [429] * 2
        assert counter.asked == 1
        assert limited.kit.app.statistics().limit_failures == 1
        counter.error = None
        await trio.sleep(1.1)
        assert await limited.status(client, PING) == 200
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_store_that_does_not_answer(autojump_clock, counter):
    shared = SharedLimits(counter)
    counter.delay = 60
    began = trio.current_time()
    assert await shared.take([]) is None
    assert trio.current_time() - began == 0.5
    assert not shared.is_asked
    await trio.sleep(1)
    assert shared.is_asked


async def test_one_request_at_a_time_finds_out_whether_it_is_back(autojump_clock, counter, nursery):
    shared = SharedLimits(counter)
    counter.error = StoreCorrupt("a key holds something else")
    assert await shared.take([]) is None
    counter.error, counter.delay = None, 0.2
    await trio.sleep(1)
    nursery.start_soon(shared.take, [])
    await wait_all_tasks_blocked()
    assert not shared.is_asked
    await trio.sleep(0.3)
    assert shared.is_asked


@pytest.mark.slow
async def test_through_redis_two_proxies_let_exactly_as_many_pass_as_the_limit_says(monkeypatch):
    monkeypatch.setattr(shared_limits, "_PATIENCE", 30)  # however busy this machine is
    with running_redis() as server:
        config = RedisConfig(url=server.url, response_timeout=30)
        statuses = []
        async with (
            open_redis_store(config) as store,
            open_redis_store(config) as another,
            open_limited(store, per_client="100/h", per_session="70/h") as one,
            open_limited(another, per_client="100/h", per_session="70/h") as other,
        ):
            clients = [(one, await one.session()), (other, await other.session())]

            async def ask(limited, client):
                statuses.append(await limited.status(client, PING))

            async with trio.open_nursery() as nursery:
                for limited, client in clients * 70:
                    nursery.start_soon(ask, limited, client)
        assert statuses.count(200) == 98
        assert statuses.count(429) == 42


@pytest.mark.slow
async def test_redis_that_falls_silent():
    with running_redis() as server:
        async with (
            open_redis_store(RedisConfig(url=server.url)) as store,
            open_limited(store, per_client="1000/h") as limited,
        ):
            await limited.session()
            server.signal(signal.SIGSTOP)
            began = trio.current_time()
            message = request(1, "initialize", protocolVersion="2025-11-25")
            await limited.status(limited.kit.new_client(), message)
            server.signal(signal.SIGCONT)
            assert limited.kit.app.limits.failures == 1
            assert trio.current_time() - began < 5
