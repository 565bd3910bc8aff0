"""A client on a WebSocket, as an ASGI server hands it over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..errors import ClientDisconnected, InvalidRequest, StreamBroken
from .asgi import Exchange, Receive, Scope, Send
from .base import MessageStream
from .outbox import Outbox

SUBPROTOCOL = "mcp"
CLOSE_TIMEOUT = 2.0
"""Seconds to finish what is being sent before a WebSocket is closed."""

_NORMAL_CLOSURE = 1000
_UNSUPPORTED_DATA = 1003
_NO_CODE = (1005, 1006)
_MESSAGE_TOO_BIG = 1009


class Upgrade(Exchange):
    """The handshake of a WebSocket.

    To refuse it is to answer it as any other request.  Where the server has no
    ``websocket.http.response`` extension, the status is 403, whatever was meant.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__({**scope, "method": "GET"}, receive, _refusing(scope, send))
        self._send_event = send
        self._subprotocols: Sequence[str] = scope.get("subprotocols", ())

    @asynccontextmanager
    async def accept(self, max_message_size: int) -> AsyncGenerator[SocketStream, None]:
        """Open the WebSocket for as long as the block lasts.

        Close it before the end of the block: otherwise, and when the block ends by an
        error, the server says 1011.  Cancel safe: the connection is then cut.

        Args:
            max_message_size: Bytes; a longer message ends the WebSocket with code 1009.

        Raises:
            InvalidRequest: The client offers subprotocols, and ``mcp`` is none of them.
            ClientDisconnected: The client has left.
        """
        if self._subprotocols and SUBPROTOCOL not in self._subprotocols:
            raise InvalidRequest(f"offer the subprotocol {SUBPROTOCOL}, or none")
        if (await self._receive())["type"] != "websocket.connect":
            raise ClientDisconnected("the client left before its WebSocket was accepted")
        chosen = SUBPROTOCOL if self._subprotocols else None
        await self._send_event({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
        self.status = 101
        stream = SocketStream(self._receive, self._send_event, max_message_size)
        stream.peer = self.peer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.outbox.run)
            yield stream
            nursery.cancel_scope.cancel()


class SocketStream(MessageStream):
    """The messages on a WebSocket that was accepted.

    The server limits how long a client may fail to read, and pings it.
    """

    def __init__(self, receive: Receive, send: Send, max_message_size: int) -> None:
        self._receive = receive
        self._send = send
        self._max_message_size = max_message_size
        self._verdict = ""
        self._close_code: int | None = None
        self._is_gone = False
        self.outbox = Outbox(self._write)

    async def send(self, message: bytes) -> None:
        """Send one message as text; see `MessageStream.send`."""
        if self._verdict:
            await trio.lowlevel.checkpoint()
            raise StreamBroken(self._verdict)
        await self.outbox.put(message)

    async def _write(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def receive(self) -> bytes:
        """Return the next message; see `MessageStream.receive`.

        A message that is too long, or binary, breaks the stream.
        """
        if self._verdict:
            await trio.lowlevel.checkpoint()
            raise StreamBroken(self._verdict)
        event = await self._receive()
        if event["type"] != "websocket.receive":
            self._is_gone = True
            self._verdict = _explain_end(event)
        elif (text := event.get("text")) is None:
            self._close_code = _UNSUPPORTED_DATA
            self._verdict = "send messages as text"
        elif len(data := text.encode()) > self._max_message_size:
            self._close_code = _MESSAGE_TOO_BIG
            self._verdict = f"send messages of up to {self._max_message_size} bytes"
        else:
            return bytes(data)
        raise StreamBroken(self._verdict)

    async def close(self, code: int = _NORMAL_CLOSURE, reason: str = "") -> None:
        """Send what was taken, and close the WebSocket; takes `CLOSE_TIMEOUT` at most.

        A checkpoint.  Does nothing if the client has left.

        Args:
            code: Unless what the client sent ended the stream, which has its own.
            reason: As *code*.
        """
        await trio.lowlevel.checkpoint()
        if self._is_gone:
            return
        if self._close_code is not None:
            code, reason = self._close_code, self._verdict
        self._verdict = self._verdict or "the WebSocket was closed"
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self.outbox.finish()
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self._is_gone = True


def _explain_end(event: Any) -> str:
    code = event.get("code", _NO_CODE[0])
    if code in _NO_CODE:
        return "the client has left"
    reason = event.get("reason")
    words = f": {reason[:100]!r}" if reason else ""
    return f"the client closed the WebSocket with code {code}{words}"


def _refusing(scope: Scope, send: Send) -> Send:
    """Return a ``send`` for an HTTP answer in place of a WebSocket."""
    has_answers = "websocket.http.response" in (scope.get("extensions") or {})

    async def refuse(event: dict[str, Any]) -> None:
        if has_answers:
            await send({**event, "type": f"websocket.{event['type']}"})
        elif event["type"] == "http.response.start":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await trio.lowlevel.checkpoint()

    return refuse
