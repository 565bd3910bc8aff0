"""Event streams in a real redis-server: what the contract of stores cannot see."""

from __future__ import annotations

import itertools
import math
import time

import attrs
import pytest
import trio

from shadowcat.errors import StoreCorrupt
from shadowcat.session import Activity, LogLimits, Session, SessionId, StreamId
from shadowcat.session.stores.redis import RedisConfig, open_redis_store
from shadowcat.session.stores.redis_scripts import CLAIM, MARGIN
from shadowcat.testing.store_contract.client import (
    LIMITS,
    OTHER,
    OWNER,
    A,
    S,
    append,
    append_of,
    event_at,
    found,
    is_known,
    positions_of,
    session_called,
)
from tests.session.stores.redis_server import running_redis

pytestmark = pytest.mark.slow

_numbers = itertools.count()


@pytest.fixture(scope="module")
def redis():
    with running_redis() as server:
        yield server


@pytest.fixture
def config(redis):
    """A corner of the server that nobody else has used."""
    return RedisConfig(url=redis.url, prefix=f"streams-{next(_numbers)}")


@pytest.fixture
async def store(config):
    async with open_redis_store(config) as store:
        await store.create_session(session_called(A, expires_at=7e9))
        yield store


@pytest.fixture
async def other(config, store):
    async with open_redis_store(config) as other:
        yield other


def keys(redis, config):
    return sorted(redis.ask("KEYS", config.prefix + ":*"))


def streams_key(config):
    return f"{config.prefix}:{{s:a}}:streams"


async def test_keys_and_their_types(store, redis, config):
    """All of a stream stands in the slot of its session; an entry's id is the position."""
    await append(store, append_of([event_at(1), event_at(7)]), append_of(stream="e", is_ended=True))
    await store.renew_owner(OWNER, 60.0)

    names = streams_key(config)
    record, events = f"{names}:record:s", f"{names}:events:s"
    index, ended, owner = (f"{config.prefix}:{name}" for name in ("index", "ended", "owner:owner"))
    session = f"{config.prefix}:{{s:a}}:session"
    all_keys = [session, names, record, events, f"{names}:record:e", index, ended, owner]
    assert sorted(all_keys) == keys(redis, config)
    kinds = {names: "zset", record: "hash", events: "stream", ended: "zset", owner: "string"}
    assert {f"+{kind}" for kind in kinds.values()} == {redis.ask("TYPE", key) for key in kinds}
    assert ["1-0", "7-0"] == [entry for entry, _ in redis.ask("XRANGE", events, "-", "+")]
    assert ["e", "s"] == redis.ask("ZRANGE", names, "0", "-1")
    assert ["e.a", "1000"] == redis.ask("ZRANGE", ended, "0", "-1", "WITHSCORES")
    assert 1 == len({redis.ask("CLUSTER", "KEYSLOT", key) for key in (session, names, record, events)})
    assert 59_000 < redis.ask("PTTL", owner) <= 60_000


@pytest.mark.parametrize("name", ["}", "{}", "a}:session", "a b", "a.b", "ü", "\x00\r\n"])
async def test_no_key_is_left(store, redis, config, name):
    """Neither deleting nor expiring a session, nor expiring streams, leaves anything, whatever an id looks like."""
    await store.delete_session(A)
    for end in (lambda: store.delete_session(SessionId(name)), lambda: store.expire_sessions(10.0)):
        await store.create_session(Session(id=SessionId(name), expires_at=10.0))
        await append(store, append_of([event_at(1)], session=name))
        await append(store, append_of([event_at(1)], session=name, stream="e:f", is_ended=True))
        assert await is_known(store, "e:f", session=name)
        await end()
        assert [f"{config.prefix}:ended"] == keys(redis, config)
        assert 0 == await store.expire_streams(1e9)
        assert [] == keys(redis, config)

    await store.create_session(Session(id=SessionId(name)))
    await append(store, append_of([event_at(1)], session=name, is_ended=True))
    assert 1 == await store.expire_streams(1e9)
    await store.delete_session(SessionId(name))
    assert [] == keys(redis, config)


async def test_refused_appends_leave_nothing(store, redis, config):
    """But for a line in the index of what has ended, until somebody comes by."""
    await store.delete_session(A)
    assert [append_of().key] == await store.append_events([append_of([event_at(1)], is_ended=True)], LIMITS)
    assert await store.claim_stream(A, S, OTHER) is None
    assert 0 == await store.expire_streams(1e9)
    assert [] == keys(redis, config)


