"""What tests of the session stores share: a proxy that can be killed, its upstream, and a client that survives it."""

import contextlib
import re
import signal
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import attrs
import trio

from shadowcat.session import (
    RedisConfig,
    SessionId,
    SessionStore,
    SqliteConfig,
    open_redis_store,
    open_sqlite_store,
    parse_cursor,
)
from tests.e2e.child import PATIENCE, Child, proxy_command
from tests.e2e.rawhttp import RawConnection, RawMessage, open_raw
from tests.session.stores.redis_server import Cluster, RedisServer

INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}

EVENT_INTERVAL = 0.01
"""Seconds between two events of one stream."""


@attrs.frozen
class Place:
    """Where a proxy is told to keep its sessions, and how a test looks in."""

    options: Sequence[str]
    env: Mapping[str, str]
    """Says the same as the options."""
    open: Callable[[], AbstractAsyncContextManager[SessionStore]]

    async def positions(self, session_ids: Sequence[str]) -> list[int | None]:
        """Return which event was the last in each session, as stored now."""
        async with self.open() as store:
            stored = [await store.get_last_event_id(SessionId(session_id)) for session_id in session_ids]
        return [None if event_id is None else position_in(event_id.encode()) for event_id in stored]

    async def upstream_ids(self) -> dict[str, str | None]:
        """Return the upstream's id of every session stored now, by ours."""
        async with self.open() as store:
            return {session.id: session.upstream_session_id for session in await store.list_sessions()}


def sqlite_place(path: Path) -> Place:
    return Place(
        ["--store", "sqlite", "--sqlite-path", str(path)],
        {"SHADOWCAT_STORE": "sqlite", "SHADOWCAT_SQLITE_PATH": str(path)},
        lambda: open_sqlite_store(SqliteConfig(path=path)),
    )


def redis_place(server: RedisServer | Cluster) -> Place:
    return Place(
        ["--store", "redis", "--redis-url", server.url, "--redis-prefix", "e2e"],
        {"SHADOWCAT_STORE": "redis", "SHADOWCAT_REDIS_URL": server.url, "SHADOWCAT_REDIS_PREFIX": "e2e"},
        lambda: open_redis_store(RedisConfig(url=server.url, prefix="e2e")),
    )


class Proxy(Child):
    """The proxy, to be ended in the way a test wants."""

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Leave it no time for anything."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to stop."""
        self._signal(signal.SIGTERM)

    def suspend(self) -> None:
        """Let it do nothing until it is resumed."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)


@contextlib.contextmanager
def running_proxy(upstream: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Proxy]:
    """Run a proxy for as long as the block lasts; an option given twice is what it is last."""
    proxy = Proxy([*proxy_command(upstream), *options], env)
    try:
        yield proxy
    finally:
        proxy.kill()
        proxy.wait(PATIENCE)


async def url_of(proxy: Proxy) -> str:
    return await trio.to_thread.run_sync(proxy.wait_for_url)


def bind_of(url: str) -> list[str]:
    """Return the options that make a proxy serve at *url*."""
    return ["--bind", url.removeprefix("http://").removesuffix("/mcp")]


class RecordingServer:
    """An upstream that says in each answer which of its sessions it took the call for."""

    def __init__(self) -> None:
        self._names = count()
        self.opened: set[str] = set()
        self.ended: set[str] = set()
        self.strangers: list[str | None] = []
        """Ids it was called with and never gave out, or had been told the end of."""

    async def serve(self, connection: RawConnection) -> None:
        while message := await connection.read_message():
            session = message.headers.get("mcp-session-id")
            if message.start.startswith("DELETE"):
                self.ended.add(str(session))
                await connection.answer({})
                continue
            call = message.json
            if call["method"] == "initialize":
                name = f"u{next(self._names)}"
                self.opened.add(name)
                info = {"name": name, "version": "1"}
                result: dict = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
                await connection.answer({"jsonrpc": "2.0", "id": call["id"], "result": result}, mcp_session_id=name)
                continue
            if session not in self.opened - self.ended:
                self.strangers.append(session)
            if call["method"] == "stream":
                await self._stream(connection)
                continue
            await connection.answer({"jsonrpc": "2.0", "id": call["id"], "result": {"by": session}})

    async def _stream(self, connection: RawConnection) -> None:
        """Answer with events numbered from 0, until the proxy has had enough."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await connection.stream.send_all(head)
        for number in range(3000):
            event = b'id: %d\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n' % number
            await connection.stream.send_all(b"%x\r\n%s\r\n" % (len(event), event))
            await trio.sleep(EVENT_INTERVAL)


