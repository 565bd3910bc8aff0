"""The server of `conversation`, over a transport that the command line names.

``stdio`` speaks over the standard streams; ``http``, ``sse`` and ``ws`` print their URL.
"""

import itertools
import json
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from tests.e2e.matrix.conversation import MODERN, SUBSCRIPTION, Conversation, Message

_LARGEST = 64 * 1024 * 1024

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def serve_stdio() -> None:
    """One client, on our standard streams."""
    output = trio.lowlevel.FdStream(sys.stdout.fileno())
    lock = trio.Lock()

    async def write(line: bytes) -> None:
        async with lock:
            await output.send_all(line + b"\n")

    async def tell(message: Message, _: Any) -> None:
        await write(json.dumps(message).encode())

    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as source, trio.open_nursery() as nursery:
        conversation = Conversation(nursery, tell)
        conversation.noise = lambda: write(b"this is no message\n{\xff")
        buffer = b""
        async for chunk in source:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                conversation.take(json.loads(line))
        nursery.cancel_scope.cancel()


async def serve_ws() -> None:
    """A client on each WebSocket."""

    async def accept(request: WebSocketRequest) -> None:
        socket = await request.accept(subprotocol="mcp" if "mcp" in request.proposed_subprotocols else None)

        async def tell(message: Message, _: Any) -> None:
            await socket.send_message(json.dumps(message))

        try:
            async with trio.open_nursery() as nursery:
                conversation = Conversation(nursery, tell)
                conversation.noise = lambda: socket.send_message("this is no message")
                try:
                    while True:
                        conversation.take(json.loads(await socket.get_message()))
                except ConnectionClosed:
                    nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, accept, "127.0.0.1", 0, None, max_message_size=_LARGEST))
        print(f"serving ws://127.0.0.1:{server.port}/ws", flush=True)


class Http:
    """Streamable HTTP at ``/mcp``, and HTTP+SSE at ``/sse``."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._sessions: dict[str, Conversation] = {}
        self._streams: dict[tuple[str, str], trio.MemorySendChannel[Message]] = {}
        self._numbers = itertools.count(1_000_000)
        self._open("modern")

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": (await receive())["type"] + ".complete"})
        body = b""
        while (event := await receive()).get("more_body", False):
            body += event["body"]
        body += event.get("body", b"")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        match scope["method"], scope["path"]:
            case "POST", "/mcp" if headers.get("mcp-protocol-version") == MODERN:
                await self._answer_modern(json.loads(body), receive, send)
            case "POST", "/mcp":
                await self._answer(headers.get("mcp-session-id"), json.loads(body), send)
            case "GET", "/mcp":
                await self._stream(headers["mcp-session-id"], "null", receive, send)
            case "DELETE", "/mcp":
                await _respond(send, 200 if self._sessions.pop(headers["mcp-session-id"], None) else 404)
            case "GET", "/sse":
                await self._stream(self._open(), "*", receive, send)
            case "POST", "/messages":
                session_id = scope["query_string"].decode().removeprefix("session=")
                self._sessions[session_id].take(json.loads(body))
                await _respond(send, 202)
            case _:
                await _respond(send, 404)

    def _open(self, session_id: str = "") -> str:
        session_id = session_id or secrets.token_hex(8)

        async def tell(message: Message, belongs_to: Any) -> None:
            for key in (json.dumps(belongs_to), "null", "*"):
                if stream := self._streams.get((session_id, key)):
                    await stream.send(message)
                    return

        self._sessions[session_id] = Conversation(self._nursery, tell)
        return session_id

    async def _answer(self, session_id: str | None, message: Message, send: Send) -> None:
        if session_id is None:
            session_id = self._open()
        elif session_id not in self._sessions:
            await _respond(send, 404)
            return
        await self._exchange(session_id, message, send)

    async def _answer_modern(self, message: Message, receive: Any, send: Send) -> None:
        """Answer a request that stands for itself; the client's leaving cancels it."""
        caller_id, own_id = message["id"], next(self._numbers)
        message["id"] = own_id

        def restore(told: Message) -> Message:
            meta = (told.get("params") or {}).get("_meta") or {}
            if SUBSCRIPTION in meta:
                meta[SUBSCRIPTION] = caller_id
            return told | {"id": caller_id} if "id" in told else told

        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._sessions["modern"].cancel(own_id)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self._exchange("modern", message, send, restore)
            nursery.cancel_scope.cancel()

    async def _exchange(
        self, session_id: str, message: Message, send: Send, restore: Callable[[Message], Message] = lambda told: told
    ) -> None:
        conversation = self._sessions[session_id]
        if "id" not in message or "method" not in message:
            conversation.take(message)
            await _respond(send, 202)
            return
        key = (session_id, json.dumps(message["id"]))
        sender, receiver = trio.open_memory_channel[Message](100)
        self._streams[key] = sender
        try:
            conversation.take(message)
            told = restore(await receiver.receive())
            opened = {"mcp-session-id": session_id} if message["method"] == "initialize" else {}
            if "method" not in told:
                await _respond(send, 200, json.dumps(told).encode(), opened)
                return
            await _begin_events(send, opened)
            while "method" in told:
                await _send_event(send, told)
                told = restore(await receiver.receive())
            await _send_event(send, told)
            await send({"type": "http.response.body", "body": b""})
        finally:
            del self._streams[key]

    async def _stream(self, session_id: str, key: str, receive: Any, send: Send) -> None:
        sender, receiver = trio.open_memory_channel[Message](100)
        self._streams[session_id, key] = sender
        await _begin_events(send, {})
        if key == "*":
            endpoint = f"event: endpoint\ndata: /messages?session={session_id}\n\n"
            await send({"type": "http.response.body", "body": endpoint.encode(), "more_body": True})
        async with trio.open_nursery() as nursery:

            async def copy() -> None:
                async for message in receiver:
                    await _send_event(send, message)

            nursery.start_soon(copy)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()
        del self._streams[session_id, key]


async def _respond(send: Send, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def _begin_events(send: Send, headers: dict[str, str]) -> None:
    fields = {"content-type": "text/event-stream", **headers}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _send_event(send: Send, message: Message) -> None:
    event = b"event: message\ndata: %b\n\n" % json.dumps(message).encode()
    await send({"type": "http.response.body", "body": event, "more_body": True})


async def serve_http(path: str) -> None:
    """Clients at *path*."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        config = Config()
        config.bind = [f"fd://{sock.fileno()}"]
        config.errorlog = None
        async with trio.open_nursery() as nursery:
            print(f"serving http://127.0.0.1:{sock.getsockname()[1]}{path}", flush=True)
            await serve(Http(nursery), config)  # type: ignore[arg-type]


if __name__ == "__main__":
    match sys.argv[1]:
        case "stdio":
            trio.run(serve_stdio)
        case "ws":
            trio.run(serve_ws)
        case "http":
            trio.run(serve_http, "/mcp")
        case "sse":
            trio.run(serve_http, "/sse")
