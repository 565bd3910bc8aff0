"""A WebSocket on hypercorn 0.18's ``WSStream`` and wsproto, hardened.

Overridden here, because a client could use it:

* What comes along with the handshake waits until the application has accepted.
* A handshake that hypercorn cannot decode gets a 400, not an exception.
* A message that is too long ends the connection with 1009, by bytes and not
  characters, and nothing of what follows is read.
* No compression: a few bytes could become very many before anybody counts them.
* Writes have a deadline, a ``send`` always yields, and a client that answers no
  ping is given up.
* The application learns the code and reason with which the client closed.

Two tasks share a WebSocket: the *reader* and the *app*.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request
from hypercorn.protocol.events import Response as ResponseHead
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from ..asgi import ASGIApp
from .call import call_app
from .listener import ListenerConfig
from .response import Response, encode_header
from .wire import LINGER_TIMEOUT, Wire

STREAM_ID = 1
_IS_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch
_DECODED = frozenset({b"connection", b"sec-websocket-protocol", b"sec-websocket-extensions"})


async def serve_websocket(
    app: ASGIApp, wire: Wire, request: Request, limits: ListenerConfig, config: Config, context: WorkerContext
) -> None:
    """Serve the handshake *request* and what follows it on *wire*, until either side ends it.

    The caller closes *wire*.  Safe to cancel: the application is cancelled, and
    the client sees the connection break.
    """
    if (refusal := _refuse(request.headers)) is not None:
        await wire.send(refusal)
        return
    async with trio.open_nursery() as nursery:
        await GuardedWebSocket(app, wire, limits, config, context, AppTask(nursery)).run(request)


def _refuse(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """Return the answer to a handshake that cannot be served."""
    if not all(value.isascii() for name, value in headers if name in _DECODED):
        return Response().head(400, [(b"content-length", b"0")], close=True)
    found = dict(headers)
    if found.get(b"sec-websocket-version") != b"13":
        return Response().head(426, [(b"content-length", b"0"), (b"sec-websocket-version", b"13")], close=True)
    if not _IS_KEY(found.get(b"sec-websocket-key", b"")):
        return Response().head(400, [(b"content-length", b"0")], close=True)
    return None


class GuardedWebSocket(WSStream):
    """One WebSocket, from its handshake on."""

    def __init__(
        self,
        app: ASGIApp,
        wire: Wire,
        limits: ListenerConfig,
        config: Config,
        context: WorkerContext,
        app_task: AppTask,
    ) -> None:
        super().__init__(
            cast(AppWrapper, app),
            config,
            context,
            app_task,
            wire.is_encrypted,
            wire.client,
            wire.server,
            self._transmit,
            STREAM_ID,
        )
        self._wire = wire
        self._limits = limits
        self._undecided = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._parts: list[Any] = []
        self._size = 0
        self._response: Response | None = None
        self._ended: tuple[int, str] = (CloseReason.ABNORMAL_CLOSURE, "")

    async def run(self, request: Request) -> None:
        """Start the application and read until the connection ends."""
        await self.handle(request)
        with self._undecided:
            while await self._wire.receive_more(self._limits.max_header_bytes):
                pass
        with self._reading:
            await self._read()
        self.closed = True
        code, reason = self._ended
        if self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})
        await self._wire.linger()

    async def _read(self) -> None:
        if self.state is ASGIWebsocketState.RESPONSE:
            while await self._wire.receive_more(self._limits.max_header_bytes):
                pass
        while self.state in {ASGIWebsocketState.CONNECTED, ASGIWebsocketState.CLOSED}:
            data = self._wire.buffer or await self._receive()
            self._wire.buffer = b""
            if not data or await self._take(data):
                return

    async def _receive(self) -> bytes:
        for _ in range(2):
            with trio.move_on_after(self._limits.ping_interval):
                return await self._wire.receive()
            await self._send_wsproto_event(Ping())
        self._wire.abort()
        return b""

    async def _take(self, data: bytes) -> bool:
        """Handle what was received, and tell whether the connection has ended with it."""
        self.connection.receive_data(data)
        for event in self.connection.events():
            if isinstance(event, Message):
                if self.state is ASGIWebsocketState.CONNECTED and not await self._put(event):
                    await self._close(CloseReason.MESSAGE_TOO_BIG, "the message is too long")
                    return True
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                    self._ended = (event.code, event.reason or "")
                elif self.connection.state is ConnectionState.OPEN:
                    await self._close(event.code, event.reason or "")
                return True
        return False

    async def _close(self, code: int, reason: str) -> None:
        self._ended = (code, reason)
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))

    async def _put(self, event: Message[Any]) -> bool:
        """Hand a message on when it is complete; return False if it is too long."""
        part = event.data
        self._size += len(part) if not isinstance(part, str) or part.isascii() else len(part.encode())
        if self._size > self._limits.max_message_bytes:
            return False
        if part:
            self._parts.append(part)
        if event.message_finished and self.app_put is not None:
            kind, empty = ("text", "") if isinstance(part, str) else ("bytes", b"")
            message: dict[str, Any] = {"type": "websocket.receive", "bytes": None, "text": None}
            message[kind] = empty.join(self._parts)
            self._parts.clear()
            self._size = 0
            await self.app_put(cast(ASGIReceiveEvent, message))
        return True

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take one event from the app; None when it has returned or failed.

        A checkpoint.
        """
        if not self.closed:
            await super().app_send(message)
            if message is not None and message["type"] == "websocket.close":
                self._ended = (int(message.get("code", CloseReason.NORMAL_CLOSURE)), message.get("reason") or "")
            self._let_reader_go_on(has_app_ended=message is None)
        await trio.lowlevel.checkpoint()

    def _let_reader_go_on(self, *, has_app_ended: bool) -> None:
        if has_app_ended or self.state is not ASGIWebsocketState.HANDSHAKE:
            self._undecided.cancel()
        if self.state in {ASGIWebsocketState.CONNECTED, ASGIWebsocketState.CLOSED}:
            if has_app_ended or self.state is ASGIWebsocketState.CLOSED:
                # There is the client's own close frame to wait for.
                self._reading.deadline = min(self._reading.deadline, trio.current_time() + LINGER_TIMEOUT)
        elif has_app_ended or self.state is ASGIWebsocketState.HTTPCLOSED:
            self._reading.cancel()

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        # hypercorn moves on before it knows whether the handshake can be accepted.
        self.handshake.extensions = None
        status, headers, self.connection = self.handshake.accept(message.get("subprotocol"), message.get("headers", []))
        await self.send(ResponseHead(STREAM_ID, headers, status))
        self.state = ASGIWebsocketState.CONNECTED

    async def _transmit(self, event: Event) -> None:
        """Write what hypercorn wants written."""
        if isinstance(event, ResponseHead) and event.status_code == 101:
            lines = [encode_header(name, value) for name, value in event.headers]
            await self._wire.send(b"".join([b"HTTP/1.1 101 \r\n", *lines, b"\r\n"]))
        elif isinstance(event, ResponseHead):
            response = Response()
            await self._wire.send(response.head(event.status_code, event.headers, close=True))
            self._response = response
        elif isinstance(event, Data):
            await self._wire.send(event.data)
        elif self._response is not None and isinstance(event, Body):
            await self._wire.send(self._response.body(event.data, is_last=False))
        elif self._response is not None and isinstance(event, EndBody):
            await self._wire.send(self._response.body(b"", is_last=True))


class AppTask(TaskGroup):
    """Starts the application such that neither side can block the other for good."""

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
        # Room for `websocket.connect`, so that the reader can begin.
        to_app, from_client = trio.open_memory_channel[ASGIReceiveEvent](1)
        last: list[ASGIReceiveEvent] = []
        self._nursery.start_soon(_run_app, cast(ASGIApp, app), scope, from_client, last, send)

        async def put(event: ASGIReceiveEvent) -> None:
            # The end of the channel is the disconnect: it never waits for room.
            if event["type"] == "websocket.disconnect":
                last.append(event)
                to_app.close()
                return
            # Nobody wants the event if the app has returned.
            with contextlib.suppress(trio.BrokenResourceError):
                await to_app.send(event)

        return put


async def _run_app(
    app: ASGIApp,
    scope: Scope,
    from_client: trio.MemoryReceiveChannel[ASGIReceiveEvent],
    last: list[ASGIReceiveEvent],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    async def receive() -> Any:
        try:
            return await from_client.receive()
        except trio.EndOfChannel:
            await trio.lowlevel.checkpoint()
            return last[0]

    with from_client:
        await call_app(app, cast(Any, scope), receive, send)
    await send(None)
