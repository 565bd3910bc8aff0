"""Two processes on one file, and one that is killed."""

import math
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from shadowcat.session import Session, SessionId, StreamId
from shadowcat.session.stores.sqlite import SqliteConfig, open_sqlite_store
from shadowcat.testing.store_contract.client import LIMITS, OTHER, A, append, append_of, event_at, found

pytestmark = pytest.mark.slow

PEER = Path(__file__).with_name("sqlite_peer.py")
PATIENCE = 60.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    with trio.fail_after(PATIENCE):
        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            yield store


@contextmanager
def peer(path, *args):
    """Run another process; it is gone at the end, one way or the other."""
    with subprocess.Popen(
        [sys.executable, PEER, path, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def finish(process):
    """Return the lines that *process* printed, once it has ended well."""
    output, _ = await trio.to_thread.run_sync(process.communicate, None, PATIENCE)
    assert 0 == process.returncode
    return output.split()


@pytest.mark.parametrize("tasks", ["1", "8"])
async def test_no_update_is_lost(store, path, tasks):
    """Two processes that count up in one session 5,000 times each get to 10,000."""
    await store.create_session(Session(id=SessionId("a"), metadata={"n": "0"}))

    with peer(path, "modify", "a", "5000", tasks) as one, peer(path, "modify", "a", "5000", tasks) as another:
        await finish(one)
        await finish(another)

    counted = await store.get_session(SessionId("a"))
    assert ("10000", 10_000) == (counted.metadata["n"], counted.revision)


async def test_expiry_is_not_doubled(store, path):
    """Each session is expired by one process, whichever."""
    sessions = [Session(id=SessionId(str(number)), expires_at=number % 2 and 1.0) for number in range(1000)]
    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(store.create_session, session)

    with peer(path, "expire") as one, peer(path, "expire") as another:
        expired = [*await finish(one), *await finish(another)]

    assert sorted(str(number) for number in range(1000)) == sorted(expired)


async def test_writes_are_seen_at_once(store, path):
    """What has been written here is what is read there, whatever it is."""
    await store.create_session(Session(id=SessionId("a")))
    with peer(path, "watch", "a") as watcher:

        async def ask():
            watcher.stdin.write("?\n")
            watcher.stdin.flush()
            return (await trio.to_thread.run_sync(watcher.stdout.readline)).strip()

        assert "ready" == (await trio.to_thread.run_sync(watcher.stdout.readline)).strip()
        for revision in range(50):
            assert str(revision) == await ask()
            await store.modify(SessionId("a"), lambda session: attrs.evolve(session, principal="x"))
        await store.delete_session(SessionId("a"))
        assert "gone" == await ask()
        watcher.stdin.close()


@pytest.mark.parametrize("acknowledged", [1, 500, 5000])
async def test_killed_process_loses_nothing_it_promised(path, acknowledged):
    """What was acknowledged before a SIGKILL is there after it, and the file is sound."""

    def read(process):
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.kill()
        lines += process.stdout.readlines()
        return [line.strip() for line in lines if line.endswith("\n")]

    with peer(path, "write") as writer:
        promised = await trio.to_thread.run_sync(read, writer)

    assert len(promised) >= acknowledged
    with trio.fail_after(PATIENCE):
        async with open_sqlite_store(SqliteConfig(path=path)) as store:
            for session_id in promised:
                assert session_id == await store.get_last_event_id(SessionId(session_id))
            expired = await store.expire_sessions(math.inf, limit=1_000_000)
            assert set(promised) <= {session.id for session in expired}
    with closing(sqlite3.connect(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


async def test_streams_of_a_killed_process_go_on(store, path):
    """Another claims them and has every event that was acknowledged, and none that belongs to another stream."""
    await store.create_session(Session(id=A))
    with peer(path, "append", A) as process:
        acknowledged = [await trio.to_thread.run_sync(process.stdout.readline) for _ in range(300)]
        process.kill()
        rest = await trio.to_thread.run_sync(process.stdout.read)
    promised = int((acknowledged[-1] + rest).rpartition("\n")[0].split()[-1])

    ends = set()
    for number in range(10):
        stream_id = StreamId(f"s{number}")
        claimed = await store.claim_stream(A, stream_id, OTHER)
        assert claimed is not None
        assert OTHER == claimed.owner
        kept = await found(store, stream_id)
        last = claimed.last_position
        expected = [(n, b"%d" % n) for n in range(max(1, last - LIMITS.max_events + 1), last + 1)]
        assert expected == [(event.position, event.block) for event in kept.events]
        ends.add(last)
        mine = append_of([event_at(last + 1)], stream=stream_id, owner=OTHER, fence=claimed.fence)
        await append(store, mine)
    assert 1 == len(ends)
    assert promised <= min(ends) <= promised + 1


async def test_killed_process_does_not_stop_the_others(store, path):
    """A process that dies while it writes leaves no lock behind."""
    for _ in range(5):
        with peer(path, "write") as writer:
            await trio.to_thread.run_sync(writer.stdout.readline)
            writer.kill()
            await trio.to_thread.run_sync(writer.wait)
        with trio.fail_after(5):
            await store.expire_sessions(1.0, limit=1_000_000)
            assert 0 == await store.count_sessions()
