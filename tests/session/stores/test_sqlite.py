"""Sessions in an SQLite file: every method, two stores at once, and many sessions."""

import math
import sqlite3
from contextlib import closing

import attrs
import pytest
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import (
    SessionConflict,
    SessionExists,
    SessionNotFound,
)
from shadowcat.protocol import ResponseMode
from shadowcat.session import Session, SessionId, TransportType, UpstreamSessionId
from shadowcat.session.model import SessionState
from shadowcat.session.store import Activity
from shadowcat.session.stores.sqlite import SqliteConfig, open_sqlite_store
from shadowcat.testing import check_session_store

GONE = SessionId("gone")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    with trio.fail_after(30):
        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            yield store


@pytest.fixture
async def other(path, store):
    async with open_sqlite_store(SqliteConfig(path=path)) as other:
        yield other


def session(name="a", **fields):
    return Session(id=SessionId(name), **fields)


def frame(number, name="a"):
    return MessageEnvelope(name, Direction.TO_CLIENT, b'{"n": %d}' % number, float(number))


def execute(path, sql, *parameters):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


FULL = Session(
    id=SessionId("full"),
    upstream_session_id=UpstreamSessionId("up/\u00e4\U0001f408"),
    transport_type=TransportType.WEBSOCKET,
    response_mode=ResponseMode.SSE_STREAM,
    protocol_version="2025-11-25",
    initialize_params={"capabilities": {"roots": {}}, "clientInfo": {"name": "\u732b"}},
    initialize_result={"serverInfo": {"name": "x", "version": None}},
    state=SessionState.ACTIVE,
    upstream_name="search",
    principal="somebody",
    created_at=1.25,
    last_activity=2.5,
    expires_at=1e300,
    metadata={"shadowcat.a": "b"},
    revision=7,
    unknown={"from_the_future": [1, {"x": None}]},
)


async def test_it_keeps_the_contract(path):
    """The check that every store passes, with two stores on one file."""
    with trio.fail_after(60):
        await check_session_store(lambda: open_sqlite_store(SqliteConfig(path=path)))


class TestSessions:
    @pytest.mark.parametrize("kept", [FULL, session(), session(expires_at=math.inf, last_activity=0.1)])
    async def test_comes_back_as_it_was(self, store, other, kept):
        """Every field, those of a newer version included, and a life without end."""
        await store.create_session(kept)

        assert kept == await store.get_session(kept.id)
        assert kept == await other.get_session(kept.id)
        assert [kept] == await store.list_sessions()

    async def test_is_created_once(self, store, other):
        """The first stays as it was."""
        await store.create_session(session(principal="first"))

        for late in (store, other):
            with pytest.raises(SessionExists):
                await late.create_session(session(principal="second"))
        assert "first" == (await store.get_session(SessionId("a"))).principal

    async def test_unknown_session(self, store):
        """What is not there cannot be read, changed or ended."""
        for call in (
            store.get_session(GONE),
            store.update_session(session(GONE)),
            store.delete_session(GONE),
            store.add_frame(frame(1, GONE)),
            store.store_last_event_id(GONE, "1"),
            store.get_last_event_id(GONE),
            store.modify(GONE, lambda session: session),
        ):
            with pytest.raises(SessionNotFound) as caught:
                await call
            assert GONE not in str(caught.value)
        assert [] == await store.get_frames(GONE)
        assert 0 == await store.count_frames(GONE)
        await store.delete_frames(GONE)
        await store.touch_sessions([Activity(GONE, 1.0, 2.0)])
        assert 0 == await store.count_sessions()

    async def test_update_counts_the_revision(self, store, other):
        """An update returns what is stored now."""
        await store.create_session(FULL)

        updated = await store.update_session(attrs.evolve(FULL, principal=None))

        assert attrs.evolve(FULL, principal=None, revision=8) == updated
        assert updated == await other.get_session(FULL.id)

    async def test_update_of_an_old_revision(self, store, other):
        """Whoever read before somebody else wrote has to read again."""
        await store.create_session(session())
        await other.update_session(session(principal="theirs"))

        with pytest.raises(SessionConflict):
            await store.update_session(session(principal="ours"))
        assert "theirs" == (await store.get_session(SessionId("a"))).principal

    async def test_update_leaves_the_times(self, store):
        """An update of what was read before a touch does not undo it."""
        await store.create_session(session(last_activity=1.0, expires_at=2.0))
        await store.touch_sessions([Activity(SessionId("a"), 10.0, 20.0)])

        updated = await store.update_session(session(last_activity=5.0, expires_at=math.inf))

        assert (10.0, 20.0, 1) == (updated.last_activity, updated.expires_at, updated.revision)
        assert updated == await store.get_session(SessionId("a"))

    async def test_touching_only_moves_forward(self, store):
        """Calls may come in any order; one of the two times can be the newer."""
        await store.create_session(session(last_activity=5.0, expires_at=5.0))

        for times in ((7.0, 3.0), (6.0, 8.0), (6.5, 7.0)):
            await store.touch_sessions([Activity(SessionId("a"), *times)])

        assert session(last_activity=7.0, expires_at=8.0) == await store.get_session(SessionId("a"))

    async def test_delete_takes_everything(self, store, other):
        """Frames and event ids go with the session, also for a later one of the same name."""
        await store.create_session(session())
        await store.add_frame(frame(1))
        await store.store_last_event_id(SessionId("a"), "1")

        await store.delete_session(SessionId("a"))
        with pytest.raises(SessionNotFound):
            await other.get_session(SessionId("a"))

        await other.create_session(session())
        assert [] == await store.get_frames(SessionId("a"))
        assert await store.get_last_event_id(SessionId("a")) is None

    async def test_expiry(self, store):
        """The longest overdue first, up to the limit, each once; touched ones and endless ones stay."""
        for number in range(5):
            await store.create_session(session(str(number), expires_at=float(number)))
        await store.create_session(session("endless"))
        await store.touch_sessions([Activity(SessionId("0"), 0.0, 50.0)])

        expired = await store.expire_sessions(3.0, limit=2)
        assert {"1", "2"} == {session.id for session in expired}
        assert [session("3", expires_at=3.0)] == await store.expire_sessions(3.0)
        assert [] == await store.expire_sessions(3.0)
        assert {"0", "4", "endless"} == {session.id for session in await store.list_sessions()}

    async def test_expiry_gets_past_what_cannot_be_read(self, store, path, caplog):
        """One bad row does not keep the others from expiring."""
        for name in "abc":
            await store.create_session(session(name, expires_at=1.0))
        execute(path, "UPDATE sessions SET data = '{' WHERE id = 'b'")

        assert {"a", "c"} == {session.id for session in await store.expire_sessions(2.0)}
        assert 0 == await store.count_sessions()
        assert 1 == len(caplog.records)

    async def test_modify_loses_nothing(self, store, other):
        """Tasks of two stores that change one session at once all get their turn."""
        await store.create_session(session(metadata={"n": "0"}))

        async def increment(store):
            for _ in range(20):
                await store.modify(
                    SessionId("a"), lambda s: attrs.evolve(s, metadata={"n": str(int(s.metadata["n"]) + 1)})
                )

        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(increment, (store, other)[number % 2])

        assert "640" == (await store.get_session(SessionId("a"))).metadata["n"]


