"""A worker process, from its supervisor's side."""

import os
import signal
import sys

import pytest
import trio

from shadowcat.cli.workers import process
from shadowcat.cli.workers.process import WorkerProcess, worker_command
from shadowcat.errors import WorkerFailed
from shadowcat.transport.downstream import ListenerConfig, bind_socket
from tests.e2e.child import PATIENCE
from tests.e2e.storing import until

pytestmark = pytest.mark.slow


@pytest.fixture
def listener():
    with bind_socket(ListenerConfig(bind="127.0.0.1:0")) as sock:
        yield sock


@pytest.fixture
def started(nursery, listener, _fake_worker):
    """Start a worker, and return it when it serves."""

    async def started(*behaviour):
        worker = WorkerProcess(3, behaviour)
        with trio.fail_after(PATIENCE):
            await nursery.start(worker.run, listener)
        return worker

    return started


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_worker_that_serves_has_said_where(started):
    worker = await started()

    assert worker.urls == ("http://here/mcp",)
    assert worker.since <= trio.current_time()
    assert is_alive(worker.pid)


async def test_worker_that_is_told_to_drain_ends_in_order(started):
    worker = await started()
    with trio.fail_after(PATIENCE):
        await worker.drain(20)

    assert worker.ended.is_set()
    assert not worker.has_failed
    assert not is_alive(worker.pid)


async def test_worker_may_retire_instead(started):
    """There are others: it need not close on anybody."""
    worker = await started()
    with trio.fail_after(PATIENCE):
        await worker.retire(20)

    assert not worker.has_failed


async def test_worker_that_does_not_drain_is_stopped(started):
    """... by the end of its lifeline, which gives it a moment."""
    worker = await started("deaf=0")
    with trio.fail_after(PATIENCE):
        await worker.drain(0.05)

    assert not worker.has_failed
    assert not is_alive(worker.pid)


async def test_worker_that_does_not_stop_is_killed(started, monkeypatch):
    monkeypatch.setattr(process, "STOP_TIMEOUT", 0.05)
    worker = await started("deaf=3600")
    with trio.fail_after(PATIENCE):
        await worker.drain(0.05)

    assert worker.has_failed
    assert worker.end == "was ended by SIGKILL"
    assert not is_alive(worker.pid)


@pytest.mark.usefixtures("_fake_worker")
async def test_cancelling_stops_the_process(listener):
    async with trio.open_nursery() as nursery:
        worker = WorkerProcess(1, [])
        with trio.fail_after(PATIENCE):
            await nursery.start(worker.run, listener)
        nursery.cancel_scope.cancel()

    assert worker.ended.is_set()
    assert not is_alive(worker.pid)


@pytest.mark.usefixtures("_fake_worker")
async def test_cancelling_before_it_serves_stops_the_process(listener):
    worker = WorkerProcess(1, ["hang"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, worker.run, listener)
        await until(lambda: worker.pid != 0, PATIENCE)
        nursery.cancel_scope.cancel()

    assert worker.pid
    assert not is_alive(worker.pid)


async def test_death_is_noticed(started):
    worker = await started()
    os.kill(worker.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        await worker.ended.wait()

    assert worker.has_failed
    assert worker.end == "was ended by SIGKILL"


async def test_last_words_are_heard(started):
    """What goes wrong while it drains is told by the supervisor."""
    worker = await started("last-words=the disk is full")
    with trio.fail_after(PATIENCE):
        await worker.drain(20)

    assert worker.has_failed
    assert worker.end == "has failed: the disk is full"


@pytest.mark.parametrize(
    ("behaviour", "said"), [("error=no such store", "no such store"), ("status=3", "worker 3 ended with status 3")]
)
async def test_worker_that_cannot_serve_says_why(started, behaviour, said):
    with pytest.raises(WorkerFailed, match=said):
        await started(behaviour)


async def test_interpreter_that_is_gone_is_an_error_of_ours(listener, monkeypatch):
    """An upgrade may have taken it away; the other workers go on."""
    monkeypatch.setattr(process, "worker_command", lambda arguments: ["/nonexistent/python"])
    with pytest.raises(WorkerFailed, match="cannot be started: No such file"):
        await WorkerProcess(1, []).run(listener)


def test_current_directory_is_no_place_for_modules_unless_it_was_ours(monkeypatch):
    """A file there called like a module of ours is not run by a worker if it was not by us."""
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path])
    assert "-P" in worker_command(["1"])

    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])
    assert "-P" not in worker_command(["1"])
    assert worker_command(["1", "x"])[-2:] == ["1", "x"]
