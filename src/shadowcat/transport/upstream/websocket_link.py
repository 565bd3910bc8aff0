"""Messages over one WebSocket to an MCP server.

trio-websocket 0.12 does the protocol.  What it leaves to its user:

* A ``send_message`` that is cancelled leaves half a frame, so only one task calls it.
* A peer that hangs up during the handshake is waited for: see `Wire`.
* ``aclose`` after the peer has closed, or after a message that is too long, does not
  close the connection.  It waits for the peer without limit, and a ping that comes
  meanwhile is an error in the task that reads (issue 184), as are many other things
  that a peer can send.
* It sends pings when asked to, and waits for the pong for ever.
* Lengths are counted in characters.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import cast

import attrs
import h11
import trio
import wsproto
from trio.abc import Stream
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from ...errors import StreamBroken, UpstreamUnavailable
from ..base import MessageStream, RawHeaders
from ..outbox import Outbox
from .wire import Wire

log = logging.getLogger(__name__)

SUBPROTOCOL = "mcp"
CLOSE_TIMEOUT = 2.0
"""Seconds to finish what is being sent and say goodbye."""
READ_SIZE = 65536

_ABNORMAL_CLOSURE = 1006
_UNSUPPORTED_DATA = 1003
_MESSAGE_TOO_BIG = 1009

_GARBAGE = (wsproto.utilities.ProtocolError, h11.ProtocolError, HandshakeError, ConnectionClosed, UnicodeError)
"""What the reading task ends with when it does not understand the peer."""


@attrs.frozen(kw_only=True)
class LinkLimits:
    """What is asked of a peer.  Durations are in seconds."""

    max_message_size: int
    """Bytes of one message."""
    ping_interval: float
    ping_timeout: float


@asynccontextmanager
async def open_link(
    stream: Stream, host: str, target: str, headers: RawHeaders, limits: LinkLimits, deadline: float
) -> AsyncGenerator[MessageStream, None]:
    """Upgrade *stream* to a WebSocket, which is closed politely at the end of the block.

    Leaving the block takes `CLOSE_TIMEOUT` at most, also when cancelled, and leaves
    *stream* to be closed, forcefully, by whoever opened it.

    Args:
        stream: A connection to the server.
        host: The ``Host`` header.
        target: Path and query.
        headers: Other fields of the handshake.
        limits: For the connection once it is made.
        deadline: On trio's clock: when the handshake must be done.

    Raises:
        UpstreamUnavailable: The server does not agree.
    """
    link = _Link(stream, limits)
    shake = partial(
        wrap_client_stream,
        stream=cast(trio.SocketStream, link.wire),  # any stream will do
        host=host,
        resource=target,
        subprotocols=[SUBPROTOCOL],
        extra_headers=list(headers),
        message_queue_size=0,
        max_message_size=limits.max_message_size,
        receive_buffer_size=READ_SIZE,
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.carry, shake, deadline)
            try:
                yield link
            finally:
                await link.part()  # noqa: ASYNC102 - shielded, with a timeout
    except BaseExceptionGroup as group:
        # Nothing but a bug ends `carry` once it has started, so what is alone here is the error of the block.
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__  # noqa: ASYNC123 - its traceback is kept


class _Link(MessageStream):
    """What `open_link` yields."""

    def __init__(self, stream: Stream, limits: LinkLimits) -> None:
        self._limits = limits
        self._carrying = trio.CancelScope()
        self.wire = Wire(stream, self._carrying.cancel)
        self._outbox = Outbox(self._write)
        self._connection: WebSocketConnection
        self._verdict = ""
        self._close_code = 1000
        self._parting = trio.CancelScope(shield=True)

    async def send(self, message: bytes) -> None:
        """Send one message; see `MessageStream.send`."""
        if self._verdict:
            await trio.lowlevel.checkpoint()
            raise StreamBroken(self._verdict)
        try:
            await self._outbox.put(message)
        except StreamBroken:
            raise StreamBroken(self._explain()) from None

    async def receive(self) -> bytes:
        """Return the next message; see `MessageStream.receive`.

        A message that is too long, or binary, breaks the stream.
        """
        if self._verdict:
            await trio.lowlevel.checkpoint()
            raise StreamBroken(self._verdict)
        message: str | bytes | None = None
        with contextlib.suppress(ConnectionClosed):
            message = await self._connection.get_message()
            if isinstance(message, str) and len(data := message.encode()) <= self._limits.max_message_size:
                return data
        if isinstance(message, str):
            self._close_code = _MESSAGE_TOO_BIG
            self._verdict = f"the upstream server sent a message longer than {self._limits.max_message_size} bytes"
        elif message is not None:
            self._close_code = _UNSUPPORTED_DATA
            self._verdict = "the upstream server sent a binary message, and MCP messages are text"
        await trio.lowlevel.checkpoint()
        raise StreamBroken(self._explain())

    async def carry(
        self,
        shake: Callable[[trio.Nursery], Awaitable[WebSocketConnection]],
        deadline: float,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Make the connection; then read, write and ping until either side ends it."""
        await trio.lowlevel.checkpoint()
        is_made = False
        self._carrying.deadline = deadline
        try:
            with self._carrying:
                async with trio.open_nursery() as nursery:
                    self._connection = await shake(nursery)
                    is_made = True
                    # To say goodbye takes a reader and a writer, also when the block was
                    # cancelled.  Its end, `part`, limits how long.
                    self._carrying.shield = True
                    self._carrying.deadline = inf
                    task_status.started()
                    nursery.start_soon(self._outbox.run)
                    await self._watch()
                    self._carrying.cancel()
        except* _GARBAGE as group:
            log.debug("a WebSocket broke: %r", group.exceptions)
        finally:
            self._parting.cancel()
        if not is_made:
            raise UpstreamUnavailable(_explain_refusal(self.wire.status, trio.current_time() >= deadline))

    async def _watch(self) -> None:
        """Ping the peer from time to time; return when it is dead."""
        while True:
            await trio.sleep(self._limits.ping_interval)
            try:
                with self.wire.expect_life(self._limits.ping_timeout) as scope:
                    await self._connection.ping()
            except ConnectionClosed:
                # Closing has begun and may wait for a peer that does not read.
                await trio.sleep(CLOSE_TIMEOUT)
                return
            if scope.cancelled_caught:
                self._verdict = f"the upstream server gave no sign of life for {self._limits.ping_timeout:g} s"
                return

    async def _write(self, text: str) -> None:
        try:
            await self._connection.send_message(text)
        except ConnectionClosed:
            raise StreamBroken(self._explain()) from None

    def _explain(self) -> str:
        if self._verdict:
            return self._verdict
        reason = self._connection.closed
        if reason is None or reason.code == _ABNORMAL_CLOSURE:
            return "the connection to the upstream server broke off"
        words = f": {reason.reason[:100]!r}" if reason.reason else ""
        return f"the WebSocket to the upstream server was closed with code {reason.code}{words}"

    async def part(self) -> None:
        """Send what was taken, close the WebSocket and stop carrying.  Takes `CLOSE_TIMEOUT` at most."""
        self._parting.deadline = trio.current_time() + CLOSE_TIMEOUT
        with self._parting:
            await self._outbox.finish()
            await self._connection.aclose(self._close_code)
        self._carrying.cancel()


def _explain_refusal(status: int | None, is_late: bool) -> str:
    match status:
        case None if is_late:
            return "the upstream server did not answer the WebSocket handshake in time; try again later"
        case None:
            return "the upstream server hung up during the WebSocket handshake; check that its url is a WebSocket's"
        case 401 | 403 | 407:
            advice = "check the credentials that go to it"
        case 404 | 405 | 410:
            advice = "check the path of its url"
        case 0 | 101:
            return "the upstream server broke the WebSocket handshake; check that its url is a WebSocket's"
        case _ if 300 <= status < 400:
            advice = "set the url to which it redirects"
        case _ if status in (408, 429) or status >= 500:
            advice = "try again later"
        case _:
            advice = "check that its url is a WebSocket's"
    return f"the upstream server refused the WebSocket handshake with status {status}; {advice}"
