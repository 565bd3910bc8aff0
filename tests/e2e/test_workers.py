"""Several workers are one proxy: for clients, for signals, and for whoever kills one."""

import contextlib
import json
import os
import pty
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.e2e.child import PATIENCE, proxy_command
from tests.e2e.rawhttp import RawConnection, open_raw, serve_raw
from tests.e2e.storing import (
    Client,
    Opened,
    Place,
    Proxy,
    RecordingServer,
    client_of,
    is_served,
    running_proxy,
    sqlite_place,
    until,
    url_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

SERVES = r'"message":"worker (\d) serves, as process (\d+)"'


@pytest.fixture
def place(tmp_path):
    return sqlite_place(tmp_path / "sessions.db")


@pytest.fixture
async def server(nursery):
    """The URL of an upstream that knows its sessions."""
    return await serve_raw(nursery, RecordingServer().serve)


@contextlib.contextmanager
def running_workers(upstream: str, place: Place, *options: str) -> Iterator[Proxy]:
    command = ["--workers", "2", "--shutdown-timeout", "5", *place.options, *options]
    with running_proxy(upstream, command) as proxy:
        try:
            yield proxy
        finally:
            assert "Traceback" not in proxy.output


def workers(proxy: Proxy) -> list[tuple[int, int]]:
    """Return number and process id of each worker so far, in the order in which they began to serve."""
    return [(int(number), int(pid)) for number, pid in re.findall(SERVES, proxy.output)]


def pids(proxy: Proxy) -> list[int]:
    return [pid for _, pid in workers(proxy)]


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process; one that is only waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def wait_gone(processes: list[int], seconds: float = PATIENCE) -> None:
    await until(lambda: not any(map(is_alive, processes)), seconds)


async def wait_end(proxy: Proxy) -> int:
    return await trio.to_thread.run_sync(proxy.wait, PATIENCE)


@attrs.define
class Load:
    """Calls in one session: each on a connection of its own, or all on one for as long as it lasts."""

    url: str
    session: Opened
    answered: int = 0
    failed: list[object] = attrs.field(factory=list)

    async def run_fresh(self) -> None:
        while True:
            async with client_of(self.url) as client:
                await self._call(client)

    async def run_kept(self) -> None:
        """Connect anew only when an answer has said that the connection ends."""
        async with client_of(self.url) as client:
            while True:
                if await self._call(client):
                    await client.aclose()

    async def _call(self, client: Client) -> bool:
        answer = await client.call(self.session.id)
        if is_served(answer, self.session) if answer is not None else False:
            self.answered += 1
        else:
            self.failed.append(answer)
        return answer is None or answer.headers.get("connection") == "close"


async def test_any_worker_serves_any_session(server, place):
    """It was opened at one of them; which answers is only seen in the log."""
    with running_workers(server, place, "--log-level", "debug") as proxy:
        url = await url_of(proxy)
        async with client_of(url) as client:
            session = await client.open()
        calls = 0
        with trio.fail_after(PATIENCE):
            while len(answers_by_worker(proxy)) < 2:
                # At once, so that one worker has to wait for the other.
                async with trio.open_nursery() as nursery:
                    for _ in range(8):
                        nursery.start_soon(call_alone, url, session)
                calls += 8
        # One more was the initialize.
        await until(lambda: sum(answers_by_worker(proxy).values()) == calls + 1, PATIENCE)


def answers_by_worker(proxy: Proxy) -> Counter[int]:
    records = [json.loads(line) for line in proxy.lines if line.startswith("{")]
    return Counter(record["worker"] for record in records if record["message"].endswith("answered 200"))


async def call_alone(url: str, session: Opened) -> None:
    async with client_of(url) as client:
        assert is_served(await client.call(session.id), session)


async def test_one_that_is_killed_is_replaced(server, place):
    """What it was at is lost, and nothing else: the other serves on, and so does its successor."""
    with running_workers(server, place) as proxy:
        url = await url_of(proxy)
        async with client_of(url) as client, trio.open_nursery() as nursery:
            load = Load(url, await client.open())
            for _ in range(3):
                nursery.start_soon(load.run_fresh)
            await until(lambda: load.answered > 20, PATIENCE)
            os.kill(pids(proxy)[0], signal.SIGKILL)
            await until(lambda: len(pids(proxy)) == 3, PATIENCE)
            before = load.answered
            await until(lambda: load.answered > before + 20, PATIENCE)
            nursery.cancel_scope.cancel()
        numbers = [number for number, _ in workers(proxy)]
        assert numbers[2] == numbers[0]
        assert len(load.failed) <= 3
        assert not any(load.failed), "each was cut off, and none refused"
        assert "was ended by SIGKILL; another takes its place" in proxy.output
        proxy.terminate()
        assert await wait_end(proxy) == 0
        await wait_gone(pids(proxy))


async def test_all_are_replaced_and_no_call_is_lost(server, place):
    """SIGHUP, with calls on new connections and on old ones all the while."""
    with running_workers(server, place) as proxy:
        url = await url_of(proxy)
        async with client_of(url) as client, trio.open_nursery() as nursery:
            load = Load(url, await client.open())
            for _ in range(2):
                nursery.start_soon(load.run_fresh)
                nursery.start_soon(load.run_kept)
            old = pids(proxy)
            os.kill(proxy._process.pid, signal.SIGHUP)
            await wait_gone(old, 3 * PATIENCE)
            nursery.cancel_scope.cancel()
        assert len(pids(proxy)) == 4
        assert all(map(is_alive, pids(proxy)[2:]))
        assert load.answered > 20
        assert load.failed == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_group", [False, True], ids=["supervisor", "group"])
async def test_first_signal_ends_all_in_order(server, place, number, to_group):
    """A terminal signals the workers too, and that counts once."""
    with running_workers(server, place) as proxy:
        await url_of(proxy)
        (os.killpg if to_group else os.kill)(proxy._process.pid, number)

        assert await wait_end(proxy) == 0
        await wait_gone(pids(proxy))
        assert len(pids(proxy)) == 2
        assert "takes its place" not in proxy.output


async def hold(connection: RawConnection) -> None:
    """Answer nothing."""
    await connection.read_message()
    await trio.sleep_forever()


@pytest.mark.parametrize("to_group", [False, True], ids=["supervisor", "group"])
async def test_second_signal_ends_all_at_once(nursery, place, to_group):
    """The call is given up."""
    kill = os.killpg if to_group else os.kill
    with running_workers(await serve_raw(nursery, hold), place, "--shutdown-timeout", "3600") as proxy:
        url = await url_of(proxy)
        connection = await open_raw(url)
        async with connection.stream:
            await connection.send_request("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize"})
            await trio.sleep(0.1)
            kill(proxy._process.pid, signal.SIGTERM)
            await trio.to_thread.run_sync(proxy.wait_for, "shutting down: 1 requests")
            kill(proxy._process.pid, signal.SIGINT)

            assert await wait_end(proxy) == 128 + signal.SIGINT
            await wait_gone(pids(proxy))