class TestBatches:
    async def test_get(self, store):
        """Those that exist, in the order asked for, however often."""
        for name in "abc":
            await store.create_session(session(name))

        found = await store.get_sessions_batch([SessionId(name) for name in ("c", "gone", "a", "c")])

        assert ["c", "a", "c"] == [session.id for session in found]
        assert [] == await store.get_sessions_batch([])

    async def test_get_many(self, store):
        """There is no limit on how many are asked for."""
        await store.create_session(session("7"))

        assert [session("7")] == await store.get_sessions_batch([SessionId(str(number)) for number in range(100_000)])

    async def test_update(self, store):
        """Those that are gone or have moved on are named; the others are updated."""
        for name in "abc":
            await store.create_session(session(name, last_activity=3.0))
        await store.update_session(session("b"))

        refused = await store.update_sessions_batch(
            [session(name, principal="new") for name in ("a", "b", GONE, "c", "a")]
        )

        assert ["b", GONE, "a"] == refused
        assert attrs.evolve(session("a"), principal="new", revision=1, last_activity=3.0) == await store.get_session(
            SessionId("a")
        )
        assert [] == await store.update_sessions_batch([])

    async def test_event_ids(self, store):
        """Those that are gone are named."""
        await store.create_session(session())

        assert [GONE] == await store.store_event_ids_batch([(SessionId("a"), "1"), (GONE, "1"), (SessionId("a"), "2")])
        assert "2" == await store.get_last_event_id(SessionId("a"))
        assert 0 == (await store.get_session(SessionId("a"))).revision

    async def test_each_is_one_operation(self, store):
        """A batch costs one transaction."""
        statements = []
        for number in range(100):
            await store.create_session(session(str(number)))
        store._connections.writing.set_trace_callback(statements.append)

        await store.update_sessions_batch([session(str(number)) for number in range(100)])
        await store.touch_sessions([Activity(SessionId(str(number)), 1.0, 1.0) for number in range(100)])
        await store.store_event_ids_batch([(SessionId(str(number)), "1") for number in range(100)])

        assert 3 == statements.count("BEGIN IMMEDIATE")


class TestFramesAndEventIds:
    async def test_frames_keep_their_order_and_bytes(self, store, other):
        """A frame comes back to the byte."""
        frames = [
            MessageEnvelope("a", Direction.TO_UPSTREAM, b"\x00\xff{}", 2.5),
            MessageEnvelope("a", Direction.TO_CLIENT, b"", 1.5),
        ]
        await store.create_session(session())
        for each in frames:
            await store.add_frame(each)

        assert frames == await other.get_frames(SessionId("a"))
        assert 2 == await other.count_frames(SessionId("a"))
        await store.delete_frames(SessionId("a"))
        assert [] == await other.get_frames(SessionId("a"))
        assert session() == await store.get_session(SessionId("a"))

    async def test_the_newest_thousand_frames_stay(self, store):
        """Each session has its own thousand."""
        await store.create_session(session("a"))
        await store.create_session(session("b"))
        await store.add_frame(frame(0, "b"))
        async with trio.open_nursery() as nursery:
            for number in range(1005):
                nursery.start_soon(store.add_frame, frame(number))
                await trio.lowlevel.checkpoint()

        kept = await store.get_frames(SessionId("a"))
        assert [frame(number) for number in range(5, 1005)] == sorted(kept, key=lambda frame: frame.recorded_at)
        assert 1000 == await store.count_frames(SessionId("a"))
        assert 1 == await store.count_frames(SessionId("b"))

    async def test_last_event_id(self, store, other):
        """The last one stored is the one returned, whatever is in it."""
        await store.create_session(session())
        assert await store.get_last_event_id(SessionId("a")) is None

        for event_id in ("1", "", "\u00e4\U0001f408'\"\n"):
            await store.store_last_event_id(SessionId("a"), event_id)
            assert event_id == await other.get_last_event_id(SessionId("a"))
