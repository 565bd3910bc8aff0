"""Keeping workers at work, with workers that do as they are told."""

import logging
import math
import os
import signal
from contextlib import asynccontextmanager

import pytest
import trio

from shadowcat.cli import hangup
from shadowcat.cli.workers import SupervisorConfig, supervise, supervisor
from shadowcat.config import SettingsError
from shadowcat.errors import ConfigError, WorkerFailed
from shadowcat.resilience import BackoffConfig
from shadowcat.transport.downstream import ListenerConfig, bind_socket
from tests.e2e.child import PATIENCE
from tests.e2e.storing import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_fake_worker", "_own_hangup")]

QUICK = BackoffConfig(base=0.01, cap=0.05, budget=math.inf)


@pytest.fixture
def _own_hangup():
    """A hangup that the supervisor does not handle is ignored, and does not end the run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger"


class Crew:
    """A supervisor under test, and what its workers say."""

    def __init__(self, config, ledger):
        self.config = config
        self.shutdown = trio.Event()
        self.port = 0
        self._ledger = ledger

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        await supervise(self.config, self.shutdown, task_status=task_status)

    @property
    def started(self):
        """The number and process id of each worker that was ever started."""
        if not self._ledger.exists():
            return []
        return [tuple(map(int, line.split())) for line in self._ledger.read_text(encoding="ascii").splitlines()]

    async def ask(self):
        """Return number and process id of whoever answers."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            said = b"".join([part async for part in stream])
        return tuple(map(int, said.split()))

    async def wait_started(self, count):
        await until(lambda: len(self.started) >= count, PATIENCE)


def alive(pids):
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@asynccontextmanager
async def running(ledger, *behaviour, count=2, backoff=QUICK, port=0, **rest):
    config = SupervisorConfig(
        count=count,
        arguments=[f"ledger={ledger}", *behaviour],
        listener=ListenerConfig(bind=f"127.0.0.1:{port}"),
        shutdown_timeout=10,
        backoff=backoff,
        **rest,
    )
    crew = Crew(config, ledger)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            urls = await nursery.start(crew.run)
        assert urls == ["http://here/mcp"]
        yield crew
        crew.shutdown.set()
    assert alive(pid for _, pid in crew.started) == []


@pytest.fixture
def port(monkeypatch):
    """The port that the supervisor has bound, for the test to connect to."""
    bound = []

    def bind(config):
        bound.append(bind_socket(config))
        return bound[-1]

    monkeypatch.setattr(supervisor, "bind_socket", bind)
    return lambda: bound[-1].getsockname()[1]


async def test_all_workers_serve_the_one_address(ledger, port):
    """When the supervisor has said where, there is a worker for each number."""
    async with running(ledger, count=3) as crew:
        assert sorted(number for number, _ in crew.started) == [1, 2, 3]
        crew.port = port()
        assert await crew.ask() in crew.started


async def test_shutdown_lets_them_finish(ledger):
    """... and the end is in order."""
    async with running(ledger) as crew:
        crew.shutdown.set()


async def test_worker_that_does_not_end_in_order_is_told_of(ledger):
    with pytest.raises(ExceptionGroup) as excinfo:
        async with running(ledger, "last-words=the disk is full", count=1):
            pass
    assert excinfo.group_contains(WorkerFailed, match="worker 1 has failed: the disk is full: calls .* may be lost")


@pytest.mark.parametrize("count", [1, 4])
async def test_what_all_cannot_do_is_said_once(ledger, count):
    """One error, however many workers have it; and none of them is left."""
    with pytest.raises(ExceptionGroup) as excinfo:
        async with running(ledger, "error=no such store", count=count):
            pytest.fail("it cannot serve")
    leaves = excinfo.value.exceptions
    while isinstance(leaves[0], ExceptionGroup):
        (group,) = leaves
        leaves = group.exceptions
    assert [str(error) for error in leaves] == ["no such store"]


async def test_address_in_use_starts_nobody(ledger):
    with bind_socket(ListenerConfig(bind="127.0.0.1:0")) as taken:
        taken.listen()
        with pytest.raises(ExceptionGroup) as excinfo:
            async with running(ledger, port=taken.getsockname()[1]):
                pytest.fail("it cannot serve")
    assert excinfo.group_contains(ConfigError, match="is in use")
    assert not ledger.exists()


