"""One client over HTTP+SSE, the transport of protocol version 2024-11-05.

A GET that the client keeps open takes what is for it; what it has to say comes by
POSTs to an address of its own, which the first event of the GET has told it.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import trio

from ...errors import SessionBusy, SessionNotFound, StreamBroken
from ...protocol import HEARTBEAT, SSEEvent, encode_event
from ..asgi import BodyStream, Exchange
from ..base import MessageStream

_WAITING = 8
"""Messages that were accepted and are still to be received.

Clients send one when the last was accepted, and some give up after five seconds: what
they send meanwhile should not have to wait until whoever receives has time."""

_FAREWELL = 5.0
"""Seconds in which the client has to take the last message at the end of a stream."""

_LEFT = "the client has left"

EVENT_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class HttpSseClientStream(MessageStream):
    """Messages from and to one client.

    Args:
        heartbeat_interval: Seconds of silence after which a comment is sent.
    """

    def __init__(self, heartbeat_interval: float) -> None:
        self._heartbeat_interval = heartbeat_interval
        self._inlet, self._inbox = trio.open_memory_channel[bytes](_WAITING)
        self._outbox, self._outlet = trio.open_memory_channel[bytes](0)
        self._written = trio.Event()
        self._has_left = False

    async def send(self, message: bytes) -> None:
        """Send one message to the client; see `MessageStream.send`.

        All or nothing: returns when the message is certain to be written after those
        before it, unless the client leaves.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outbox.send(message)
            return
        await trio.lowlevel.checkpoint()
        raise StreamBroken(_LEFT)

    async def receive(self) -> bytes:
        """Return the next message that was accepted; see `MessageStream.receive`."""
        with suppress(trio.EndOfChannel):
            return await self._inbox.receive()
        await trio.lowlevel.checkpoint()
        raise StreamBroken(_LEFT)

    async def accept(self, message: bytes, timeout: float) -> None:  # noqa: ASYNC109
        """Take *message* from the client, to be received.

        A checkpoint, all or nothing.

        Args:
            timeout: Seconds that it may have to wait for those before it.

        Raises:
            SessionBusy: It had to wait longer.
            SessionNotFound: The stream has ended.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            with trio.move_on_after(timeout):
                await self._inlet.send(message)
                return
            raise SessionBusy(f"messages before this one were not taken in {timeout:g} s; send it again in a while")
        await trio.lowlevel.checkpoint()
        raise SessionNotFound("the event stream of this session has ended; open another")

    async def run(self, exchange: Exchange, endpoint: str) -> None:
        """Answer *exchange*, the GET, with the event stream, until the client leaves or `finish`.

        Cancel safe: the answer is then cut.

        Args:
            endpoint: The URI to which the client sends its messages.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, exchange, nursery.cancel_scope)
                body = await exchange.open_stream(200, EVENT_STREAM_HEADERS)
                await body.write(encode_event(SSEEvent(endpoint.encode("ascii"), b"endpoint")))
                await self._write_all(body)
                await body.end()
                nursery.cancel_scope.cancel()
        finally:
            self.close()
            self._written.set()

    async def _watch(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        await exchange.wait_disconnected()
        scope.cancel()

    async def _write_all(self, body: BodyStream) -> None:
        with suppress(trio.EndOfChannel):
            while True:
                data = HEARTBEAT
                with trio.move_on_after(self._heartbeat_interval):
                    data = encode_event(SSEEvent(await self._outlet.receive(), b"message"))
                await body.write(data)
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """End the stream, and return when the client has been sent the rest, or was given time for it.

        A checkpoint; safe to cancel.
        """
        self._inlet.close()
        self._outbox.close()
        with trio.move_on_after(_FAREWELL):
            await self._written.wait()

    def close(self) -> None:
        """Accept and send nothing more.  What was accepted before can still be received."""
        self._inlet.close()
        self._outlet.close()


def endpoint_uri(root_path: str, path: str, session_id: str) -> str:
    """Return the URI of a session's messages: a path that begins at the server's root, and a query."""
    return f"{quote(root_path.rstrip('/') + path)}?session_id={session_id}"
