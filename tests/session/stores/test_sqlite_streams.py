"""Event streams in an SQLite file: what the contract of stores cannot see."""

import math
import sqlite3
import time
from contextlib import closing

import attrs
import pytest
import trio

from shadowcat.errors import StoreCorrupt
from shadowcat.session import LogLimits, OwnerId, SessionId, StreamId, StreamKey
from shadowcat.session.stores import sqlite_streams
from shadowcat.session.stores.sqlite import SqliteConfig, open_sqlite_store
from shadowcat.session.stores.sqlite_file import open_connections
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
    positions_of,
    session_called,
)

KEY = StreamKey(A, S)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    with trio.fail_after(30):
        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            await store.create_session(session_called(A))
            yield store


@pytest.fixture
def db(path):
    """A connection to write with, to a file that has one session."""
    with closing(open_connections(path, 1.0)) as connections:
        connections.writing.execute("INSERT INTO sessions VALUES ('a', '{}', 0, 0, 9e999, NULL)")
        yield connections.writing


def rows_of(db, sql):
    return db.execute(sql).fetchall()


def sums_of(db):
    (sums,) = rows_of(db, "SELECT event_count, event_bytes, oldest_at FROM streams")
    (counted,) = rows_of(db, "SELECT count(*), sum(length(block)), min(recorded_at) FROM events")
    return sums, counted


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        (LogLimits(max_events=7, max_age=math.inf), 94),
        (LogLimits(max_bytes=1000, max_age=math.inf), 91),
        (LogLimits(max_age=4.0), 96),
        (LogLimits(max_events=1), 100),
        (LogLimits(max_bytes=1), 100),
    ],
)
@pytest.mark.parametrize("size", [1, 9, 100])
def test_trimming_is_exact(db, limits, first, size):
    """However events are cut into appends; and the sums in the stream's row are those of its events."""
    events = [event_at(n, b"x" * 100, recorded_at=1000.0 + n) for n in range(1, 101)]
    for start in range(0, 100, size):
        assert [] == sqlite_streams.append(db, [append_of(events[start : start + size])], limits)
        sums, counted = sums_of(db)
        assert sums == counted

    assert [(position,) for position in range(first, 101)] == rows_of(db, "SELECT position FROM events")


def test_nothing_is_left_of_a_stream(db):
    """Neither deleting a session nor dropping a stream leaves events behind."""
    for name, is_ended in (("one", True), ("two", False), ("three", True)):
        sqlite_streams.append(db, [append_of([event_at(1)], stream=name, is_ended=is_ended)], LIMITS)
    assert 2 == sqlite_streams.expire(db, 1e9, 10)
    assert [(1,)] == rows_of(db, "SELECT count(*) FROM events")

    db.execute("DELETE FROM sessions")
    assert [(0, 0)] == rows_of(db, "SELECT (SELECT count(*) FROM streams), (SELECT count(*) FROM events)")


def test_the_dead_are_forgotten(db):
    """Each owner that renews takes those out that are dead."""
    for number in range(100):
        sqlite_streams.renew(db, OwnerId(f"o{number}"), number + 0.5, float(number))
    assert [(b"o99",)] == rows_of(db, "SELECT id FROM owners")


async def test_an_owner_outlives_its_own_last_sign_by_its_ttl(store, monkeypatch):
    """By the wall clock, which all processes of the machine share."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    await append(store, append_of())
    await store.renew_owner(OWNER, 10.0)

    now += 9.9
    assert OWNER == (await found(store)).record.owner
    now += 0.2
    assert (await found(store)).record.owner is None
    claimed = await store.claim_stream(A, S, OTHER)
    assert claimed is not None
    assert (OTHER, 2) == (claimed.owner, claimed.fence)


async def test_a_zombie_writes_nothing(store, path):
    """Not a row of it is there, whichever order the two come in."""
    await append(store, append_of([event_at(1)]))
    async with open_sqlite_store(SqliteConfig(path=path)) as other:
        claimed = await other.claim_stream(A, S, OTHER)
        assert claimed is not None
        mine = append_of([event_at(2, b"data: mine")], owner=OTHER, fence=claimed.fence)
        late = append_of([event_at(2, b"data: late"), event_at(3)], is_ended=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append_events, [late], LIMITS)
            nursery.start_soon(other.append_events, [mine], LIMITS)
        kept = await found(store)

    assert [b"data: {}", b"data: mine"] == [event.block for event in kept.events]
    assert not kept.record.is_ended


async def test_many_appends_are_one_transaction(store):
    statements = []
    appends = [append_of([event_at(1), event_at(2)], stream=f"s{number}") for number in range(50)]
    store._connections.writing.set_trace_callback(statements.append)
    await append(store, *appends)
    assert 1 == statements.count("BEGIN IMMEDIATE")


@pytest.mark.parametrize("size", [10, 10_000])
async def test_what_is_little_is_read_in_the_loop(store, monkeypatch, size):
    """A thread costs more than the read, but for many bytes the loop would stand still."""
    await append(store, append_of([event_at(n, b"x" * size) for n in range(1, 101)]))
    threads = []
    run_sync = trio.to_thread.run_sync

    async def counted(*args, **kwargs):
        threads.append(args)
        return await run_sync(*args, **kwargs)

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    assert list(range(1, 101)) == positions_of((await found(store)).events)
    assert (size > 1000) == len(threads)


@pytest.mark.parametrize("sql", [sqlite_streams._FIND, sqlite_streams._LOOK, sqlite_streams._READ])
def test_looking_up_a_stream_reads_no_other(db, sql):
    """Neither a table nor a sort takes longer with more streams."""
    plan = rows_of(db, "EXPLAIN QUERY PLAN " + sql.replace("?", "1"))
    assert not [step for *_, step in plan if b"SCAN" in step or b"TEMP" in step]


def test_expiring_reads_only_what_has_ended(db):
    plan = rows_of(db, "EXPLAIN QUERY PLAN " + sqlite_streams._EXPIRE.replace("?", "1"))
    assert [step for *_, step in plan if b"streams_by_end" in step]


async def test_more_are_dropped_than_one_transaction_drops(store):
    appends = [append_of(stream=f"s{number}", is_ended=True) for number in range(250)]
    await append(store, *appends, limits=attrs.evolve(LIMITS, max_streams=1000))
    assert 250 == await store.expire_streams(1e9)


async def test_waiting_ends_when_the_owner_lets_go(store, path):
    """And not for what is written of other streams."""
    await store.renew_owner(OWNER, 60.0)
    await append(store, append_of([event_at(1)]))
    woken = trio.Event()

    async def wait():
        await store.wait_events(A, S, 1)
        woken.set()

    async with open_sqlite_store(SqliteConfig(path=path)) as other, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for number in range(5):
            await append(other, append_of([event_at(1)], stream=f"t{number}"))
            await trio.sleep(0.03)
        assert not woken.is_set()
        await append(other, append_of(last_position=1, is_released=True))
        with trio.fail_after(0.5):
            await woken.wait()


async def test_a_stream_that_cannot_be_read_is_said(store, path):
    await append(store, append_of())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE streams SET kind = 'x'")
    for call in (store.read_events(A, S, 0), store.claim_stream(A, StreamId("s"), OTHER)):
        with pytest.raises(StoreCorrupt, match="end its session"):
            await call
    await store.delete_session(SessionId("a"))
