"""Group commit: many operations, one transaction, each on its own."""

import logging
import resource
import sqlite3
import threading
from contextlib import asynccontextmanager, closing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionExists, StoreUnavailable
from shadowcat.session.stores.sqlite_file import open_connections
from shadowcat.session.stores.sqlite_writer import Writer

PATIENCE = 5.0


class Bench:
    """A writer on a real file, and what it did."""

    def __init__(self, connections):
        self.connections = connections
        self.writer = Writer(connections.writing)
        self.statements = []
        connections.writing.execute("CREATE TABLE IF NOT EXISTS notes (note TEXT UNIQUE)")
        connections.writing.set_trace_callback(self.statements.append)

    @property
    def transactions(self):
        return self.statements.count("BEGIN IMMEDIATE")

    @property
    def notes(self):
        return [note.decode() for (note,) in self.connections.far.execute("SELECT note FROM notes ORDER BY rowid")]

    async def note(self, note):
        await self.writer.write(lambda db: db.execute("INSERT INTO notes VALUES (?)", (note,)).rowcount)


class Gate:
    """An operation that stays in the thread until it is let go."""

    def __init__(self, note="gate"):
        self.note = note
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, db):
        db.execute("INSERT INTO notes VALUES (?)", (self.note,))
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        return self.note

    async def wait_entered(self):
        assert await trio.to_thread.run_sync(self.entered.wait, PATIENCE)


@asynccontextmanager
async def open_bench(path, busy_timeout=PATIENCE):
    with closing(open_connections(path, busy_timeout)) as connections:
        bench = Bench(connections)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.run)
            try:
                yield bench
            finally:
                with trio.CancelScope(shield=True):
                    await bench.writer.stop(trio.current_time() + PATIENCE)


@pytest.fixture
async def bench(tmp_path):
    with trio.fail_after(4 * PATIENCE):
        async with open_bench(tmp_path / "sessions.db") as bench:
            yield bench


async def test_result_comes_back_once_committed(bench):
    """What an operation returns is returned when another connection can see it."""
    assert 1 == await bench.writer.write(lambda db: db.execute("INSERT INTO notes VALUES ('a')").rowcount)
    assert ["a"] == bench.notes


async def test_operations_gather_while_one_is_written(bench):
    """A hundred callers that come during a transaction share the next one, in their order."""
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.write, gate)
        await gate.wait_entered()
        for number in range(100):
            nursery.start_soon(bench.note, str(number))
            await wait_all_tasks_blocked()
        gate.opened.set()

    assert 2 == bench.transactions
    assert ["gate", *map(str, range(100))] == bench.notes


async def test_one_that_fails_does_not_undo_the_others(bench):
    """Each caller gets its own error; nothing of what failed is there."""
    gate = Gate()
    outcomes = {}

    def half_done(db):
        db.execute("INSERT INTO notes VALUES ('half')")
        raise SessionExists("there is one")

    async def attempt(name, apply):
        try:
            outcomes[name] = await bench.writer.write(apply)
        except Exception as error:
            outcomes[name] = type(error)

    def inserting(value):
        return lambda db: db.execute("INSERT INTO notes VALUES (?)", (value,)).rowcount

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.writer.write, gate)
        await gate.wait_entered()
        for name, apply in {
            "first": inserting("first"),
            "ours": half_done,
            "sqlite": inserting("first"),
            "text": inserting("\ud800"),
            "number": inserting(1 << 64),
            "last": inserting("last"),
        }.items():
            nursery.start_soon(attempt, name, apply)
            await wait_all_tasks_blocked()
        gate.opened.set()

    assert outcomes == {
        "first": 1,
        "ours": SessionExists,
        "sqlite": sqlite3.IntegrityError,
        "text": UnicodeEncodeError,
        "number": OverflowError,
        "last": 1,
    }
    assert ["gate", "first", "last"] == bench.notes