async def test_workers_do_not_outlive_their_supervisor(server, place):
    """However it ends: the kernel tells them."""
    with running_workers(server, place) as proxy:
        await url_of(proxy)
        os.kill(proxy._process.pid, signal.SIGKILL)

        await wait_gone(pids(proxy), 1)


async def test_store_that_cannot_be_opened_is_said_once(server, tmp_path):
    """One line and status 1, as with one process; nobody could connect meanwhile."""
    with running_workers(server, sqlite_place(tmp_path / "missing" / "sessions.db")) as proxy:
        assert await wait_end(proxy) == 1
    assert len(proxy.lines) == 1
    assert proxy.lines[0].startswith("shadowcat: the directory of ")


async def test_memory_of_one_is_no_store_for_two(server):
    """Refused before anything is bound; the message says what to do."""
    with running_proxy(server, ["--workers", "2"]) as proxy:
        assert await wait_end(proxy) == 1
    assert "--store sqlite --sqlite-path FILE or --store redis --redis-url URL" in proxy.output


async def test_closing_the_terminal_ends_all(server, place):
    """A hangup replaces the workers only while somebody may be there to see."""
    command = [*proxy_command(server), "--workers", "2", *place.options]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command)
    said = await trio.to_thread.run_sync(read_until_url, terminal)
    children = [int(found) for found in re.findall(r"as process (\d+)", said)]
    assert len(children) == 2

    os.close(terminal)
    _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
    # 120 is Python's own: there was no terminal any more to flush the output to.
    assert os.waitstatus_to_exitcode(status) in {0, 120}
    await wait_gone(children)


def read_until_url(terminal: int) -> str:
    said = b""
    while not re.search(rb"serving MCP at \S+\r\n", said):
        said += os.read(terminal, 4096)
    return said.decode()
