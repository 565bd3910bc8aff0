"""One client connection on hypercorn 0.18's HTTP/1.1 protocol, hardened.

Taken as it comes, one client can end or block a server on hypercorn's trio worker:

* An exception in a connection's protocol code leaves the accept loop, and the
  process.  Any of a WebSocket frame sent along with its handshake, a broken
  ``HTTP2-Settings`` header, or a bad chunk during an early answer causes one.
* A response is written inside an unbounded shield.  A client that stops reading
  holds its task for ever, through timeouts, cancellation and shutdown.
* An app that returns before it has read the whole request body leaves a task
  blocked on the queue nobody reads.
* ``http.disconnect`` is lost behind a full queue or a pipelined request.

So `Connection` stands in for hypercorn's ``TCPServer``, and the classes below it
override the parts of ``H11Protocol``, ``HTTPStream`` and ``TaskGroup`` concerned.
They rely on internals, hence ``hypercorn==0.18.0`` exactly.  HTTP/2 and ``h2c``
are never reached: a preface gets a 505, their ``Upgrade`` is ignored.  For a
WebSocket handshake the socket is handed over to `serve_websocket`.

Two tasks share a connection.  The *reader* feeds bytes to the protocol, starts
the *app* task of each request, and must never wait for anything but the client
or a bounded time; the app task writes the response.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, ConnectionState, Scope
from hypercorn.utils import parse_socket_addr

from ..asgi import ASGIApp
from .http1 import GuardedProtocol
from .listener import ListenerConfig
from .websocket import serve_websocket
from .wire import Wire

log = logging.getLogger(__name__)

READ_SIZE = 65536
POLL_INTERVAL = 1.0
"""Seconds between two looks whether a client has left that sends faster than it is answered."""
LINGER_TIMEOUT = 1.0
"""How long a client may take to notice that we have closed our side."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ServerContext(WorkerContext):
    """What the connections of one server share: whether it still takes requests."""

    def __init__(self) -> None:
        super().__init__(max_requests=None)
        self.idle: set[trio.CancelScope] = set()
        """Cancel one to close a connection on which no request is under way."""

    async def drain(self) -> None:
        """Close idle connections now, and the others after their response.

        Not a checkpoint.
        """
        await self.terminated.set()
        for scope in self.idle:
            scope.cancel()