async def test_dead_worker_is_replaced(ledger, caplog):
    """Under its number, by another process."""
    async with running(ledger) as crew:
        number, pid = crew.started[0]
        os.kill(pid, signal.SIGKILL)
        await crew.wait_started(3)

        assert crew.started[2][0] == number
    assert f"worker {number} was ended by SIGKILL; another takes its place" in caplog.text


async def test_worker_that_keeps_failing_is_tried_again(ledger, tmp_path, caplog):
    """Until it works: the others go on meanwhile."""
    obstacle = tmp_path / "obstacle"
    async with running(ledger, f"error-if={obstacle}") as crew:
        obstacle.touch()
        number, pid = crew.started[0]
        os.kill(pid, signal.SIGKILL)
        await crew.wait_started(5)
        obstacle.unlink()
        await until(lambda: f"worker {number} serves, as process {crew.started[-1][1]}" in caplog.text, PATIENCE)

        assert {number} == {number for number, _ in crew.started[2:]}
        assert alive([crew.started[1][1]])
    assert f"worker {number} cannot be started, and will be tried again: as told" in caplog.text


async def test_hangup_replaces_all_one_after_the_other(ledger, port):
    """There is a worker to answer at any time."""
    async with running(ledger) as crew:
        crew.port = port()
        before = crew.started
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(PATIENCE):
            while len(crew.started) < 4 or alive(pid for _, pid in before):
                await crew.ask()

        assert [number for number, _ in crew.started[2:]] == [1, 2]
        assert await crew.ask() in crew.started[2:]


async def test_hangup_changes_nothing_if_the_new_worker_cannot_serve(ledger, tmp_path, caplog):
    """The old ones go on: what is wrong with the new can be put right."""
    obstacle = tmp_path / "obstacle"
    async with running(ledger, f"error-if={obstacle}") as crew:
        obstacle.touch()
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "worker 1 is not replaced, nor those after it: as told" in caplog.text, PATIENCE)

        assert len(alive(pid for _, pid in crew.started)) == 2


async def test_hangup_changes_nothing_if_the_settings_are_wrong(ledger, caplog):
    """A worker would not be better for being new."""

    async def check():
        await trio.lowlevel.checkpoint()
        raise SettingsError(["f.toml:1: one", "f.toml:2: other"])

    async with running(ledger, check=check) as crew:
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "are not replaced, and the old ones stay: f.toml:2: other" in caplog.text, PATIENCE)
        assert "are not replaced, and the old ones stay: f.toml:1: one" in caplog.text
        assert len(crew.started) == 2
        assert len(alive(pid for _, pid in crew.started)) == 2


async def test_hangup_of_a_lost_terminal_ends_it(ledger, monkeypatch):
    """Nobody is there any more to stop it."""
    answers = [True, False]
    monkeypatch.setattr(hangup, "has_terminal", lambda: answers.pop(0))
    async with running(ledger) as crew:
        await trio.testing.wait_all_tasks_blocked(0.01)
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(PATIENCE):
            await crew.shutdown.wait()


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
async def test_hangup_does_not_disturb_the_shutdown(ledger, is_first):
    """By default it would end the process, and with it the calls that have time to finish."""
    fatal = []
    signal.signal(signal.SIGHUP, lambda number, _: fatal.append(number))
    async with running(ledger) as crew:
        await trio.testing.wait_all_tasks_blocked(0.01)
        if is_first:
            os.kill(os.getpid(), signal.SIGHUP)
            await crew.wait_started(3)
            # While they are replaced, it waits for its turn.
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
            crew.shutdown.set()
        else:
            crew.shutdown.set()
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGHUP)
    assert fatal == []


async def test_shutdown_while_they_start_ends_it(ledger):
    """Whoever does not serve yet has nothing to finish."""
    config = SupervisorConfig(
        count=2,
        arguments=[f"ledger={ledger}", "hang"],
        listener=ListenerConfig(bind="127.0.0.1:0"),
        shutdown_timeout=10,
    )
    crew = Crew(config, ledger)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crew.run)
            await crew.wait_started(2)
            crew.shutdown.set()
    assert alive(pid for _, pid in crew.started) == []


async def test_cancelling_stops_all(ledger):
    """At once, and none is left."""
    scope = trio.CancelScope()
    with scope:
        async with running(ledger) as crew:
            scope.cancel()
            await trio.sleep_forever()
    assert alive(pid for _, pid in crew.started) == []


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO)
