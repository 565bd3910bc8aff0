"""How a child process ends."""

import os
import signal
import subprocess
import time
import uuid
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.transport.upstream.child import Child

from .children import command
from .processes import is_running, open_files, unreaped, wait_unmarked

STOP = 0.1


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No child outlives its test, as a zombie neither, and no descriptor."""
    before = unreaped(), open_files()
    yield
    assert before == (unreaped(), open_files())


@pytest.fixture
def marker():
    return uuid.uuid4().hex


async def start(name, *arguments, stop_timeout=STOP):
    process = await trio.lowlevel.open_process(
        command(name, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    return Child(process, stop_timeout)


@asynccontextmanager
async def running(name, *arguments, stop_timeout=STOP):
    """Yield a child when it has said its first line, and this line; it ends with the block."""
    child = await start(name, *arguments, stop_timeout=stop_timeout)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            yield child, (await child.output.receive_some()).decode()
            child.stop_soon("the test is over")
    finally:
        child.close()


def signals(monkeypatch):
    """Return the list that the signals to come will be in."""
    sent = []
    kill = os.killpg

    def killpg(group, number):
        sent.append(number)
        kill(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    return sent


async def test_a_polite_child_ends_with_its_input(monkeypatch):
    """At once; the signal that follows is for whoever it may have left."""
    sent = signals(monkeypatch)
    child = await start("echo", stop_timeout=60)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            await wait_all_tasks_blocked()
            child.stop_soon("enough")
    child.close()
    assert [signal.SIGKILL] == sent
    assert "enough" == str(await child.explain("else"))


async def test_a_child_that_ignores_the_end_of_input_is_terminated(monkeypatch):
    sent = signals(monkeypatch)
    async with running("ignore_eof"):
        begin = trio.current_time()
    assert STOP <= trio.current_time() - begin < 2 * STOP + 1
    assert [signal.SIGTERM, signal.SIGKILL] == sent


@pytest.mark.parametrize("name", ["ignore_sigterm", "ignore_sigterm_and_flood"])
async def test_a_child_that_ignores_that_too_is_killed(name, monkeypatch):
    """Also one that writes all the while."""
    sent = signals(monkeypatch)
    async with running(name):
        begin = trio.current_time()
    assert 2 * STOP <= trio.current_time() - begin < 2 * STOP + 1
    assert [signal.SIGTERM, signal.SIGKILL] == sent


async def test_a_child_may_write_what_it_has_left(tmp_path):
    """What it writes when it is being stopped is read, if by nobody; so it can end."""
    async with running("last_word", str(tmp_path / "done"), stop_timeout=5):
        pass
    assert (tmp_path / "done").exists()


async def test_descendants_are_killed_with_it(marker):
    """Though the child has ended before, and they ignore SIGTERM."""
    async with running("have_child", marker) as (child, line):
        assert is_running(int(line))
    assert [] == await wait_unmarked(marker)


async def test_a_cancelled_child_ends_when_its_owner_says():
    """Who can take leave of it before, shielded for a while; then it takes as long as ever."""
    child = await start("echo")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await child.input.send_all(b"bye\n")
                    assert b"bye\n" == await child.output.receive_some()
                child.stop_soon("the test is over")
    assert scope.cancelled_caught
    assert child.gone.is_set()
    child.close()


async def test_a_child_that_is_cancelled_before_it_is_watched():
    child = await start("ignore_sigterm")
    with trio.CancelScope() as scope:
        scope.cancel()
        child.stop_soon("the test is over")
        await child.run()
    assert child.gone.is_set()
    child.close()


async def test_the_group_is_killed_before_its_name_is_free(monkeypatch):
    """While the last signal is sent, the child that has ended still has its pid."""
    seen = []
    kill = os.killpg

    def killpg(group, number):
        seen.append(group in unreaped())
        kill(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    child = await start("die_in_a_message")
    await child.run()
    assert [True] == seen
    child.close()


async def test_without_pidfd(monkeypatch):
    """Where the kernel has none, a thread waits."""

    def pidfd_open(pid, flags=0):
        raise OSError(38, "not implemented")

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    for name in ("die_in_a_message", "ignore_sigterm"):
        child = await start(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            assert await child.output.receive_some()
            if name == "ignore_sigterm":
                child.stop_soon("enough")
        child.close()
        assert child.gone.is_set()


async def test_what_was_said_last_is_logged_before_it_is_gone(caplog):
    """And who is gone, and how."""
    caplog.set_level("INFO")
    child = await start("crash")
    await child.run()
    child.close()
    lines = [record.getMessage() for record in caplog.records]
    assert f"server process {child.pid}: RuntimeError: no configuration\\x1b[2J, key is sk-0123456789" == lines[-2]
    assert lines[-1].startswith(f"server process {child.pid} exited with status 1; ")


@pytest.mark.slow
async def test_one_that_complains_without_end_costs_itself_more_than_us():
    """Even in empty lines."""
    async with running("flood_errors_for_ever"):
        begin = time.process_time()
        await trio.sleep(1)
        assert time.process_time() - begin < 0.7


@pytest.mark.slow
async def test_a_child_that_may_not_be_killed_is_not_waited_for(monkeypatch, caplog):
    """It runs as another user, say; the log tells."""

    def killpg(group, number):
        raise PermissionError(1, "not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", killpg)
        async with running("ignore_sigterm") as (child, _):
            begin = trio.current_time()
    assert trio.current_time() - begin < 2 * STOP + 1.5
    assert "left behind" in caplog.records[-1].getMessage()
    os.killpg(child.pid, signal.SIGKILL)
    await trio.to_thread.run_sync(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child._process.poll()
