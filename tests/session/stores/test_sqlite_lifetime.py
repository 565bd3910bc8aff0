"""A store from opening to closing: damage, cancellation, and a loop that is never blocked."""

import sqlite3
import threading
import time
from contextlib import closing

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import ConfigError, StoreCorrupt, StoreUnavailable
from shadowcat.session import Session, SessionId
from shadowcat.session.stores.sqlite import SqliteConfig, open_sqlite_store

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


def execute(path, sql, *parameters):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


KEPT = session("kept", initialize_params={"clientInfo": {"name": "x"}}, metadata={"a": "b"})


class TestCorruption:
    @pytest.mark.parametrize("data", ["{", "[]", '{"id": "a", "state": "lost"}'])
    async def test_unreadable_session(self, store, path, data):
        """A row that is no session is an error of its own, and only of that session."""
        await store.create_session(session("a"))
        await store.create_session(session("b"))
        execute(path, "UPDATE sessions SET data = ? WHERE id = 'a'", data)

        with pytest.raises(StoreCorrupt):
            await store.get_session(SessionId("a"))
        with pytest.raises(StoreCorrupt):
            await store.list_sessions()
        assert session("b") == await store.get_session(SessionId("b"))

    async def test_unreadable_frame(self, store, path):
        """So is a frame that goes nowhere."""
        await store.create_session(session())
        await store.add_frame(MessageEnvelope("a", Direction.TO_CLIENT, b"{}", 1.0))
        execute(path, "UPDATE frames SET direction = 'sideways'")

        with pytest.raises(StoreCorrupt):
            await store.get_frames(SessionId("a"))

    async def test_tables_that_are_gone(self, store, path):
        """A file that somebody else changed under us is not waited for."""
        execute(path, "DROP TABLE frames")

        with pytest.raises(StoreCorrupt):
            await store.get_frames(SessionId("a"))
        with pytest.raises(StoreCorrupt):
            await store.count_frames(SessionId("a"))


class TestOpeningAndClosing:
    async def test_a_wrong_path_is_a_plain_error(self, tmp_path):
        """Nothing was started, so there is no exception group."""
        with pytest.raises(ConfigError, match="--sqlite-path"):
            async with open_sqlite_store(SqliteConfig(path=tmp_path / "missing" / "sessions.db")):
                pytest.fail("opened")

    async def test_everything_survives(self, path):
        """What was written is there after closing, and the file stands alone."""
        async with open_sqlite_store(SqliteConfig(path=str(path))) as store:
            await store.create_session(KEPT)
        assert [path] == list(path.parent.iterdir())

        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            assert KEPT == await store.get_session(KEPT.id)

    async def test_closed_store(self, store):
        """A closed store says so, at once; closing twice is closing once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.aclose)
            nursery.start_soon(store.aclose)
        await store.aclose()

        for call in (
            store.get_session(GONE),
            store.count_sessions(),
            store.list_sessions(),
            store.create_session(session()),
            store.touch_sessions([]),
        ):
            with pytest.raises(StoreUnavailable, match="closed"):
                await call

    async def test_closing_writes_what_is_queued(self, path):
        """Callers elsewhere, who are not cancelled, get what they asked for, though the block is."""
        gate = threading.Event()
        async with trio.open_nursery() as callers:
            with trio.CancelScope() as scope:
                async with open_sqlite_store(SqliteConfig(path=path)) as store:
                    callers.start_soon(store._writer.write, lambda db: gate.wait(5))
                    for number in range(100):
                        callers.start_soon(store.create_session, session(str(number)))
                    await wait_all_tasks_blocked()
                    scope.cancel()
                    gate.set()
            assert [(100,)] == execute(path, "SELECT count(*) FROM sessions")

    async def test_closing_when_cancelled(self, path):
        """The file is let go of all the same: nothing is left beside it."""
        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            await store.create_session(KEPT)
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.aclose()
            assert [path] == list(path.parent.iterdir())

    async def test_closing_a_store_that_is_being_read(self, path):
        """A long read is broken off; its caller is told."""
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        is_running = threading.Event()

        async with open_sqlite_store(SqliteConfig(path=path)) as store, trio.open_nursery() as nursery:
            store._connections.far.set_progress_handler(is_running.set, 1000)

            async def read():
                with pytest.raises(StoreUnavailable, match="closed"):
                    await store._read(lambda db: db.execute(endless).fetchone())

            nursery.start_soon(read)
            assert await trio.to_thread.run_sync(is_running.wait, 5)
            with trio.fail_after(5):
                await store.aclose()

    async def test_cancelled_read_returns_at_once(self, store):
        """The thread goes on alone; the next read waits for it."""
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store._read, lambda db: db.execute(endless).fetchone())
                await wait_all_tasks_blocked()
                scope.cancel()

        assert 1 == store._far_limiter.borrowed_tokens
        assert [] == await store.list_sessions()


class TestLoop:
    async def test_busy_look_up_goes_to_a_thread(self, store, path, monkeypatch):
        """If the file is locked for mending, the loop does not wait and the caller is not told."""
        await store.create_session(session())

        class Busy:
            def execute(self, sql, parameters):
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
                raise error

            def close(self):
                real.close()

        real = store._connections.near
        monkeypatch.setattr(store, "_connections", attrs.evolve(store._connections, near=Busy()))

        assert session() == await store.get_session(SessionId("a"))
        assert 1 == await store.count_sessions()

    async def test_ten_thousand_sessions(self, store):
        """Lists, counts and expires them, while other tasks go on (times are printed)."""
        sessions = [
            attrs.evolve(KEPT, id=SessionId(f"{number:024}"), expires_at=float(number)) for number in range(10_000)
        ]
        async with trio.open_nursery() as nursery:
            for each in sessions:
                nursery.start_soon(store.create_session, each)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await trio.sleep(0.001)
                ticks += 1

        async def timed(name, call):
            start, before = time.perf_counter(), ticks
            found = await call
            print(f"{name}: {(time.perf_counter() - start) * 1000:.2f} ms, {ticks - before} ticks")
            return found, ticks - before

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            listed, ticks_while_listing = await timed("list", store.list_sessions())
            counted, _ = await timed("count", store.count_sessions())
            some, _ = await timed("expire 100", store.expire_sessions(1e9))
            rest, ticks_while_expiring = await timed("expire 9,900", store.expire_sessions(1e9, limit=10_000))
            nursery.cancel_scope.cancel()

        assert sorted(sessions, key=lambda s: s.id) == sorted(listed, key=lambda s: s.id)
        assert (10_000, 100, 9_900) == (counted, len(some), len(rest))
        assert ticks_while_listing > 3
        assert ticks_while_expiring > 3