async def test_dropped_streams_leave_nothing(store, redis, config):
    """Those beyond the limit go with their events."""
    for number in range(5):
        one = append_of([event_at(1)], stream=f"s{number}")
        await append(store, one, limits=attrs.evolve(LIMITS, max_streams=2))
    names = streams_key(config)
    left = [f"{names}:{kind}:s{number}" for kind in ("events", "record") for number in (3, 4)]
    assert sorted([names, *left]) == [key for key in keys(redis, config) if key.startswith(names)]


async def test_streams_last_as_long_as_their_session(store, redis, config):
    """Redis drops them when it drops the session: also one that was touched, or begun, later."""
    soon = time.time() + 1000
    await store.create_session(Session(id=SessionId("b"), expires_at=soon))
    await append(store, append_of(session="b", stream="first"))
    mine = [key for key in keys(redis, config) if "{s:b}" in key]
    assert all(MARGIN + 990 < redis.ask("TTL", key) <= MARGIN + 1000 for key in mine)

    await store.touch_sessions([Activity(SessionId("b"), soon, soon + 1000)])
    await append(store, append_of([event_at(1)], session="b", stream="first"))
    await append(store, append_of([event_at(1)], session="b", stream="second"))
    mine = [key for key in keys(redis, config) if "{s:b}" in key]
    assert 6 == len(mine)
    assert all(MARGIN + 1990 < redis.ask("TTL", key) <= MARGIN + 2000 for key in mine)

    await store.touch_sessions([Activity(SessionId("b"), soon, math.inf)])
    await append(store, append_of(session="b", stream="third"))
    assert {-1} == {redis.ask("TTL", key) for key in keys(redis, config) if "{s:b}" in key}


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        (LogLimits(max_events=7, max_age=math.inf), 294),
        (LogLimits(max_bytes=1000, max_age=math.inf), 291),
        (LogLimits(max_age=4.0), 296),
        (LogLimits(max_events=1), 300),
        (LogLimits(max_bytes=1), 300),
    ],
)
@pytest.mark.parametrize("size", [1, 9, 300])
async def test_trimming_is_exact(store, redis, config, limits, first, size):
    """However events are cut into appends; and the sums in the record are those of its events."""
    events = [event_at(n, b"x" * 100, recorded_at=1000.0 + n) for n in range(1, 301)]
    for start in range(0, 300, size):
        await append(store, append_of(events[start : start + size]), limits=limits)
    kept = (await found(store)).events

    assert list(range(first, 301)) == positions_of(kept)
    sums = redis.ask("HMGET", streams_key(config) + ":record:s", "bytes", "oldest_at")
    assert [len(kept) * 100, 1000.0 + first] == [float(value) for value in sums]


async def test_many_appends_are_one_round_trip(store, monkeypatch):
    exchanges = []
    exchange = store._servers.exchange

    async def counted(commands, **options):
        exchanges.append(len(commands))
        return await exchange(commands, **options)

    monkeypatch.setattr(store._servers, "exchange", counted)
    await append(store, *(append_of([event_at(1)], stream=f"s{n}", is_ended=n == 0) for n in range(50)))
    assert [51] == exchanges


def between_the_steps(monkeypatch, store, act):
    """Have *act* done when *store* has found that an owner is dead, before it claims."""
    is_alive = store._streams._is_alive
    acts = iter([act])

    async def look_and_act(owner):
        answer = await is_alive(owner)
        for once in acts:
            await once()
            break
        return answer

    monkeypatch.setattr(store._streams, "_is_alive", look_and_act)


async def test_a_zombie_that_comes_back_while_its_stream_is_claimed(store, other, monkeypatch):
    """It appended before the claim, so that is kept; after it nothing is taken from it any more."""
    await append(store, append_of([event_at(1)]))

    async def revive():
        await store.renew_owner(OWNER, 60.0)
        await append(store, append_of([event_at(2)], resume_id="2"))

    between_the_steps(monkeypatch, other, revive)
    claimed = await other.claim_stream(A, S, OTHER)
    assert claimed is not None
    assert (OTHER, 2, 2, "2") == (claimed.owner, claimed.fence, claimed.last_position, claimed.resume_id)
    assert [append_of().key] == await store.append_events([append_of([event_at(3)])], LIMITS)
    await append(other, append_of([event_at(3, b"data: mine")], owner=OTHER, fence=2))
    assert [b"data: {}", b"data: {}", b"data: mine"] == [event.block for event in (await found(store)).events]


