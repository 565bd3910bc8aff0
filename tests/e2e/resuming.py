"""What tests of resumption share: connections to cut, servers to restart, and the SDKs' clients by one name."""

import contextlib
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, Self

import anyio
import mcp_types as types
import trio
from mcp import Client
from mcp.client._transport import ReadStream, TransportStreams
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import JSONRPCMessage, JSONRPCNotification

from tests.e2e.child import PATIENCE, Child, running
from tests.e2e.rawhttp import open_raw
from tests.e2e.storing import until

LOGGER = "narrator"


class Wire:
    """A TCP relay that cuts its connections on command, and meanwhile lets new ones wait or fails them.

    While nobody listens at the target, connections wait too, as at a load balancer.
    """

    def __init__(self) -> None:
        self._connections: set[trio.CancelScope] = set()
        self._released = trio.Event()
        self._released.set()
        self.is_refusing = False
        self.refusals = 0
        self.resumptions = 0
        """Requests with Last-Event-ID that have passed."""

    async def start(self, nursery: trio.Nursery, target: str) -> str:
        """Serve in *nursery*; return the URL that stands for *target*."""
        authority, _, path = target.removeprefix("http://").partition("/")
        host, port = authority.split(":")
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, partial(self._handle, host, int(port)), listeners)
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/{path}"

    def cut(self) -> None:
        """End all connections; let new ones wait until `release`."""
        if self._released.is_set():
            self._released = trio.Event()
        for scope in self._connections:
            scope.cancel()

    def refuse(self) -> None:
        """End all connections; let new ones fail until `release`."""
        self.is_refusing = True
        for scope in self._connections:
            scope.cancel()

    def release(self) -> None:
        self.is_refusing = False
        self._released.set()

    async def passed_resumptions(self, count: int) -> None:
        """Return when there were so many."""
        await until(lambda: self.resumptions >= count, PATIENCE)

    async def _handle(self, host: str, port: int, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            if self.is_refusing:
                self.refusals += 1
                await client.aclose()
                return
            await self._released.wait()
            self._connections.add(scope)
            try:
                async with client, await _connect(host, port) as server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, client, server, True)
                    nursery.start_soon(self._copy, server, client, False)
            except* OSError:
                await trio.aclose_forcefully(client)
            finally:
                self._connections.discard(scope)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, is_request: bool) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                self.resumptions += is_request and data.lower().count(b"\r\nlast-event-id:")
                await sink.send_all(data)
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)


async def _connect(host: str, port: int) -> trio.SocketStream:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await trio.open_tcp_stream(host, port)
            except OSError:
                await trio.sleep(0.02)


