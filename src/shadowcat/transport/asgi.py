"""The few ASGI verbs that are used here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import trio

from ..errors import ClientDisconnected, InvalidRequest, PayloadTooLarge, RequestTimeout
from ..record import CallRecord
from .base import RawHeaders

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

WHOLE_BODY = "shadowcat.whole_body"
"""The extension of servers that can tell whether all of a body is here: a function that returns it, or None."""


_NONE: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> None:
    return None


class Exchange:
    """One HTTP request and its answer, as an ASGI server hands them over.

    Not for use by two tasks at once, except that one may wait for the client to
    leave while another answers.
    """

    record: CallRecord | None = None
    """What is noted of it, if somebody observes."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.root_path: str = scope.get("root_path", "")
        """Where the app is mounted; empty if it is not."""
        self.path: str = scope["path"].removeprefix(self.root_path)
        self.query: bytes = scope.get("query_string", b"")
        self.raw_headers: RawHeaders = scope["headers"]
        client = scope.get("client")
        self.peer: str | None = client[0] if client else "unknown"
        """The address that the request comes from, or another name for all whose address is not told.

        None for a request that comes from no address."""
        self.headers: Mapping[bytes, bytes] = {}
        """By name, once they have been checked."""
        self.extra_headers: RawHeaders = ()
        """Sent with the answer, whatever it is."""
        self.request_id: bytes | None = None
        """The JSON-RPC id to answer to, once it is known."""
        self.status = 0
        """That of the answer, once its head has been sent; 0 before."""
        self.on_handover: Callable[[], None] | None = None
        """Called just before the message is given to the upstream, for who has more to send behind it."""
        self.on_sent: Callable[[], None] | None = None
        """As `UpstreamRequest.on_sent`."""
        self._receive = receive
        self._send = send
        self._whole_body: Callable[[], bytes | None] = (scope.get("extensions") or _NONE).get(WHOLE_BODY, _nothing)

    async def read_body(self, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109
        """Return the whole request body.

        Args:
            limit: Bytes; nothing beyond is kept.
            timeout: Seconds until the last byte must be here.

        A checkpoint; the body cannot be read again after a cancellation.

        Raises:
            PayloadTooLarge: It is, or is declared to be, longer than *limit*.
            RequestTimeout: It was not complete in time.
            ClientDisconnected: The client left first.
        """
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise InvalidRequest("the Content-Length header is not a number")
        if len(declared) > 15 or int(declared) > limit:
            raise _too_large(limit)
        if (whole := self._whole_body()) is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            if len(whole) > limit:
                raise _too_large(limit)
            return whole
        with trio.move_on_after(timeout):
            return await self._read_parts(limit)
        raise RequestTimeout(f"the body was not complete after {timeout:g} s; send it faster or in smaller parts")

    async def _read_parts(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnected("the client left before its request was complete")
            if part := event.get("body", b""):
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
            if not event.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def wait_disconnected(self) -> None:
        """Return when the client has left.  Call it after the body has been read.

        A checkpoint; safe to cancel and to call again.
        """
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def hand_over(self) -> None:
        """Say that the message is given to the upstream now."""
        if self.record is not None:
            self.record.note_handover()
        if self.on_handover is not None:
            self.on_handover()

    def observe(self, record: CallRecord) -> None:
        """Note in *record* what happens from now on."""
        self.record = record
        self._send = record.watch(self._send)

    async def respond(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        """Send a whole answer."""
        length = () if status in {204, 304} else ((b"content-length", b"%d" % len(body)),)
        await self._start(status, [*headers, *length])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def open_stream(self, status: int, headers: RawHeaders) -> BodyStream:
        """Send the head of an answer whose length is not known yet."""
        await self._start(status, headers)
        return BodyStream(self._send)

    async def _start(self, status: int, headers: RawHeaders) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.extra_headers]})
        # Not before: cancelled until here, there is no answer yet.
        self.status = status


class BodyStream:
    """The body of an answer, sent piece by piece.

    Each write returns when the server has taken the bytes: a client that reads
    slowly makes it wait.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = trio.Lock()
        self.last_write = trio.current_time()

    async def write(self, data: bytes) -> None:
        """Send *data* whole, after any other write under way.

        A checkpoint.  If cancelled, part of *data* may have been sent.
        """
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self.last_write = trio.current_time()
            self._lock.release()

    async def end(self) -> None:
        """End the body, so that the client sees it is complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes; send less, or raise --max-body-size")
