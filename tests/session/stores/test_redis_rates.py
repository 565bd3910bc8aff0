"""Allowances that several processes share, in a real redis-server."""

import itertools
import math
import signal
import subprocess
import sys
import time

import pytest
import trio

from shadowcat.errors import StoreCorrupt, StoreUnavailable
from shadowcat.resilience import RateLimit
from shadowcat.session import RateTake, open_failover_store
from shadowcat.session.stores.redis import RedisConfig, open_redis_store
from tests.session.stores.redis_server import running_cluster, running_redis

pytestmark = pytest.mark.slow

_numbers = itertools.count()
HOUR = RateLimit(100, 3600)


@pytest.fixture(scope="module")
def redis():
    with running_redis() as server:
        yield server


@pytest.fixture
def config(redis):
    return RedisConfig(url=redis.url, prefix=f"rates-{next(_numbers)}", response_timeout=30)


def take_of(key, limit=HOUR, cost=1):
    return RateTake(key, limit.ticks, limit.interval * cost, limit.span)


def rates_of(store):
    assert store.rates is not None
    return store.rates


async def take_many(config, times, *takes):
    """Ask from as many tasks as *times*, on one connection; return how often it was granted."""
    granted = 0
    async with open_redis_store(config) as store, trio.open_nursery() as nursery:

        async def ask():
            nonlocal granted
            taken = await rates_of(store).take(takes)
            granted += taken.is_taken

        for _ in range(times):
            nursery.start_soon(ask)
    return granted


async def test_levels_are_what_was_taken_before(config):
    limit = RateLimit(7, 3600, burst=3)
    async with open_redis_store(config) as store:
        taken = [await rates_of(store).take([take_of("a", limit)]) for _ in range(4)]
    assert [each.is_taken for each in taken] == [True, True, True, False]
    used = [each.levels[0] / limit.interval for each in taken]
    assert used == [pytest.approx(number, abs=1e-3) for number in (0, 1, 2, 3)]
    assert taken[3].levels[0] > 2 * limit.interval


async def test_parts_of_a_microsecond_add_up(redis, config):
    """Each request moves the number on by a seventh of three seconds, exactly."""
    limit, kept = RateLimit(7, 3), []
    async with open_redis_store(config) as store:
        for _ in range(7):
            await rates_of(store).take([take_of("a", limit)])
            whole, rest = map(int, redis.ask("GET", f"{config.prefix}:{{limits}}:a").split())
            assert rest < limit.ticks
            kept.append(whole * limit.ticks + rest)
    assert [later - kept[0] for later in kept] == [number * limit.interval for number in range(7)]


async def test_nobody_saves_up_more_than_a_burst(config):
    """What is past is not kept at once."""
    limit = RateLimit(10, burst=2)
    async with open_redis_store(config) as store:
        assert (await rates_of(store).take([take_of("a", limit, 2)])).is_taken
        await trio.sleep(0.5)
        assert not (await rates_of(store).take([take_of("a", limit, 3)])).is_taken
        assert (await rates_of(store).take([take_of("a", limit, 2)])).is_taken


async def test_all_or_nothing(redis, config):
    """Nobody's allowance is used up by what another limit refuses."""
    small, large = RateLimit(2, 3600), RateLimit(50, 3600)
    async with open_redis_store(config) as store:
        both = [take_of("large", large), take_of("small", small)]
        taken = [await rates_of(store).take(both) for _ in range(5)]
        assert [each.is_taken for each in taken] == [True, True, False, False, False]
        assert (await rates_of(store).take([take_of("large", large, 48)])).is_taken
        assert not (await rates_of(store).take([take_of("large", large)])).is_taken


async def test_exactly_as_many_as_the_limit_says_on_several_connections(config):
    granted = [0, 0, 0, 0]

    async def run(number):
        granted[number] = await take_many(config, 100, take_of("a"))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(run, number)
    assert sum(granted) == 100


PROCESS = """
import sys, trio
from shadowcat.session.stores.redis import RedisConfig
from tests.session.stores.test_redis_rates import take_many, take_of
config = RedisConfig(url=sys.argv[1], prefix=sys.argv[2], response_timeout=30)
print(trio.run(take_many, config, 100, take_of("a")))
"""


def test_exactly_as_many_as_the_limit_says_in_several_processes(config):
    command = [sys.executable, "-c", PROCESS, config.url, config.prefix]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(process.communicate(timeout=60)[0]) for process in processes) == 100


async def test_what_is_used_up_comes_back_at_the_rate(config):
    """As exactly as the server's clock can tell, also where the interval is no whole number of microseconds."""
    limit = RateLimit(70, 3, burst=1)
    async with open_redis_store(config) as store:
        began, granted = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < 1.5:
            granted += (await rates_of(store).take([take_of("a", limit)])).is_taken
    assert granted <= 1 + elapsed * 70 / 3
    assert granted >= math.floor(1.5 * 70 / 3) - 2


async def test_keys_do_not_stay(redis, config):
    async with open_redis_store(config) as store:
        await rates_of(store).take([take_of("a", RateLimit(1, 10))])
    (key,) = redis.ask("KEYS", config.prefix + "*")
    assert key == f"{config.prefix}:{{limits}}:a"
    assert 10_000 < redis.ask("PTTL", key) <= 11_000


async def test_a_key_that_holds_something_else(redis, config):
    redis.ask("SET", f"{config.prefix}:{{limits}}:a", "mine")
    redis.ask("LPUSH", f"{config.prefix}:{{limits}}:b", "mine")
    async with open_redis_store(config) as store:
        for key in ("a", "b"):
            with pytest.raises(StoreCorrupt):
                await rates_of(store).take([take_of(key)])


async def test_a_server_that_is_gone():
    with running_redis() as server:
        config = RedisConfig(url=server.url, response_timeout=0.3)
        async with open_redis_store(config) as store:
            server.signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable):
                await rates_of(store).take([take_of("a")])
            server.signal(signal.SIGCONT)
            server.kill()
            with pytest.raises(StoreUnavailable):
                await rates_of(store).take([take_of("a")])


async def test_with_a_fallback_it_is_the_same_counter(config):
    async with open_redis_store(config) as store, open_failover_store(store) as safe:
        assert safe.rates is store.rates


async def test_on_a_cluster():
    with running_cluster() as cluster:
        config = RedisConfig(url=cluster.url, response_timeout=30)
        granted = await take_many(config, 150, take_of("a"), take_of("b", RateLimit(120, 3600)))
        assert granted == 100