class Narrator:
    """The server of `tests.e2e.narrator` or of narrator.mjs, at a port of its own, to be killed and started again.

    Args:
        command: Makes its command line from a port.
    """

    def __init__(self, command: Callable[[int], Sequence[str]]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/mcp"
        self._command = command
        self._stack = contextlib.ExitStack()
        self._child: Child | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self._stack:
            self.restart()
            yield

    def restart(self) -> None:
        """Start it; if it runs, let it forget all it knows."""
        self._stack.close()
        self._child = self._stack.enter_context(running(self._command(self._port)))
        self._child.wait_for_url()

    def count(self, line: str) -> int:
        """Return how often it has printed *line* since it was started."""
        assert self._child is not None
        return self._child.lines.count(line)

    async def said(self, line: str, times: int = 1) -> None:
        """Return when it has printed *line* so many times."""
        await until(lambda: self.count(line) >= times, PATIENCE)

    async def go(self) -> None:
        """Let it narrate another part."""
        await self._tell("/go")

    async def announce(self, number: int) -> None:
        """Let it send a number on the listening stream."""
        await self._tell(f"/announce?number={number}")

    async def _tell(self, path: str) -> None:
        connection = await open_raw(self.url)
        async with connection.stream:
            answer = await connection.request("GET", path)
        assert answer.start.startswith("HTTP/1.1 200"), answer


class Peer(ABC):
    """A client of an SDK, and what it was handed in the order it came."""

    def __init__(self) -> None:
        self.messages: list[int] = []
        """The numbers in the log messages of `Narrator`."""
        self.progress: list[float] = []
        self.changes = 0
        """How often it heard that the tools have changed."""
        self.tokens: list[str] = []

    @abstractmethod
    def connected(self, url: str) -> AbstractAsyncContextManager[None]:
        """Be connected for as long as the block lasts, then end the session."""

    @abstractmethod
    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, token: str | None = None, patience: float = PATIENCE
    ) -> str:
        """Call a tool, or go on with a call where the token was current; return the text."""

    @abstractmethod
    async def read(self, uri: str) -> None:
        """Read a resource."""

    @abstractmethod
    async def set_level(self, level: types.LoggingLevel) -> None: ...

    @abstractmethod
    async def subscribe(self, uri: str) -> None: ...

    async def received(self, count: int) -> None:
        """Return when so many messages have come."""
        await until(lambda: len(self.messages) >= count, PATIENCE)

    async def told_places(self, count: int) -> None:
        """Return when so many tokens have come."""
        await until(lambda: len(self.tokens) >= count, PATIENCE)

    def _take(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "notifications/message" if params.get("logger") == LOGGER:
                self.messages.append(params["data"])
            case "notifications/progress":
                self.progress.append(params["progress"])
            case "notifications/tools/list_changed":
                self.changes += 1


class _Recorded:
    """The messages of a transport, each noted on its way: the client handles every one in a task of its own."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], note: Callable[[JSONRPCMessage], None]) -> None:
        self._stream = stream
        self._note = note

    async def receive(self) -> SessionMessage | Exception:
        item = await self._stream.receive()
        if isinstance(item, SessionMessage):
            self._note(item.message)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class PythonPeer(Peer):
    """The Python SDK's client."""

    _client: Client

    @contextlib.asynccontextmanager
    async def connected(self, url: str) -> AsyncGenerator[None, None]:
        async with Client(self._transport(url), mode="legacy") as self._client:
            yield

    @contextlib.asynccontextmanager
    async def _transport(self, url: str) -> AsyncGenerator[TransportStreams, None]:
        async with streamable_http_client(url) as (received, sent):
            yield _Recorded(received, self._note_message), sent

    def _note_message(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCNotification):
            self._take(message.method, message.params or {})

    async def _note_token(self, token: str) -> None:
        self.tokens.append(token)

    async def _ignore(self, progress: float, total: float | None, message: str | None) -> None: ...

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, token: str | None = None, patience: float = PATIENCE
    ) -> str:
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments or {}))
        metadata = ClientMessageMetadata(resumption_token=token, on_resumption_token_update=self._note_token)
        result = await self._client.session.send_request(
            request, types.CallToolResult, patience, metadata, self._ignore
        )
        content = result.content[0]
        assert isinstance(content, types.TextContent)
        return content.text

    async def read(self, uri: str) -> None:
        await self._client.read_resource(uri)

    async def set_level(self, level: types.LoggingLevel) -> None:
        await self._client.set_logging_level(level)

    async def subscribe(self, uri: str) -> None:
        await self._client.subscribe_resource(uri)


class TypeScriptPeer(Peer):
    """The TypeScript SDK's client, in a process that obeys line by line; one call at a time.

    Args:
        command: The command line of resumer.mjs, without its URL.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__()
        self._command = command

    @contextlib.asynccontextmanager
    async def connected(self, url: str) -> AsyncGenerator[None, None]:
        self._answers, self._inbox = trio.open_memory_channel[dict[str, Any]](100)
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process([*self._command, url], stdin=PIPE, stdout=PIPE)
            try:
                assert process.stdin is not None
                self._stdin = process.stdin
                nursery.start_soon(self._listen, process)
                await self._answer()
                yield
                await self._stdin.aclose()
                await process.wait()
            finally:
                process.kill()
                nursery.cancel_scope.cancel()

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        received = b""
        async for data in process.stdout:
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        match said:
            case {"heard": method, **rest}:
                self._take(method, rest.get("params", {}))
            case {"token": token}:
                self.tokens.append(token)
            case {"answer": _} | {"error": _}:
                self._answers.send_nowait(said)

    async def _answer(self) -> Any:
        said = await self._inbox.receive()
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["answer"]

    async def _do(self, **command: Any) -> Any:
        await self._stdin.send_all(json.dumps(command).encode() + b"\n")
        return await self._answer()

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, token: str | None = None, patience: float = PATIENCE
    ) -> str:
        options = {} if token is None else {"token": token}
        timeout = round(patience * 1000)
        answer: str = await self._do(do="call", name=name, arguments=arguments or {}, timeout=timeout, **options)
        return answer

    async def read(self, uri: str) -> None:
        await self._do(do="read", uri=uri)

    async def set_level(self, level: types.LoggingLevel) -> None:
        await self._do(do="level", level=level)

    async def subscribe(self, uri: str) -> None:
        await self._do(do="subscribe", uri=uri)


def scripts_beside(node_modules: Path, directory: Path) -> Path:
    """Return *directory* with our scripts in it, and the packages they import."""
    for path in (Path(__file__).parent / "typescript").glob("*.mjs"):
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "node_modules").symlink_to(node_modules)
    return directory
