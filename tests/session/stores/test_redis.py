"""Against a real redis-server."""

from __future__ import annotations

import itertools
import math
import random
import signal
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import (
    ConfigError,
    SessionConflict,
    SessionExists,
    SessionNotFound,
    StoreCorrupt,
    StoreUnavailable,
)
from shadowcat.session import Session, SessionId
from shadowcat.session.store import Activity
from shadowcat.session.stores.redis import RedisConfig, RedisStore, open_redis_store
from shadowcat.session.stores.redis_scripts import MARGIN
from shadowcat.testing.store_contract.client import LIMITS, OWNER, A, S, append_of, event_at
from shadowcat.testing.stores import check_session_store
from tests.session.stores.redis_server import free_port, running_redis

pytestmark = pytest.mark.slow

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis():
    with running_redis() as server:
        yield server


@pytest.fixture
def own_redis():
    """A server that the test may stop."""
    with running_redis() as server:
        yield server
        server.signal(signal.SIGCONT)


@pytest.fixture
def config(redis):
    """A corner of the server that nobody else has used."""
    return RedisConfig(url=redis.url, prefix=f"test-{next(_numbers)}")


@pytest.fixture
async def store(config):
    async with open_redis_store(config) as store:
        yield store


def frame(number: int, session_id: str = A) -> MessageEnvelope:
    return MessageEnvelope(session_id, Direction.TO_CLIENT, b'{"n":%d,"raw":"\xff\r\n"}' % number, number + 0.1)


def keys(redis, config):
    return sorted(redis.ask("KEYS", config.prefix + ":*"))


CALLS: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "create_session": lambda s: s.create_session(Session(id=SessionId("new"))),
    "get_session": lambda s: s.get_session(A),
    "update_session": lambda s: s.update_session(Session(id=A)),
    "delete_session": lambda s: s.delete_session(A),
    "list_sessions": lambda s: s.list_sessions(),
    "count_sessions": lambda s: s.count_sessions(),
    "touch_sessions": lambda s: s.touch_sessions([Activity(A, 1.0, 2.0)]),
    "expire_sessions": lambda s: s.expire_sessions(1.0),
    "add_frame": lambda s: s.add_frame(frame(1)),
    "get_frames": lambda s: s.get_frames(A),
    "delete_frames": lambda s: s.delete_frames(A),
    "count_frames": lambda s: s.count_frames(A),
    "store_last_event_id": lambda s: s.store_last_event_id(A, "1"),
    "get_last_event_id": lambda s: s.get_last_event_id(A),
    "get_sessions_batch": lambda s: s.get_sessions_batch([A]),
    "update_sessions_batch": lambda s: s.update_sessions_batch([Session(id=A)]),
    "store_event_ids_batch": lambda s: s.store_event_ids_batch([(A, "1")]),
    "modify": lambda s: s.modify(A, lambda session: session),
    "append_events": lambda s: s.append_events([append_of([event_at(1)])], LIMITS),
    "read_events": lambda s: s.read_events(A, S, 0),
    "claim_stream": lambda s: s.claim_stream(A, S, OWNER),
    "renew_owner": lambda s: s.renew_owner(OWNER, 60.0),
    "expire_streams": lambda s: s.expire_streams(1.0),
}


async def test_it_keeps_the_contract(config):
    """The check that every store passes, with two clients of one server."""
    with trio.fail_after(60):
        await check_session_store(lambda: open_redis_store(config))


async def test_keys_and_their_types(store, redis, config):
    """One hash and one stream a session, under one hash tag, and one sorted set for all."""
    await store.create_session(Session(id=A, expires_at=7e9))
    await store.create_session(Session(id=SessionId("for-ever")))
    await store.add_frame(frame(1))

    session, frames, index = (
        f"{config.prefix}:{{s:a}}:session",
        f"{config.prefix}:{{s:a}}:frames",
        f"{config.prefix}:index",
    )
    endless = f"{config.prefix}:{{s:for-ever}}:session"
    assert sorted([endless, session, frames, index]) == keys(redis, config)
    assert ["+hash", "+stream", "+zset"] == [redis.ask("TYPE", key) for key in (session, frames, index)]
    assert ["data", "expires_at", "last_activity", "revision"] == sorted(redis.ask("HKEYS", session))
    assert ["a", "7000000000", "for-ever", "inf"] == redis.ask("ZRANGE", index, "0", "-1", "WITHSCORES")
    assert redis.ask("CLUSTER", "KEYSLOT", session) == redis.ask("CLUSTER", "KEYSLOT", frames)
    assert (7_000_000_000 + MARGIN) * 1000 == redis.ask("PEXPIRETIME", session)
    assert abs((7_000_000_000 + MARGIN) * 1000 - redis.ask("PEXPIRETIME", frames)) < 1000
    assert -1 == redis.ask("PTTL", endless)


