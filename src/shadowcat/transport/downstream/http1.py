"""hypercorn 0.18's HTTP/1.1 protocol, with what it lets a client break put right.

h11 parses; hypercorn's ``H11Protocol`` and ``HTTPStream`` keep the state of a
connection and of one request on it.  Overridden here:

* An HTTP/2 preface gets a 505, and an ``Upgrade`` to ``h2c`` is ignored, so that
  code is never reached.  A WebSocket handshake is left to `websocket`.
* Too many or too large headers, or ambiguous framing, are refused.
* What the client sends after it was refused cannot disturb an app at work.
* While a pipelined request waits, reading goes on, to learn of a disconnect.
* A response that ends too early is cut such that the client can tell.
* Head, body and end of a response go out in one write where they can.
"""

from __future__ import annotations

from typing import Any

import h11
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGISendEvent, ConnectionState
from hypercorn.utils import suppress_body

MAX_HEADERS = 128


class FinalBody(Body):
    """A `Body` and the `EndBody` after it."""


class GuardedStream(HTTPStream):
    """One request and its response."""

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take one event from the app; None when it has returned or failed."""
        if (
            message is not None
            and message["type"] == "http.response.body"
            and self.state is ASGIHTTPState.RESPONSE
            and not message.get("more_body", False)
        ):
            body = message.get("body", b"")
            if body and suppress_body(self.scope["method"], int(self.response["status"])):
                body = b""
            self.state = ASGIHTTPState.CLOSED
            await self.send(FinalBody(STREAM_ID, body))
            await self.send(StreamClosed(STREAM_ID))
        else:
            await super().app_send(message)


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 on one connection."""

    connection: h11.Connection
    stream: GuardedStream | None
    is_paused = False
    """Whether the next request is at hand but must wait for the one under way."""
    upgrade: Request | None = None
    """The WebSocket handshake that ended HTTP on this connection."""
    _held: h11.Response | None = None

    @property
    def buffered(self) -> int:
        """How many bytes have been received and not yet parsed."""
        return len(self.connection.trailing_data[0])

    @property
    def is_in_header(self) -> bool:
        """Whether a header section has begun and not ended."""
        return self.connection.their_state is h11.IDLE and self.buffered > 0

    @property
    def ends_by_closing(self) -> bool:
        """Whether an orderly close now would pass for the end of an unfinished response."""
        version = self.connection.their_http_version or b"1.1"
        return self.connection.our_state is h11.SEND_BODY and version < b"1.1"

    async def feed(self, data: bytes | None) -> None:
        """Go on parsing, after adding *data* if there is some; empty means end of file."""
        if data is not None:
            self.connection.receive_data(data)
        await self._handle_events()

    async def _handle_events(self) -> None:
        """Parse what there is and hand it on, body parts joined as far as possible."""
        self.is_paused = False
        body: list[bytes] = []
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self.refuse(error.error_status_hint)
                return
            if isinstance(event, h11.Data):
                body.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                await self._put_body(body, is_last=True)
                body.clear()
            elif isinstance(event, h11.Request):
                await self.send(Updated(idle=False))
                if status := _reason_to_refuse(event, self.config.h11_max_incomplete_size):
                    await self.refuse(status)
                    return
                if _is_websocket(event):
                    self.upgrade = _as_hypercorn(event, self.connection_state)
                    return
                await self._create_stream(event)
                if self.connection.they_are_waiting_for_100_continue:
                    await self._send_h11_events(h11.InformationalResponse(status_code=100, headers=[]))
            else:
                self.is_paused = event is h11.PAUSED
                if body:
                    await self._put_body(body, is_last=False)
                return

    async def _put_body(self, parts: list[bytes], *, is_last: bool) -> None:
        # Without a stream, the app has answered and the rest of the body is ignored.
        if self.stream is not None:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            await self.stream.app_put({"type": "http.request", "body": bytes(body), "more_body": not is_last})

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = GuardedStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(_as_hypercorn(request, self.connection_state))

    async def stream_send(self, event: StreamEvent) -> None:
        """Send one event of the response, the head of a short one together with its body."""
        if isinstance(event, FinalBody):
            events: list[Any] = [h11.Data(data=event.data)] if event.data else []
            await self._send_h11_events(*events, h11.EndOfMessage())
        elif isinstance(event, Body):
            await self._send_h11_events(h11.Data(data=event.data))
        elif isinstance(event, Response) and event.status_code >= 200:
            await self._send_head(event)
        elif isinstance(event, EndBody):
            await self._send_h11_events(h11.EndOfMessage())
        else:
            await super().stream_send(event)

    async def _send_head(self, event: Response) -> None:
        headers = event.headers
        # The client learns that it cannot send another request here: we shall
        # not wait for the rest of a body that the app does not want.
        if self.context.terminated.is_set() or self.connection.their_state is h11.SEND_BODY:
            headers = [*headers, (b"connection", b"close")]
        head = h11.Response(headers=headers, status_code=event.status_code)
        if any(name == b"content-length" for name, _ in head.headers):
            self._held = head
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._send_h11_events(head)

    async def _send_h11_events(self, *events: Any) -> None:
        if self._held is not None:
            events = (self._held, *events)
            self._held = None
        try:
            data = b"".join([self.connection.send(event) for event in events])
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            # What the client sent was refused while the app was at work.
            await trio.lowlevel.checkpoint()
        else:
            await self.send(RawData(data))

    async def refuse(self, status: int) -> None:
        """Answer *status* if no answer has begun, and close."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())
        await self._close_stream()

    async def _maybe_recycle(self) -> None:
        """Close after a response, or get ready for the next request."""
        await self._close_stream()
        if self._held is not None:
            # The app failed between head and body, so there is time to say so.
            self._held = None
            await self._send_error_response(500)
        states = {self.connection.our_state, self.connection.their_state}
        if self.context.terminated.is_set() or states != {h11.DONE}:
            await self.send(Closed())
        else:
            self.connection.start_next_cycle()
            await self.send(Updated(idle=True))


def _reason_to_refuse(request: h11.Request, max_header_bytes: int) -> int | None:
    if request.http_version[:1] != b"1":
        return 505
    if request.method == b"CONNECT":
        return 501
    size = len(request.target)
    framings = 0
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        framings += name in {b"content-length", b"transfer-encoding"}
    if size > max_header_bytes or len(request.headers) > MAX_HEADERS:
        return 431
    # Both at once is how requests are smuggled past a proxy (RFC 9112, 6.3).
    return 400 if framings > 1 else None


def _is_websocket(request: h11.Request) -> bool:
    headers = dict(request.headers)
    tokens = [token.strip() for token in headers.get(b"connection", b"").lower().split(b",")]
    return (
        request.method == b"GET"
        and request.http_version == b"1.1"
        and headers.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in tokens
        and not {b"content-length", b"transfer-encoding"} & headers.keys()
    )


def _as_hypercorn(request: h11.Request, state: ConnectionState) -> Request:
    return Request(
        stream_id=STREAM_ID,
        headers=list(request.headers),
        http_version=request.http_version.decode("ascii"),
        method=request.method.decode("ascii"),
        raw_path=request.target,
        state=state,
    )
