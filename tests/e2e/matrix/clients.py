"""Clients of the four transports, each a pipe of messages with no more in it than the transport needs."""

import json
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import httpx
import trio
from trio_websocket import open_websocket_url

from shadowcat.protocol import SSEDecoder
from tests.e2e.matrix.conversation import MODERN, Message

PATIENCE = 20.0
"""Seconds that a test waits for a message."""

NOTHING = httpx.Timeout(PATIENCE)


class Client:
    """One client: what it sends, and what it is told.  Messages that no test asks for are kept for the next."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self._sender, self._receiver = trio.open_memory_channel[Message](1000)
        self._kept: list[Message] = []
        self._ids = 0
        self.is_modern = False

    def told(self, data: bytes) -> None:
        """Take what came from the other side."""
        self._sender.send_nowait(json.loads(data))

    async def put(self, data: bytes) -> None:
        """Send bytes that are meant as one message."""
        await self._put(data)

    async def say(self, message: Message) -> None:
        """Send a message."""
        await self._put(json.dumps(message).encode())

    async def ask(self, method: str, params: Message | None = None, request_id: Any = None) -> Any:
        """Send a request, and return its id."""
        self._ids += 1
        request_id = self._ids if request_id is None else request_id
        params = dict(params or {})
        if self.is_modern:
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "matrix", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params["_meta"] = params.get("_meta", {}) | meta
        await self.say({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return request_id

    async def hear(self, is_wanted: Callable[[Message], Any]) -> Message:
        """Return the first message that *is_wanted*, of those that came and those to come."""
        for message in self._kept:
            if is_wanted(message):
                self._kept.remove(message)
                return message
        with trio.fail_after(PATIENCE):
            while True:
                message = await self._receiver.receive()
                if is_wanted(message):
                    return message
                self._kept.append(message)

    async def answer(self, request_id: Any) -> Message:
        """Return the answer to a request."""
        return await self.hear(lambda told: "method" not in told and told.get("id") == request_id)

    async def call(self, tool: str, arguments: Message | None = None, **params: Any) -> str:
        """Call a tool, and return its text."""
        request_id = await self.ask("tools/call", {"name": tool, "arguments": arguments or {}, **params})
        answer = await self.answer(request_id)
        text: str = answer["result"]["content"][0]["text"]
        return text

    async def initialize(self, version: str = "2025-11-25") -> Message:
        """Open a session of the legacy era."""
        params = {
            "protocolVersion": version,
            "capabilities": {"sampling": {}, "elicitation": {}},
            "clientInfo": {"name": "matrix", "version": "1"},
        }
        answer = await self.answer(await self.ask("initialize", params))
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: Message = answer["result"]
        return result


Opening = Callable[[str | Sequence[str]], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def open_stdio(command: str | Sequence[str]) -> AsyncGenerator[Client, None]:
    """Run *command*, and speak with it over its standard streams."""
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def put(data: bytes) -> None:
        await stdin.send_all(data.replace(b"\n", b" ") + b"\n")

    async def listen(client: Client) -> None:
        buffer = b""
        async for chunk in stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                client.told(line)

    client = Client(put)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, client)
            yield client
            nursery.cancel_scope.cancel()
        await stdin.aclose()
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await stdin.aclose()
            await stdout.aclose()


@asynccontextmanager
async def open_ws(url: str | Sequence[str]) -> AsyncGenerator[Client, None]:
    """Speak over a WebSocket."""
    async with (
        open_websocket_url(str(url), subprotocols=["mcp"], max_message_size=64 * 1024 * 1024) as socket,
        trio.open_nursery() as nursery,
    ):
        assert socket.subprotocol == "mcp"
        client = Client(lambda data: socket.send_message(data.decode("utf-8", "replace")))

        async def listen() -> None:
            while True:
                client.told(str(await socket.get_message()).encode())

        nursery.start_soon(listen)
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_sse(url: str | Sequence[str]) -> AsyncGenerator[Client, None]:
    """Speak over HTTP+SSE of 2024-11-05."""
    endpoint = ""
    found = trio.Event()

    async def put(data: bytes) -> None:
        response = await http.post(endpoint, content=data, headers={"content-type": "application/json"})
        if response.status_code >= 300:
            client.told(response.content)

    async def listen() -> None:
        nonlocal endpoint
        async for event in _events(http, str(url), {}):
            if event.event == b"endpoint":
                endpoint = urljoin(str(url), (event.data or b"").decode())
                found.set()
            elif event.data:
                client.told(event.data)

    async with httpx.AsyncClient(timeout=NOTHING) as http, trio.open_nursery() as nursery:
        client = Client(put)
        nursery.start_soon(listen)
        with trio.fail_after(PATIENCE):
            await found.wait()
        yield client
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_http(url: str | Sequence[str]) -> AsyncGenerator[Client, None]:
    """Speak Streamable HTTP: a POST for each message, and a listening stream once a session is open."""
    session: dict[str, str] = {}
    under_way: dict[str, trio.CancelScope] = {}

    async def put(data: bytes) -> None:
        try:
            message = json.loads(data)
        except ValueError:
            message = {}
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **session}
        if client.is_modern and message.get("method") == "notifications/cancelled":
            # The client's leaving is what cancels here.
            under_way.pop(json.dumps(message["params"]["requestId"])).cancel()
            return
        if client.is_modern:
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": message["method"]}
            if "name" in message["params"]:
                headers["mcp-name"] = message["params"]["name"]
        if "id" in message and "method" in message and message["method"] != "initialize":
            scope = under_way[json.dumps(message["id"])] = trio.CancelScope()
            nursery.start_soon(post, data, headers, scope)
        else:
            await post(data, headers, trio.CancelScope())
        if message.get("method") == "notifications/initialized":
            nursery.start_soon(listen)

    async def post(data: bytes, headers: dict[str, str], scope: trio.CancelScope) -> None:
        with scope:
            async with http.stream("POST", str(url), content=data, headers=headers) as response:
                if "mcp-session-id" in response.headers:
                    session["mcp-session-id"] = response.headers["mcp-session-id"]
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    await read(response)
                elif body := await response.aread():
                    client.told(body)

    async def read(response: httpx.Response) -> None:
        decoder = SSEDecoder()
        async for chunk in response.aiter_raw():
            for event in decoder.feed(chunk):
                if event.data:
                    client.told(event.data)

    async def listen() -> None:
        async for event in _events(http, str(url), session):
            if event.data:
                client.told(event.data)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=NOTHING, limits=limits) as http, trio.open_nursery() as nursery:
        client = Client(put)
        yield client
        if session:
            await http.delete(str(url), headers=session)
        nursery.cancel_scope.cancel()


async def _events(http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> AsyncGenerator[Any, None]:
    decoder = SSEDecoder()
    async with http.stream("GET", url, headers={"accept": "text/event-stream", **headers}) as response:
        async for chunk in response.aiter_raw():
            for event in decoder.feed(chunk):
                yield event