@pytest.mark.parametrize("name", ["}", "{}", "}{x}", "{", "a}:session", "a b", "ü", "\x00\r\n"])
async def test_any_id_works(store, redis, config, name):
    """Whatever an id looks like, its keys share a slot and no other session's."""
    session_id = SessionId(name)
    await store.create_session(Session(id=session_id))
    await store.add_frame(frame(1, name))

    assert name == (await store.get_session(session_id)).id
    assert [name] == [session.id for session in await store.list_sessions()]
    await store.delete_session(session_id)
    assert [] == keys(redis, config)


async def test_the_safety_margin_follows_the_session(store, redis, config):
    """Redis drops both keys a day after the time that touch_sessions has set, and never one without end."""
    soon = time.time() + 60
    await store.create_session(Session(id=A, expires_at=0.0))
    await store.add_frame(frame(1))
    both = [key for key in keys(redis, config) if "index" not in key]
    assert all(MARGIN - 5 < redis.ask("TTL", key) <= MARGIN for key in both)

    await store.touch_sessions([Activity(A, soon, soon + 1000)])
    assert all(MARGIN + 1000 < redis.ask("TTL", key) <= MARGIN + 1061 for key in both)

    await store.touch_sessions([Activity(A, soon, math.inf)])
    assert [-1, -1] == [redis.ask("TTL", key) for key in both]


async def test_no_key_is_left(store, redis, config):
    """Neither deleting nor expiring a session leaves anything behind."""
    for name in ("deleted", "expired"):
        await store.create_session(Session(id=SessionId(name), expires_at=10.0))
        await store.add_frame(frame(1, name))
        await store.store_last_event_id(SessionId(name), "9")

    await store.delete_session(SessionId("deleted"))
    assert ["expired"] == [session.id for session in await store.expire_sessions(10.0)]
    assert [] == keys(redis, config)


async def test_what_is_gone_is_not_made_again(store, redis, config):
    """No call on a session that is gone creates a key."""
    for call in (
        lambda: store.get_session(A),
        lambda: store.update_session(Session(id=A)),
        lambda: store.delete_session(A),
        lambda: store.add_frame(frame(1)),
        lambda: store.store_last_event_id(A, "1"),
        lambda: store.get_last_event_id(A),
        lambda: store.modify(A, lambda session: session),
    ):
        with pytest.raises(SessionNotFound):
            await call()
    await store.touch_sessions([Activity(A, 1.0, 2.0)])
    await store.delete_frames(A)
    assert [A] == await store.update_sessions_batch([Session(id=A)])
    assert [A] == await store.store_event_ids_batch([(A, "1")])
    assert [] == list(await store.get_frames(A)) + list(await store.get_sessions_batch([A]))
    assert [] == keys(redis, config)


async def test_a_refused_creation_changes_nothing(store, redis, config):
    """The session that exists stays as it was, and so does its time in the index."""
    await store.create_session(Session(id=A, principal="first", expires_at=100.0))
    for other in (50.0, 200.0):
        with pytest.raises(SessionExists):
            await store.create_session(Session(id=A, principal="second", expires_at=other))

    assert "first" == (await store.get_session(A)).principal
    assert float(redis.ask("ZSCORE", f"{config.prefix}:index", A)) <= 100.0
    assert [] == await store.expire_sessions(99.0)
    assert [A] == [session.id for session in await store.expire_sessions(100.0)]


async def test_frames_are_kept_to_the_byte_and_bounded(store):
    """The newest thousand stay, in order."""
    await store.create_session(Session(id=A))
    for number in range(1005):
        await store.add_frame(frame(number))

    assert 1000 == await store.count_frames(A)
    assert [frame(number) for number in range(5, 1005)] == await store.get_frames(A)


