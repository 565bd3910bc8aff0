"""One client connection: request after request, until either side ends it."""

from __future__ import annotations

import logging
import socket

import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Request
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from ..asgi import ASGIApp
from .head import Refused, RequestHead, can_begin, parse_head
from .http1 import HTTPExchange, error_response
from .listener import ListenerConfig
from .tls import TlsSocket, TlsWire
from .websocket import STREAM_ID, serve_websocket
from .wire import Wire

log = logging.getLogger(__name__)


class ServerContext(WorkerContext):
    """What the connections of one server share: whether it still takes requests."""

    def __init__(self, config: Config) -> None:
        super().__init__(max_requests=None)
        self.config = config
        self.is_retiring = trio.Event()
        self.is_draining = trio.Event()
        self.idle: set[trio.CancelScope] = set()
        """Cancel one to close a connection on which no request is under way."""

    def retire(self) -> None:
        """Close each connection after its next response."""
        self.is_retiring.set()

    def drain(self) -> None:
        """Close idle connections now, and the others after their response."""
        self.retire()
        self.is_draining.set()
        for scope in self.idle:
            scope.cancel()


class Connection:
    """One client."""

    __slots__ = ("_app", "_context", "_limits", "_wire")

    def __init__(self, app: ASGIApp, sock: socket.socket, limits: ListenerConfig, context: ServerContext) -> None:
        self._app = app
        self._wire = (TlsWire if isinstance(sock, TlsSocket) else Wire)(sock, limits.write_timeout)
        self._limits = limits
        self._context = context

    async def run(self) -> None:
        """Serve the connection until either side ends it, and close it.

        No exception leaves but those that end the program: what a client sends
        concerns that client only.
        """
        try:
            if await self._serve():
                await self._wire.linger()
        except* Exception:
            log.exception("a connection failed")
        finally:
            self._wire.close()

    async def _serve(self) -> bool:
        """Return whether the client is owed a moment to take what was sent."""
        while True:
            try:
                head = await self._read_head()
            except Refused as exc:
                await self._wire.send(error_response(exc.status))
                return True
            if head is None:
                return False
            if head.is_websocket:
                await self._serve_websocket(head)
                return True
            if not await HTTPExchange(self._wire, head, self._limits, self._context.is_retiring).serve(self._app):
                return True

    async def _serve_websocket(self, head: RequestHead) -> None:
        handshake = Request(
            stream_id=STREAM_ID,
            headers=head.headers,
            http_version=head.version,
            method=head.method,
            raw_path=head.target,
            state=ConnectionState({}),
        )
        await serve_websocket(self._app, self._wire, handshake, self._limits, self._context.config, self._context)

    async def _read_head(self) -> RequestHead | None:
        """Return the next request; None when there will be none."""
        wire = self._wire
        if wire.buffer:
            # A client that sends requests in advance must not keep others waiting.
            await trio.lowlevel.checkpoint()
        deadline = trio.current_time() + self._limits.keep_alive_timeout
        scanned = 0
        while not self._context.is_draining.is_set():
            if wire.buffer:
                if (head := self._take_head(scanned)) is not None:
                    return head
                if wire.buffer and not scanned:
                    deadline = trio.current_time() + self._limits.header_timeout
                scanned = len(wire.buffer)
            if not await self._receive_before(deadline):
                break
        return None

    def _take_head(self, scanned: int) -> RequestHead | None:
        """Return the head in the buffer; None if it is not complete."""
        data = self._wire.buffer
        # One empty line in front is tolerated (RFC 9112, 2.2).
        start = 2 if data.startswith(b"\r\n") else 0
        if len(data) == start or data == b"\r":
            self._wire.buffer = data[start:]
            return None
        if not can_begin(data[start]):
            raise Refused(400)
        end = data.find(b"\r\n\r\n", max(start, scanned - 3)) + 4
        if (end if end > 3 else len(data)) > self._limits.max_header_bytes:
            raise Refused(431)
        if end <= 3:
            return None
        self._wire.buffer = data[end:]
        return parse_head(data[start:end])

    async def _receive_before(self, deadline: float) -> bool:
        """Add to the buffer; return False when there is nothing to wait for any more."""
        with trio.CancelScope(deadline=deadline) as waiting:
            self._context.idle.add(waiting)
            try:
                return await self._wire.receive_more(self._limits.max_header_bytes + 1)
            finally:
                self._context.idle.discard(waiting)
        if self._wire.buffer and not self._context.is_draining.is_set():
            raise Refused(408)
        return False