class Connection:
    """One client: its socket, its reader and its timeouts.

    The caller closes the stream after `run`.
    """

    def __init__(
        self, app: ASGIApp, stream: trio.SocketStream, limits: ListenerConfig, config: Config, context: ServerContext
    ) -> None:
        self._app = app
        self._stream = stream
        self._limits = limits
        self._config = config
        self._context = context
        self._protocol: GuardedProtocol
        self._write_lock = trio.Lock()
        self._reading = trio.CancelScope()
        self._paused = trio.CancelScope()
        self._is_idle = False
        self._is_in_header = False
        self._is_closing = False
        self._is_broken = False

    async def run(self) -> None:
        """Serve the connection until either side ends it.

        No exception leaves but those that end the program: what a client sends
        concerns that client only.
        """
        try:
            await self._serve()
        except* OSError as group:
            log.debug("connection broke: %s", group.exceptions)
        except* Exception:
            log.exception("a connection failed")

    async def _serve(self) -> None:
        if self._context.terminated.is_set():
            return
        sock = self._stream.socket
        client = parse_socket_addr(sock.family, sock.getpeername())
        server = parse_socket_addr(sock.family, sock.getsockname())
        try:
            async with trio.open_nursery() as nursery:
                self._protocol = GuardedProtocol(
                    cast(AppWrapper, self._app),
                    self._config,
                    self._context,
                    AppTasks(nursery),
                    ConnectionState({}),
                    False,
                    client,
                    server,
                    self.send,
                )
                with self._reading:
                    self._set_idle()
                    await self._read()
                if self._is_in_header and self._reading.cancelled_caught and not self._context.terminated.is_set():
                    await self._protocol.refuse(408)
                    with trio.move_on_after(LINGER_TIMEOUT):
                        await self._read()
                if self._protocol.upgrade is None:
                    await self._protocol.handle(Closed())
            if self._protocol.upgrade is not None:
                await self._serve_websocket(self._protocol.upgrade)
        finally:
            self._context.idle.discard(self._reading)
            if self._protocol.ends_by_closing:
                self._abort()

    async def _serve_websocket(self, handshake: Request) -> None:
        family, kind = self._stream.socket.family, self._stream.socket.type
        with socket.socket(family, kind, fileno=self._stream.socket.detach()) as sock:
            wire = Wire(sock, self._limits.write_timeout)
            wire.buffer = bytes(self._protocol.connection.trailing_data[0])
            await serve_websocket(self._app, wire, handshake, self._limits, self._config, self._context)
            await wire.linger()
            wire.close()

    async def send(self, event: Event) -> None:
        """Do what the protocol asks: write bytes, close, or wait for a request."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Updated):
            if event.idle:
                self._set_idle()
                self._paused.cancel()
            else:
                self._context.idle.discard(self._reading)
                self._is_idle = self._is_in_header = False
                self._reading.deadline = inf
        elif isinstance(event, Closed):
            await self._finish()

    def _set_idle(self) -> None:
        self._is_idle = True
        self._context.idle.add(self._reading)
        self._reading.deadline = trio.current_time() + self._limits.keep_alive_timeout

    async def _read(self) -> None:
        while True:
            try:
                data = await self._receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not self._is_closing:
                await self._protocol.feed(data)
                if self._protocol.upgrade is not None:
                    return
                if self._is_idle and not self._is_in_header and self._protocol.is_in_header:
                    self._is_in_header = True
                    self._reading.deadline = trio.current_time() + self._limits.header_timeout
            if data == b"":
                return

    async def _receive(self) -> bytes | None:
        """Return the next bytes, or None when those at hand can be looked at again."""
        if not self._protocol.is_paused:
            return await self._stream.receive_some(READ_SIZE)
        # A request is waiting behind the one under way.  Go on reading, because
        # that is how we learn that the client has left, but not without limit.
        with trio.CancelScope() as self._paused:
            if self._protocol.buffered > self._limits.max_header_bytes:
                await self._wait_left()
                return b""
            return await self._stream.receive_some(READ_SIZE)
        return None

    async def _wait_left(self) -> None:
        """Return when the client has left, which the kernel knows without our reading."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLRDHUP)
        while not poll.poll(0):  # noqa: ASYNC110 - only the kernel knows, and it wakes nobody
            await trio.sleep(POLL_INTERVAL)

    async def _write(self, data: bytes) -> None:
        if self._is_broken or not data:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._send_all(data)
        except (OSError, trio.ClosedResourceError, trio.TooSlowError) as exc:
            log.debug("gave up writing to a client: %r", exc)
            self._abort()
        except trio.Cancelled:
            # Some of the data may be out or none, so nothing can follow it.
            self._abort()
            raise

    async def _send_all(self, data: bytes) -> None:
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            # The time is for any progress at all: a slow reader is not a stalled one.
            view = memoryview(data)
            while view:
                with trio.fail_after(self._limits.write_timeout):
                    view = view[await self._stream.socket.send(view) :]
        finally:
            self._write_lock.release()

    async def _finish(self) -> None:
        """End our side, and give the client a moment to end its own.

        Closing at once could destroy the response on its way, when the client
        is still sending.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._context.idle.discard(self._reading)
        if self._protocol.ends_by_closing:
            self._abort()
            return
        self._reading.deadline = trio.current_time() + LINGER_TIMEOUT
        self._paused.cancel()
        async with self._write_lock:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()

    def _abort(self) -> None:
        """Close the socket with a reset; the reader notices and tells the app."""
        self._is_broken = self._is_closing = True
        with contextlib.suppress(OSError):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._stream.socket.close()
        self._reading.cancel()


class AppTasks(TaskGroup):
    """Starts app calls such that neither side can block the other for good."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery: trio.Nursery = nursery

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start *app* and return the function that feeds it."""
        # One event of room: a request that came in one piece never delays the
        # reader, which has to watch for the client leaving.
        to_app, from_client = trio.open_memory_channel[ASGIReceiveEvent](1)
        self._nursery.start_soon(_run_app, cast(ASGIApp, app), scope, from_client, send)

        async def put(event: ASGIReceiveEvent) -> None:
            # The end of the channel is the disconnect: it never waits for room.
            if event["type"] == "http.disconnect":
                to_app.close()
                return
            # Nobody wants the event if the app has returned or has answered.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                try:
                    to_app.send_nowait(event)
                except trio.WouldBlock:
                    await to_app.send(event)

        return put


async def _run_app(
    app: ASGIApp,
    scope: Scope,
    from_client: trio.MemoryReceiveChannel[ASGIReceiveEvent],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    async def receive() -> Any:
        try:
            return await from_client.receive()
        except trio.EndOfChannel:
            await trio.lowlevel.checkpoint()
            return {"type": "http.disconnect"}

    with from_client:
        try:
            await app(cast(Any, scope), receive, send)
        except* Exception:
            log.exception("the application failed")
    await send(None)