@pytest.mark.parametrize("score", ["5", "+inf"])
async def test_an_index_entry_without_a_session_heals(store, redis, config, score):
    """As left by a proxy that died between two steps of creating or deleting."""
    redis.ask("ZADD", f"{config.prefix}:index", score, "ghost")
    await store.create_session(Session(id=A, expires_at=10.0))

    assert 2 == await store.count_sessions()
    if score == "5":
        assert [] == await store.expire_sessions(9.0)
    else:
        assert [A] == [session.id for session in await store.list_sessions()]
    assert 1 == await store.count_sessions()


async def test_an_index_that_is_early_heals(store, redis, config):
    """As left by a proxy that died between two steps of touching: the session is not expired."""
    await store.create_session(Session(id=A, expires_at=50.0))
    redis.ask("ZADD", f"{config.prefix}:index", "10", A)

    assert [] == await store.expire_sessions(20.0)
    assert "50" == redis.ask("ZSCORE", f"{config.prefix}:index", A)


async def test_a_session_made_again_stays_in_the_index(store, redis, config):
    """Another proxy may make a session while this one takes it out of the index."""
    await store.create_session(Session(id=A, expires_at=50.0))
    await store._drop([b"a"])

    assert "50" == redis.ask("ZSCORE", f"{config.prefix}:index", A)


async def test_stale_entries_do_not_use_up_the_limit(store, redis, config):
    """Behind any number of healed entries, those that are due are found."""
    for number in range(20):
        redis.ask("ZADD", f"{config.prefix}:index", "1", f"ghost{number}")
    for number in range(7):
        await store.create_session(Session(id=SessionId(f"due{number}"), expires_at=2.0))

    assert 5 == len(await store.expire_sessions(3.0, limit=5))
    assert 2 == len(await store.expire_sessions(3.0, limit=5))


@pytest.mark.parametrize(
    ("field", "value"), [("data", "{"), ("data", '{"state":"?"}'), ("expires_at", "x"), ("last_activity", "")]
)
async def test_what_cannot_be_read_is_said_and_does_not_keep_others_from_expiring(store, redis, config, field, value):
    """StoreCorrupt, and the session is as it was, until it expires."""
    await store.create_session(Session(id=A, expires_at=1.0))
    await store.create_session(Session(id=SessionId("b"), expires_at=2.0))
    redis.ask("HSET", f"{config.prefix}:{{s:a}}:session", field, value)

    for call in (store.get_session(A), store.list_sessions(), store.get_sessions_batch([A])):
        with pytest.raises(StoreCorrupt):
            await call
    assert value == redis.ask("HGET", f"{config.prefix}:{{s:a}}:session", field)
    assert ["b"] == [session.id for session in await store.expire_sessions(3.0)]
    assert 0 == await store.count_sessions()


async def test_a_key_of_another_type_is_said(store, redis, config):
    """Somebody else's keys under our prefix are not touched."""
    for key in (f"{config.prefix}:{{s:a}}:session", f"{config.prefix}:{{s:a}}:frames"):
        redis.ask("SET", key, "mine")
    redis.ask("ZADD", f"{config.prefix}:index", "1", A)

    for call in (
        store.get_session(A),
        store.create_session(Session(id=A)),
        store.update_session(Session(id=A)),
        store.touch_sessions([Activity(A, 1.0, 2.0)]),
        store.get_last_event_id(A),
        store.get_frames(A),
        store.count_frames(A),
    ):
        with pytest.raises(StoreCorrupt):
            await call
    assert [] == await store.expire_sessions(3.0)
    assert "mine" == redis.ask("GET", f"{config.prefix}:{{s:a}}:session")


async def test_a_broken_frame_is_said(store, redis, config):
    """An entry of another shape is StoreCorrupt, not a crash."""
    await store.create_session(Session(id=A))
    redis.ask("XADD", f"{config.prefix}:{{s:a}}:frames", "*", "what", "ever")
    with pytest.raises(StoreCorrupt):
        await store.get_frames(A)


async def test_no_update_is_lost(config):
    """Two clients, 5,000 changes each: the sum is exact."""

    async def count_up(client):
        for _ in range(5000):
            await client.modify(A, lambda s: attrs.evolve(s, metadata={"n": str(int(s.metadata["n"]) + 1)}))

    async with open_redis_store(config) as one, open_redis_store(config) as other:
        await one.create_session(Session(id=A, metadata={"n": "0"}))
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_up, one)
                nursery.start_soon(count_up, other)
        session = await other.get_session(A)

    assert ("10000", 10_000) == (session.metadata["n"], session.revision)