class TestCancelling:
    async def test_before_it_is_queued(self, bench, monkeypatch):
        """A caller that waits for a place in the queue leaves nothing behind."""
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            for number in range(1000):
                nursery.start_soon(bench.note, str(number))
            await wait_all_tasks_blocked()
            with trio.move_on_after(0) as scope:
                await bench.note("late")
            gate.opened.set()

        assert scope.cancelled_caught
        assert {"gate", *map(str, range(1000))} == set(bench.notes)

    async def test_while_it_is_queued(self, bench):
        """What has not begun is not done."""
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            nursery.start_soon(bench.note, "before")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    cancelled.start_soon(bench.note, "never")
                    await wait_all_tasks_blocked()
                    scope.cancel()
            nursery.start_soon(bench.note, "after")
            await wait_all_tasks_blocked()
            gate.opened.set()

        assert {"gate", "before", "after"} == set(bench.notes)

    async def test_all_of_the_queue(self, bench):
        """A transaction with nothing in it is not made."""
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            with trio.move_on_after(0):
                await bench.note("never")
            gate.opened.set()
        await bench.note("later")

        assert 2 == bench.transactions

    async def test_while_an_earlier_one_of_its_transaction_is_done(self, bench):
        """What has not begun is not done, though the thread has it already."""
        first, second = Gate("first"), Gate("second")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, first)
            await first.wait_entered()
            nursery.start_soon(bench.writer.write, second)
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    cancelled.start_soon(bench.note, "never")
                    await wait_all_tasks_blocked()
                    first.opened.set()
                    await second.wait_entered()
                    scope.cancel()
            second.opened.set()

        assert ["first", "second"] == bench.notes

    async def test_in_the_thread(self, bench):
        """The caller is let go at once; what has begun is done."""
        gate = Gate()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.writer.write, gate)
                await gate.wait_entered()
                scope.cancel()
        assert [] == bench.notes

        gate.opened.set()
        await bench.note("after")
        assert ["gate", "after"] == bench.notes

    async def test_already_cancelled(self, bench):
        """A caller whose scope is cancelled has written nothing."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.note("never")

        await bench.note("after")
        assert ["after"] == bench.notes


class TestStopping:
    async def test_writes_what_is_queued(self, bench):
        """Callers that were there before get their answer; those after are refused."""
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            nursery.start_soon(bench.note, "queued")
            await wait_all_tasks_blocked()
            nursery.start_soon(bench.writer.stop, trio.current_time() + PATIENCE)
            await wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable, match="closed"):
                await bench.note("too late")
            gate.opened.set()

        assert ["gate", "queued"] == bench.notes

    async def test_is_bounded(self, bench, caplog):
        """What has not begun at the deadline fails; nobody is left waiting."""
        gate = Gate()
        failed = []

        async def fail(note):
            with pytest.raises(StoreUnavailable, match="closed"):
                await bench.note(note)
            failed.append(note)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            nursery.start_soon(fail, "queued")
            await wait_all_tasks_blocked()
            nursery.start_soon(bench.writer.stop, trio.current_time())
            await wait_all_tasks_blocked()
            gate.opened.set()

        assert ["queued"] == failed
        assert ["gate"] == bench.notes
        assert [(logging.ERROR, "gave up on 1 writes to the session store")] == [
            (record.levelno, record.getMessage()) for record in caplog.records
        ]

    async def test_refuses_who_waits_for_a_place(self, bench):
        """A caller that is not in the queue yet is refused, not forgotten."""
        gate = Gate()
        refused = []

        async def note(note):
            try:
                await bench.note(note)
            except StoreUnavailable:
                refused.append(note)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            for number in range(1001):
                nursery.start_soon(note, str(number))
            await wait_all_tasks_blocked()
            nursery.start_soon(bench.writer.stop, trio.current_time() + PATIENCE)
            await wait_all_tasks_blocked()
            gate.opened.set()

        assert 1 == len(refused)
        assert 1001 == len(bench.notes)

    async def test_cancelling_those_around_does_not_stop_it(self, bench, tmp_path):
        """Who is cancelled may still have something to write."""
        with trio.move_on_after(0):
            async with open_bench(tmp_path / "another.db") as other:
                with trio.CancelScope(shield=True):
                    await other.note("last words")
                    assert ["last words"] == other.notes

    async def test_a_bug_ends_it_but_nobody_waits_for_ever(self, tmp_path):
        """An error we did not think of ends the writer; callers elsewhere are told."""

        def bug(db):
            raise ZeroDivisionError

        with closing(open_connections(tmp_path / "sessions.db", PATIENCE)) as connections:
            writer = Writer(connections.writing)
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:

                    async def write():
                        with pytest.raises(StoreUnavailable):
                            await writer.write(bug)

                    nursery.start_soon(write)
                    await wait_all_tasks_blocked()
                    with pytest.raises(ZeroDivisionError):
                        await writer.run()
            with pytest.raises(StoreUnavailable):
                await writer.write(bug)


class TestFailures:
    async def test_locked_by_another(self, tmp_path):
        """Waiting for another process ends; afterwards all is well again."""
        async with open_bench(tmp_path / "sessions.db", 0.02) as bench:
            with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable, match="locked"):
                    await bench.note("a")
            await bench.note("b")
            assert ["b"] == bench.notes

    async def test_full_disk(self, bench):
        """Nothing of the transaction is there, every caller is told, and it can be made again."""
        (pages,) = bench.connections.writing.execute("PRAGMA page_count").fetchone()
        bench.connections.writing.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(StoreUnavailable, match="disk with the session store is full"):
            await bench.note("x" * 100_000)

        bench.connections.writing.execute("PRAGMA max_page_count = 1000000")
        await bench.note("later")
        assert ["later"] == bench.notes

    async def test_failing_disk(self, bench):
        """An error while writing is reported, and does not outlast its cause."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(StoreUnavailable, match="cannot be read or written"):
                await bench.note("x" * 100_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        await bench.note("later")
        assert ["later"] == bench.notes

    async def test_transaction_that_sqlite_undid(self, bench):
        """If one operation costs the whole transaction, every caller in it is told so."""
        gate = Gate()
        told = []

        def lose_everything(db):
            db.execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        async def fail(apply):
            with pytest.raises(StoreUnavailable) as caught:
                await bench.writer.write(apply)
            told.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.writer.write, gate)
            await gate.wait_entered()
            for apply in (lambda db: db.execute("INSERT INTO notes VALUES ('a')"), lose_everything):
                nursery.start_soon(fail, apply)
                await wait_all_tasks_blocked()
            gate.opened.set()

        assert 2 == len({id(error) for error in told})
        assert ["gate"] == bench.notes
