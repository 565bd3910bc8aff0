"""Many sessions before one command: a child each, nobody's answer astray, nothing left behind."""

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.child import PATIENCE, ROOT, Child, module, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SERVER = [sys.executable, "-S", "-E", str(ROOT / "tests/e2e/light_server.py")]
HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
UNLIMITED = httpx.Limits(max_connections=None)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until *is_so*."""
    with trio.fail_after(60):
        while not is_so():  # noqa: ASYNC110 - other processes do not tell us
            await trio.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


class Forward:
    """A proxy before `SERVER`, and what it has started."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.url = child.wait_for_url()
        self._open_files = 0

    def children(self) -> list[int]:
        """Return the processes it has, zombies included."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.child.pid:
                found.append(int(path.parent.name))
        return found

    async def settle(self, count: int) -> None:
        """Wait until it has *count* processes."""
        await until(lambda: len(self.children()) == count)


@pytest.fixture
def forward(request) -> Iterator[Forward]:
    options = getattr(request, "param", [])
    with running([*module("shadowcat", "forward", "--bind", "127.0.0.1:0"), *options, "--", *SERVER]) as child:
        yield Forward(child)


class Session:
    """A client's session over HTTP."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._headers = dict(HEADERS)

    async def open(self) -> "Session":
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        response = await self._post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        assert response.status_code == 200, response.text
        self._headers["mcp-session-id"] = response.headers["mcp-session-id"]
        told = await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert told.status_code == 202
        return self

    async def call(self, tool: str, **arguments: object) -> httpx.Response:
        """Call a tool, with the id that all calls have."""
        params = {"name": tool, "arguments": arguments}
        return await self._post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})

    async def text(self, tool: str, **arguments: object) -> str:
        response = await self.call(tool, **arguments)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["id"] == 1
        return str(answer["result"]["content"][0]["text"])

    async def end(self) -> None:
        await self._http.delete(self._url, headers=self._headers)

    async def _post(self, message: object) -> httpx.Response:
        return await self._http.post(self._url, json=message, headers=self._headers)


@pytest.mark.parametrize("forward", [["--max-children", "200"]], indirect=True)
async def test_200_sessions_at_once_that_all_use_one_id(forward):
    processes: list[str] = []

    async def converse(number: int) -> None:
        session = await Session(http, forward.url).open()
        own = await session.text("pid")
        processes.append(own)
        for turn in range(10):
            assert await session.text("echo", text=f"{number}.{turn}") == f"{number}.{turn}"
        assert await session.text("pid") == own

    async with httpx.AsyncClient(limits=UNLIMITED, timeout=60) as http, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(converse, number)
    assert len(set(processes)) == 200


@pytest.mark.parametrize("forward", [["--session-idle-timeout", "1", "--max-children", "1000"]], indirect=True)
async def test_1000_sessions_that_are_opened_and_abandoned_leave_nothing(forward):
    await forward.settle(1)
    before = forward.child.open_files
    async with httpx.AsyncClient(timeout=60) as http:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(Session(http, forward.url).open)
    await forward.settle(1)
    await until(lambda: forward.child.open_files <= before)


async def test_ending_a_session_ends_its_child(forward):
    async with httpx.AsyncClient(timeout=60) as http:
        session = await Session(http, forward.url).open()
        own = int(await session.text("pid"))
        await session.end()
        await until(lambda: not is_alive(own))
        assert (await session.call("pid")).status_code == 404


async def test_children_that_are_killed_at_random_keep_nobody_waiting(forward):
    """Who had a call under way is told at once; the next call of the session finds another child."""
    slowest = 0.0
    failed = 0
    is_over = False

    async def converse(number: int) -> None:
        nonlocal slowest, failed
        session = await Session(http, forward.url).open()
        turn = 0
        while not is_over:
            turn += 1
            start = trio.current_time()
            response = await session.call("echo", text=f"{number}.{turn}")
            slowest = max(slowest, trio.current_time() - start)
            if response.status_code == 200:
                assert response.json()["result"]["content"][0]["text"] == f"{number}.{turn}"
            else:
                failed += 1
                assert "check before sending it again" in response.json()["error"]["message"]
            await trio.sleep(0.005)

    async with httpx.AsyncClient(limits=UNLIMITED, timeout=60) as http, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(converse, number)
        await trio.sleep(1)
        for _ in range(40):
            if children := forward.children():
                os.kill(random.choice(children), signal.SIGKILL)
            await trio.sleep(0.1)
        is_over = True
    assert slowest < 1.0


async def test_a_call_whose_child_dies_is_told_so_at_once(forward):
    async with httpx.AsyncClient(timeout=60) as http:
        session = await Session(http, forward.url).open()
        with trio.fail_after(1):
            response = await session.call("die")
        assert response.status_code == 502
        assert response.json()["id"] == 1
        assert "exited with status 3" in response.json()["error"]["message"]
        assert await session.text("echo", text="again") == "again"


@pytest.mark.parametrize("forward", [["--max-children", "3", "--spares", "0"]], indirect=True)
async def test_more_sessions_than_allowed_are_told_to_come_later(forward):
    async with httpx.AsyncClient(timeout=60) as http:
        sessions = [await Session(http, forward.url).open() for _ in range(3)]
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        response = await http.post(forward.url, json=message, headers=HEADERS)
        assert response.status_code == 503
        assert "retry-after" in response.headers
        await sessions[0].end()
        with trio.fail_after(PATIENCE):
            while (await http.post(forward.url, json=message, headers=HEADERS)).status_code != 200:
                pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_however_the_proxy_ends_so_do_its_children(forward, number):
    async with httpx.AsyncClient(timeout=60) as http:
        for _ in range(5):
            await Session(http, forward.url).open()
    await forward.settle(6)
    children = forward.children()
    os.kill(forward.child.pid, number)
    await until(lambda: not any(map(is_alive, children)))