async def test_a_stale_update_is_refused(store):
    """Also in a batch, which does the others."""
    await store.create_session(Session(id=A))
    await store.create_session(Session(id=SessionId("b")))
    old = await store.get_session(A)
    assert 1 == (await store.update_session(old)).revision

    with pytest.raises(SessionConflict):
        await store.update_session(old)
    assert [A] == await store.update_sessions_batch([old, Session(id=SessionId("b"), principal="p")])
    assert "p" == (await store.get_session(SessionId("b"))).principal


async def test_an_expired_session_is_handed_out_once(config):
    """Of two clients that expire at once, one gets it."""
    async with open_redis_store(config) as one, open_redis_store(config) as other:
        for number in range(300):
            await one.create_session(Session(id=SessionId(str(number)), expires_at=1.0))
        got: list[str] = []

        async def expire(client):
            while sessions := await client.expire_sessions(1.0, limit=20):
                got.extend(session.id for session in sessions)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expire, one)
            nursery.start_soon(expire, other)

    assert sorted(map(str, range(300))) == sorted(got)


async def test_a_paused_server_is_unavailable_in_time(own_redis):
    """Every call gives up after the response timeout; once the server goes on, so do calls."""
    config = RedisConfig(url=own_redis.url, response_timeout=0.3, connect_timeout=60)
    async with open_redis_store(config) as store:
        await store.create_session(Session(id=A))
        own_redis.signal(signal.SIGSTOP)
        for call in CALLS.values():
            start = trio.current_time()
            with pytest.raises(StoreUnavailable, match="in time"):
                await call(store)
            assert 0.29 <= trio.current_time() - start < 0.5
        own_redis.signal(signal.SIGCONT)
        with trio.fail_after(5):
            assert A == (await store.get_session(A)).id
            # Nothing that was given up was obeyed late, but what the server had received already.
            assert {A} <= {session.id for session in await store.list_sessions()}


async def test_a_restarted_server_is_used_again(own_redis):
    """While it is down, calls fail at once; afterwards the next one works."""
    config = RedisConfig(url=own_redis.url)
    async with open_redis_store(config) as store:
        await store.create_session(Session(id=A))
        for _ in range(3):
            own_redis.kill()
            start = trio.current_time()
            for call in CALLS.values():
                with pytest.raises(StoreUnavailable) as excinfo:
                    await call(store)
                assert str(own_redis.port) not in str(excinfo.value)
            assert trio.current_time() - start < 1.0
            await trio.to_thread.run_sync(own_redis.start)
            await store.create_session(Session(id=A))
            assert A == (await store.get_session(A)).id


async def test_a_full_server_refuses_writes(own_redis):
    """The error names Redis' own code, so that an operator finds it; reads go on."""
    async with open_redis_store(RedisConfig(url=own_redis.url)) as store:
        await store.create_session(Session(id=A))
        own_redis.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match=r"refused a command \(OOM\)"):
            await store.add_frame(frame(1))
        assert A == (await store.get_session(A)).id


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_can_be_cancelled_before_it_begins(store, call):
    """A cancelled caller is let go at once, and the connection is as good as before."""
    await store.create_session(Session(id=A))
    with trio.CancelScope() as scope:
        scope.cancel()
        await call(store)
    assert scope.cancelled_caught
    await store.list_sessions()


async def test_calls_can_be_cancelled_while_connecting(own_redis):
    """However many were, the next one gets the connection: none of them owned it."""
    async with open_redis_store(RedisConfig(url=own_redis.url, response_timeout=2.0)) as store:
        await store.create_session(Session(id=A))
        own_redis.ask("CLIENT", "KILL", "TYPE", "normal")
        own_redis.signal(signal.SIGSTOP)
        for _ in range(200):
            with trio.move_on_after(0.001):
                await store.get_session(A)
        own_redis.signal(signal.SIGCONT)
        assert A == (await store.get_session(A)).id