@attrs.frozen
class Opened:
    """A session whose ``initialize`` was answered."""

    id: str
    upstream_id: str


class Client:
    """One connection at a time to one proxy, which may be gone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: RawConnection | None = None

    async def ask(self, method: str, path: str = "/mcp", message=None, **headers: str) -> RawMessage | None:
        """Send a request; None if it is not answered because the proxy has gone."""
        try:
            if self._connection is None:
                self._connection = await open_raw(self._url)
            return await self._connection.request(method, path, message, **headers)
        except (OSError, trio.BrokenResourceError, AssertionError):
            await self.aclose()
            return None

    async def initialize(self) -> RawMessage | None:
        return await self.ask("POST", message=INITIALIZE)

    async def call(self, session_id: str) -> RawMessage | None:
        return await self.ask("POST", message={"jsonrpc": "2.0", "id": 1, "method": "x"}, mcp_session_id=session_id)

    async def delete(self, session_id: str) -> RawMessage | None:
        return await self.ask("DELETE", mcp_session_id=session_id)

    async def open(self) -> Opened:
        """Open a session; fails if that is refused."""
        answer = await self.initialize()
        assert answer is not None
        return opened_by(answer)

    async def readiness(self) -> str:
        answer = await self.ask("GET", "/ready")
        assert answer is not None
        return answer.json["status"]

    async def aclose(self) -> None:
        if self._connection is not None:
            await trio.aclose_forcefully(self._connection.stream)
        self._connection = None


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[Client, None]:
    client = Client(url)
    try:
        yield client
    finally:
        await client.aclose()


def status(answer: RawMessage | None) -> int:
    """Return the status of an answer there must be."""
    assert answer is not None, "no answer came"
    return int(answer.start.split()[1])


def opened_by(answer: RawMessage) -> Opened:
    """Return what an answer to ``initialize`` opened."""
    assert status(answer) == 200, answer
    return Opened(answer.headers["mcp-session-id"], answer.json["result"]["serverInfo"]["name"])


def is_served(answer: RawMessage | None, session: Opened) -> bool:
    """Whether *answer* is the upstream's, given for *session*."""
    return status(answer) == 200 and answer is not None and answer.json["result"] == {"by": session.upstream_id}


def position_in(event_id: bytes) -> int:
    """Return which event of its stream has this id of the proxy's."""
    return parse_cursor(event_id).position


@attrs.define
class Seen:
    """The events of one stream that have reached its client, and when."""

    times: dict[int, float] = attrs.field(factory=dict)

    @property
    def last(self) -> int:
        return max(self.times, default=-1)

    async def read(self, url: str, session_id: str) -> None:
        """Call for a stream and read it until it ends, however it does."""
        received = b""
        connection = await open_raw(url)
        async with connection.stream:
            with contextlib.suppress(trio.BrokenResourceError):
                call = {"jsonrpc": "2.0", "id": 1, "method": "stream"}
                await connection.send_request("POST", "/mcp", call, mcp_session_id=session_id)
                while data := await connection.stream.receive_some(65536):
                    received += data
                    *events, received = received.split(b"\n\n")
                    for event in events:
                        if (event_id := re.search(rb"id: (\S+)\ndata: \{", event)) is not None:
                            self.times[position_in(event_id[1])] = trio.current_time()


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as *condition* holds; fail if it does not in time."""
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.sleep(0.005)
