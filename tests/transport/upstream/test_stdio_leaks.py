"""Whatever happens, no process and no descriptor is left."""

import os
import resource
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import trio

from shadowcat.errors import MessageTooLong
from shadowcat.transport.upstream import StdioConfig, StdioConnector

from .children import command
from .processes import is_running, marked, open_files, unreaped, wait_unmarked

pytestmark = pytest.mark.slow


class CancelAtStep(trio.abc.Instrument):
    """Cancels after so many steps, of whatever task."""

    def __init__(self, scope, steps):
        self.scope = scope
        self.steps = steps

    def after_task_step(self, task):
        self.steps -= 1
        if self.steps == 0:
            self.scope.cancel()


@pytest.fixture
def marker():
    return uuid.uuid4().hex


async def converse(stream):
    """Say something, hear it, and something that nobody waits for."""
    await stream.send(b"{}")
    assert b"{}" == await stream.receive()
    await stream.send(b"[]")


async def hear_of_descendant(stream):
    """Hear the pid of one that was started, and see the child off."""
    await stream.receive()
    await stream.send(b"end")


@pytest.mark.parametrize(("name", "act"), [("echo", converse), ("have_child", hear_of_descendant)])
async def test_cancelled_at_any_step_nothing_is_left(name, act, marker):
    """From before the child is started until after it was reaped."""
    connector = StdioConnector(StdioConfig(command=command(name, marker), stop_timeout=0.05))
    before = unreaped(), open_files()
    step, quiet = 0, 0
    while quiet < 3:  # how many steps there are differs from one time to the next
        step += 1
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with connector.open(()) as stream:
                    await act(stream)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        quiet = 0 if scope.cancelled_caught or instrument.steps <= 0 else quiet + 1
        assert [] == await wait_unmarked(marker)
        assert before == (unreaped(), open_files())
    assert step > 20


async def test_a_hundred_streams_leave_nothing(marker):
    """Ten at a time, of children of all manners."""
    names = ["echo", "crash", "have_child", "garbage", "endless_line"]
    connectors = [
        StdioConnector(StdioConfig(command=command(name, marker), stop_timeout=0.05, max_message_size=1000))
        for name in names
    ]
    before = unreaped(), open_files()
    tasks = trio.lowlevel.current_statistics().tasks_living

    async def use(connector):
        async with connector.open(()):
            await trio.sleep(0.02)

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for connector in connectors * 2:
                nursery.start_soon(use, connector)
    assert [] == await wait_unmarked(marker)
    assert before == (unreaped(), open_files())
    assert tasks == trio.lowlevel.current_statistics().tasks_living


async def test_an_endless_line_is_not_kept():
    """Memory is that of one message."""
    config = StdioConfig(command=command("endless_line"), max_message_size=1_000_000, stop_timeout=0.05)
    async with StdioConnector(config).open(()) as stream:
        with trio.move_on_after(0.2):
            await stream.receive()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with trio.move_on_after(2), pytest.raises(MessageTooLong):
            await stream.receive()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 4_000  # KiB


def start_host(marker):
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.transport.upstream.host", marker],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])},
    )


async def test_without_the_proxy_children_end(marker):
    """When it is killed each sees the end of its input: nobody else has the other end of its pipe."""
    with start_host(marker) as host:
        assert host.stdout is not None
        assert b"ready\n" == await trio.to_thread.run_sync(host.stdout.readline)
        children = [pid for pid in marked(marker) if pid != host.pid]
        assert 2 == len(children)
        assert all(is_running(pid) for pid in children)
        host.send_signal(signal.SIGKILL)
        assert [] == await wait_unmarked(marker)
