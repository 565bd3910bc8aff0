"""One request and its response on a connection, as ASGI.

The application runs in the connection's own task, and there is no other: what
it receives it reads from the socket itself.  So a client's leaving is noticed by
whoever waits for it in ``receive``, and costs nobody else anything.

Head, body and end of a response go out in one write where they can.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import trio

from ..asgi import WHOLE_BODY, ASGIApp
from .body import ChunkedBody, LengthBody
from .call import call_app
from .head import Refused, RequestHead
from .listener import ListenerConfig
from .response import Response
from .wire import READ_SIZE, Wire

CONTINUE = b"HTTP/1.1 100 \r\n\r\n"


class HTTPExchange:
    """One request and its response."""

    __slots__ = (
        "_body",
        "_head",
        "_held",
        "_is_answered",
        "_is_body_taken",
        "_is_draining",
        "_is_head_sent",
        "_is_refused",
        "_keeps_alive",
        "_limits",
        "_may_continue",
        "_ready",
        "_response",
        "_waiting",
        "_wire",
    )

    def __init__(self, wire: Wire, head: RequestHead, limits: ListenerConfig, is_draining: trio.Event) -> None:
        self._wire = wire
        self._head = head
        self._limits = limits
        self._is_draining = is_draining
        self._body = ChunkedBody() if head.length is None else LengthBody(head.length)
        self._may_continue = head.expects_continue
        self._ready = b""
        self._is_body_taken = False
        self._response: Response | None = None
        self._held = b""
        self._is_head_sent = False
        self._is_answered = False
        self._is_refused = False
        self._keeps_alive = False
        self._waiting: trio.CancelScope | None = None

    async def serve(self, app: ASGIApp) -> bool:
        """Have *app* answer, and return whether the connection can take another request.

        Safe to cancel: the client can tell that the response is not complete.
        """
        try:
            await call_app(app, self._scope(), self.receive, self.send)
        finally:
            if self._is_head_sent and not self._is_answered and self._response and self._response.ends_by_closing:
                self._wire.abort()
        if not (self._is_answered or self._is_head_sent or self._is_refused):
            # The app failed, maybe between head and body, so there is time to say so.
            await self._wire.send(error_response(500))
        return self._is_answered and self._keeps_alive and not self._wire.is_gone and self._drop_body()

    def _drop_body(self) -> bool:
        self._decode()
        return self._body.is_complete

    def _scope(self) -> dict[str, Any]:
        head = self._head
        path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "https" if self._wire.is_encrypted else "http",
            "path": unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": self._wire.client,
            "server": self._wire.server,
            "extensions": {WHOLE_BODY: self.whole_body},
            "state": {},
        }

    def whole_body(self) -> bytes | None:
        """Return the body if all of it is here and none was received before; otherwise None.

        Not a checkpoint: to wait for nothing, under a time limit, costs as much as to parse the head.
        """
        if self._is_body_taken or self._is_answered or not self._is_body_here():
            return None
        self._is_body_taken = True
        body, self._ready = self._ready, b""
        return body

    async def receive(self) -> dict[str, Any]:
        """Return a part of the body; after the last, wait until the client has left or is answered.

        A checkpoint when it has to wait; safe to cancel and to call again.
        """
        if not (self._is_body_taken or self._is_answered):
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._receive_body()
        while not (self._is_answered or self._is_refused or self._wire.is_gone):
            await self._receive_more(self._limits.max_header_bytes)
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def _receive_body(self) -> dict[str, Any]:
        while not (self._is_answered or self._is_refused):
            try:
                self._decode()
            except Refused as exc:
                await self._refuse(exc.status)
                break
            if self._ready or self._body.is_complete:
                part, self._ready = self._ready, b""
                self._is_body_taken = self._body.is_complete
                return {"type": "http.request", "body": part, "more_body": not self._is_body_taken}
            if self._wire.is_gone:
                break
            if self._may_continue:
                self._may_continue = False
                if self._response is None and not self._wire.buffer:
                    await self._wire.send(CONTINUE)
            await self._receive_more(READ_SIZE)
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    def _decode(self) -> None:
        if not self._body.is_complete and self._wire.buffer:
            # Some clients send the body for each 100 they get: none for those who have begun.
            self._may_continue = False
            part, self._wire.buffer = self._body.decode(self._wire.buffer)
            self._ready = self._ready + part if self._ready else part

    async def _receive_more(self, limit: int) -> None:
        # Cancelled when the response is complete: there is nothing to wait for then.
        with trio.CancelScope() as self._waiting:
            await self._wire.receive_more(limit)

    async def _refuse(self, status: int) -> None:
        self._is_refused = True
        if not (self._is_head_sent or self._is_answered):
            await self._wire.send(error_response(status))
        await self._wire.end()

    async def send(self, message: dict[str, Any]) -> None:
        """Take one event of the response.

        Does nothing when the client has gone.  A checkpoint, except that the
        last part of a body is written without one when there is room.

        Raises:
            ValueError: The response cannot be sent like this.
        """
        if self._is_answered or self._is_refused or self._wire.is_gone:
            await trio.lowlevel.checkpoint()
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))
        elif message["type"] == "http.response.start":
            await self._send_head(int(message["status"]), message.get("headers", ()))
        else:
            raise ValueError(f"{message['type']} is no part of a response")

    async def _send_head(self, status: int, headers: Any) -> None:
        if self._response is not None:
            raise ValueError("the response has begun before")
        # Here and nowhere below: whoever is cancelled before the head is out can still answer something else.
        await trio.lowlevel.checkpoint_if_cancelled()
        response = Response(is_head=self._head.method == "HEAD", is_old=self._head.version == "1.0")
        # The client learns that it cannot send another request here: we shall
        # not wait for the rest of a body that the app does not want.
        close = not self._head.keeps_alive or self._is_draining.is_set() or not self._is_body_here()
        head = response.head(status, headers, close=close)
        self._response = response
        self._keeps_alive = not (close or response.asks_to_close)
        if response.has_length:
            self._held = head
        else:
            self._is_head_sent = True
            await self._wire.send(head)

    def _is_body_here(self) -> bool:
        try:
            self._decode()
        except Refused:
            return False
        return self._body.is_complete

    async def _send_body(self, part: bytes, *, is_last: bool) -> None:
        if self._response is None:
            raise ValueError("the response has not begun")
        # Here, where nothing is counted yet: a part is sent and counted, or neither.
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._response.body(part, is_last=is_last)
        if self._held:
            data = self._held + data
            self._held = b""
        self._is_head_sent = True
        await self._wire.send(data)
        if is_last:
            self._is_answered = True
            if self._waiting is not None:
                self._waiting.cancel()
        else:
            await trio.lowlevel.checkpoint()


def error_response(status: int) -> bytes:
    """Encode the answer to a request that is not served; the connection ends with it."""
    return Response().head(status, [(b"content-length", b"0")], close=True)