async def test_cancelled_calls_do_not_mix_up_answers(store):
    """500 calls cancelled at random, single ones and batches, while others go on undisturbed."""
    ids = [SessionId(f"s{number}") for number in range(50)]
    for session_id in ids:
        await store.create_session(Session(id=session_id))
    dice, cancelled, done = random.Random(1), 0, trio.Event()

    async def disturb():
        nonlocal cancelled
        while cancelled < 500:
            calls = (
                lambda: store.get_sessions_batch(ids),
                lambda: store.touch_sessions([Activity(i, 1.0, 1e9) for i in ids]),
                lambda: store.get_session(ids[0]),
                lambda: store.update_session(Session(id=ids[1], revision=99)),
            )
            with trio.move_on_after(dice.random() * 0.002) as scope:
                try:
                    await dice.choice(calls)()
                except SessionConflict:
                    continue
            cancelled += scope.cancelled_caught
        done.set()

    async def read():
        while not done.is_set():
            session_id = dice.choice(ids)
            assert session_id == (await store.get_session(session_id)).id
            assert ids[:9] == [session.id for session in await store.get_sessions_batch(ids[:9])]

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for task in (disturb, read, read, read):
                nursery.start_soon(task)
    assert ids == [session.id for session in await store.get_sessions_batch(ids)]


async def test_ten_thousand_sessions(store, capsys):
    """Listing, counting and expiring many works; how long it takes is printed."""
    numbers = iter(range(10_000))

    async def create():
        for number in numbers:
            await store.create_session(Session(id=SessionId(f"s{number}"), expires_at=float(number)))

    async def timed(name, call):
        start = time.perf_counter()
        result = await call()
        with capsys.disabled():
            print(f"\n  redis, 10,000 sessions: {name} {(time.perf_counter() - start) * 1000:.1f} ms", end="")
        return result

    async def create_all():
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(create)

    await timed("create, 32 at once", create_all)
    assert 10_000 == await timed("count", store.count_sessions)
    assert 10_000 == len({session.id for session in await timed("list", store.list_sessions)})
    ids = [SessionId(f"s{number}") for number in range(10_000)]
    assert 10_000 == len(await timed("get in one batch", lambda: store.get_sessions_batch(ids)))
    await timed("touch in one batch", lambda: store.touch_sessions([Activity(i, 1.0, 0.0) for i in ids]))
    assert 5000 == len(await timed("expire half", lambda: store.expire_sessions(4999.0, limit=10_000)))
    assert 5000 == await store.count_sessions()


async def test_closing_twice(config):
    """A closed store says so; closing needs no server and can be cancelled."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_redis_store(config))
        await store.aclose()
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.count_sessions()
    async with open_redis_store(config) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.count_sessions()


async def test_a_wrong_password_is_said_without_it():
    """Also a missing one, a wrong user and a database that is not there."""
    with running_redis("--requirepass", "s3cret-one") as redis:
        address = redis.url.removeprefix("redis://")
        for login in ("", ":s3cret-two@", "nobody:s3cret-one@"):
            with pytest.raises(ConfigError, match="correct user, password and database") as excinfo:
                async with open_redis_store(RedisConfig(url=f"redis://{login}{address}")):
                    pass
            assert "s3cret" not in "".join(traceback.format_exception(excinfo.value))
        with pytest.raises(ConfigError, match="database"):
            async with open_redis_store(RedisConfig(url=f"redis://:s3cret-one@{address}/99")):
                pass
        async with open_redis_store(RedisConfig(url=f"redis://default:s%33cret-one@{address}/3")) as store:
            assert 0 == await store.count_sessions()


async def test_a_cluster_node_takes_every_step(tmp_path):
    """In cluster mode Redis refuses what crosses slots; every call works on one node that has them all."""
    # By default its second port is the first and 10,000, which may be none.
    ports = ["--cluster-port", str(free_port())]
    nodes = ["--cluster-config-file", str(tmp_path / "nodes.conf")]
    with running_redis("--cluster-enabled", "yes", *nodes, *ports) as redis:
        redis.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while "cluster_state:ok" not in str(redis.ask("CLUSTER", "INFO")):  # noqa: ASYNC110  (another process)
            await trio.sleep(0.05)
        refused = redis.ask("MGET", "a", "b")
        assert isinstance(refused, str)
        assert refused.startswith("-CROSSSLOT")
        with trio.fail_after(60):
            await check_session_store(lambda: open_redis_store(RedisConfig(url=redis.url)), sessions=100)