async def test_an_owner_that_holds_on_again_while_its_stream_is_claimed(store, other, monkeypatch):
    """It had let go; alive and with the stream in its hands again, it keeps it."""
    await store.renew_owner(OWNER, 60.0)
    await append(store, append_of([event_at(1)], is_released=True))
    ask = other._ask

    async def ask_late(*commands, again=False):
        if commands[0][1] == CLAIM and not again:
            await append(store, append_of([event_at(2)]))
        return await ask(*commands, again=again)

    monkeypatch.setattr(other._streams, "_ask", ask_late)
    claimed = await other.claim_stream(A, S, OTHER)
    assert claimed is not None
    assert (OWNER, 1) == (claimed.owner, claimed.fence)


@pytest.mark.parametrize("ttl", [60.0, 0.0])
async def test_a_stream_that_is_claimed_by_two(store, other, monkeypatch, ttl):
    """Whoever comes second gets it only if the first is dead by then."""
    await append(store, append_of([event_at(1)]))

    async def be_faster():
        await store.renew_owner(OWNER, ttl)
        assert (await store.claim_stream(A, S, OWNER)) is not None

    between_the_steps(monkeypatch, other, be_faster)
    claimed = await other.claim_stream(A, S, OTHER)
    assert claimed is not None
    assert ((OWNER, 2) if ttl else (OTHER, 3)) == (claimed.owner, claimed.fence)


async def test_a_stream_that_goes_while_it_is_claimed(store, other, monkeypatch):
    await append(store, append_of([event_at(1)]))
    between_the_steps(monkeypatch, other, lambda: store.delete_session(A))
    assert await other.claim_stream(A, S, OTHER) is None


@pytest.mark.parametrize("end", [{"is_ended": True}, {"is_released": True}, {"last_position": 2}])
async def test_waiting_ends_when_there_is_news(store, other, end):
    """And not for what is appended to other streams."""
    await store.renew_owner(OWNER, 60.0)
    await append(store, append_of([event_at(1)]))
    woken = trio.Event()

    async def wait():
        await other.wait_events(A, S, 1)
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await append(store, append_of([event_at(7)], stream="t"))
        await trio.sleep(0.15)
        assert not woken.is_set()
        await append(store, append_of(**({"last_position": 1} | end)))
        with trio.fail_after(0.5):
            await woken.wait()


async def test_waiting_for_a_stream_that_is_gone_ends(store):
    with trio.fail_after(0.5):
        await store.wait_events(A, S, 1)


async def test_an_owner_is_dead_when_its_time_is_over(store, redis, config):
    """By the server's clock."""
    await append(store, append_of())
    await store.renew_owner(OWNER, 0.05)
    with trio.fail_after(5):
        while (await found(store)).record.owner is not None:  # noqa: ASYNC110  (another process)
            await trio.sleep(0.01)
    assert f"{config.prefix}:owner:owner" not in keys(redis, config)


@pytest.mark.parametrize("field", ["kind", "fence", "last_position"])
async def test_a_record_that_cannot_be_read_is_said(store, redis, config, field):
    await append(store, append_of([event_at(1)]))
    redis.ask("HDEL", f"{streams_key(config)}:record:s", field)
    for call in (store.read_events(A, S, 0), store.claim_stream(A, S, OTHER)):
        with pytest.raises(StoreCorrupt, match="end its session"):
            await call
    await store.delete_session(A)


async def test_an_event_that_cannot_be_read_is_said(store, redis, config):
    await append(store, append_of([event_at(1)]))
    redis.ask("XADD", f"{streams_key(config)}:events:s", "9-0", "what", "ever")
    with pytest.raises(StoreCorrupt, match="end its session"):
        await store.read_events(A, S, 0)


async def test_a_key_of_another_type_is_said_and_keeps_no_other_from_expiring(store, redis, config):
    await append(store, *(append_of(stream=name, is_ended=True) for name in ("s", "t")))
    redis.ask("DEL", f"{streams_key(config)}:record:s")
    redis.ask("SET", f"{streams_key(config)}:record:s", "mine")

    for call in (
        store.append_events([append_of()], LIMITS),
        store.read_events(A, S, 0),
        store.claim_stream(A, S, OTHER),
        store.expire_streams(1e9),
    ):
        with pytest.raises(StoreCorrupt):
            await call
    assert not await is_known(store, StreamId("t"))
    assert 0 == await store.expire_streams(1e9)
