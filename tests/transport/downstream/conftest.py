"""A real server on a loopback socket, and a client that can misbehave."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from shadowcat.transport.downstream import ListenerConfig, open_listening_socket, serve_asgi

Events = list[dict[str, Any]]


class Client:
    """One TCP connection, byte by byte."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, marker: bytes) -> bytes:
        """Return everything up to and including *marker*."""
        with trio.fail_after(5):
            while marker not in self._buffer:
                data = await self.stream.receive_some(65536)
                assert data, f"ended before {marker!r}: {self._buffer!r}"
                self._buffer += data
        end = self._buffer.index(marker) + len(marker)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    async def read_some(self) -> bytes:
        """Return what there is, or wait for it."""
        found, self._buffer = self._buffer, b""
        return found or await self.stream.receive_some(65536)

    async def read_to_end(self) -> bytes:
        with trio.fail_after(5):
            while data := await self.stream.receive_some(65536):
                self._buffer += data
        found, self._buffer = self._buffer, b""
        return found

    async def reset(self) -> None:
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


@attrs.frozen
class Server:
    url: str
    address: tuple[str, int]
    shutdown: trio.Event
    stopped: trio.Event
    nursery: trio.Nursery

    @asynccontextmanager
    async def connect(self, receive_buffer: int | None = None) -> AsyncGenerator[Client]:
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        with trio.socket.socket(family) as sock:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            with trio.fail_after(5):
                await sock.connect(self.address)
            yield Client(trio.SocketStream(sock))

    async def exchange(self, *parts: bytes) -> bytes:
        """Send *parts* on a connection of their own and return all that comes back."""
        async with self.connect() as client:
            for part in parts:
                await client.send(part)
                await trio.testing.wait_all_tasks_blocked()
            return await client.read_to_end()

    async def assert_alive(self) -> None:
        answer = await self.exchange(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer


@pytest.fixture
def serve() -> Callable[..., Any]:
    """Return ``serve(app, graceful_timeout=..., **listener_config)``, a context manager."""

    @asynccontextmanager
    async def serve(app: Any, *, graceful_timeout: float = 0.2, **config: Any) -> AsyncGenerator[Server]:
        settings = ListenerConfig(**{"bind": "127.0.0.1:0", **config})
        sock = open_listening_socket(settings)
        address = sock.getsockname()[:2]
        shutdown, stopped = trio.Event(), trio.Event()

        async def run(started: trio.MemorySendChannel[list[str]]) -> None:
            async with trio.open_nursery() as serving:
                server = partial(serve_asgi, shutdown=shutdown, graceful_timeout=graceful_timeout)
                started.send_nowait(await serving.start(server, app, sock, settings))
            stopped.set()

        started, on_start = trio.open_memory_channel[list[str]](1)
        with trio.fail_after(120), started, on_start:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, started)
                urls = await on_start.receive()
                yield Server(urls[0], address, shutdown, stopped, nursery)
                nursery.cancel_scope.cancel()

    return serve


async def read_body(receive: Any) -> bytes | None:
    """Return the request body, or None if the client left first."""
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        body += event["body"]
        if not event["more_body"]:
            return body


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class App:
    """A small application; the path says how it behaves."""

    def __init__(self) -> None:
        self.events: Events = []
        self.calls: list[dict[str, Any]] = []
        self.is_streaming = trio.Event()
        self.disconnected = trio.Event()
        self.cancelled = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope)
        name = scope["path"].lstrip("/").partition("/")[0]
        if scope["type"] == "websocket":
            name = "websocket"
        elif name not in {"early", "stream", "wait", "fail", "fail_late", "flood"}:
            name = "echo"
        try:
            await getattr(self, name)(receive, send)
        except trio.Cancelled:
            self.cancelled.set()
            raise
        finally:
            self.ended.set()

    async def echo(self, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        if body is not None:
            await respond(send, body)

    async def websocket(self, receive: Any, send: Any) -> None:
        """Send every message back until the client leaves."""
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "websocket.send", "text": event["text"], "bytes": event["bytes"]})
        self.events.append(event)
        self.disconnected.set()

    async def early(self, receive: Any, send: Any) -> None:
        await respond(send, b"no", status=413)

    async def stream(self, receive: Any, send: Any) -> None:
        """Send one event, then stay open until the client leaves."""
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.is_streaming.set()
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self._wait_disconnected(receive)

    async def wait(self, receive: Any, send: Any) -> None:
        self.is_streaming.set()
        await self._wait_disconnected(receive)

    async def _wait_disconnected(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        with trio.testing.assert_checkpoints():
            assert (await receive())["type"] == "http.disconnect"
        self.disconnected.set()

    async def fail(self, receive: Any, send: Any) -> None:
        await read_body(receive)
        raise RuntimeError("on purpose")

    async def fail_late(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        raise RuntimeError("on purpose")

    async def flood(self, receive: Any, send: Any) -> None:
        """Send for ever; end when told that the client has gone."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_for_ever, send)
            await self._wait_disconnected(receive)
            nursery.cancel_scope.cancel()

    async def _send_for_ever(self, send: Any) -> None:
        while True:
            self.is_streaming.set()
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})


@pytest.fixture
def app() -> App:
    return App()
