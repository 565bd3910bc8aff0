"""What the proxy needs from its two sides, whatever the transport.

The relay knows requests and answers: an `Upstream`.  Transports on which requests
share a pipe are a `MessageStream`, and upstream a `Connector` of them; what makes
requests and answers of the messages on one is the same for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs

from ..protocol import ResponseMode

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


@attrs.frozen
class UpstreamRequest:
    """One HTTP request to send, complete."""

    method: str
    headers: RawHeaders
    body: bytes = b""
    on_sent: Callable[[], None] | None = attrs.field(default=None, eq=False, repr=False)
    """Called when all of it is on its way to the server, by upstreams that know that before the answer begins."""

    is_call: bool = True
    """Whether its answer ends some time and somebody waits for it; not so what only listens, or tells.

    What may be under way at once is counted by it."""


@attrs.define(eq=False)
class UpstreamResponse:
    """The answer to one `UpstreamRequest`, its body still unread.

    The body can be iterated once.  Whoever holds the response must call
    `aclose`, also when cancelled; the bytes left unread are then given up.
    """

    status: int
    headers: RawHeaders
    body: AsyncIterator[bytes]
    """Chunks as they arrive, none of them empty.  Reads from the upstream only
    when asked, so a slow reader slows the upstream down.

    Raises `UpstreamDisconnected` when the upstream breaks off, `UpstreamTimeout`
    when it stalls, and `RemoteProtocolError` when it breaks HTTP."""

    close: Callable[[], Awaitable[None]]
    mode: ResponseMode = attrs.field(init=False)

    @mode.default
    def _parse_mode(self) -> ResponseMode:
        if self.header(b"content-encoding") not in (None, b"identity"):
            return ResponseMode.PASSTHROUGH
        content_type = self.header(b"content-type")
        return ResponseMode.from_content_type((content_type or b"").decode("latin-1"))

    def header(self, name: bytes) -> bytes | None:
        """Return the first field called *name* (lower case), if there is one."""
        for field, value in self.headers:
            if field == name:
                return value
        return None

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end.

        Never blocks on the network and may be called more than once.
        """
        await self.close()


class Upstream(ABC):
    """An MCP server, as the relay sees it.

    Many requests may be under way at once; an open stream never delays a call.
    """

    @abstractmethod
    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send *request* once and return when the head of its answer is here.

        A checkpoint.  If cancelled, the request may or may not have reached the
        upstream; the connection is closed, which tells the upstream that nobody
        waits any more.  It is never sent a second time.

        Raises:
            UpstreamUnavailable: Nothing was sent; sending again is safe.
            UpstreamDisconnected: It may have been acted upon.
            UpstreamTimeout: No answer within the time allowed.
            RemoteProtocolError: The answer breaks HTTP.
        """

    async def aclose(self) -> None:
        """Close idle connections.  A checkpoint; safe to call twice."""


class MessageStream(ABC):
    """JSON-RPC messages, both ways, on one pipe: a child's standard streams, a WebSocket, HTTP+SSE.

    A message is the text of one JSON value.  The stream does not read it.
    """

    peer: str | None = None
    """The address of the other side, if it has one."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send one message, after any other that is being sent.

        A checkpoint.  Waits while the other side does not read.  Cancel safe: the
        message may or may not have been sent, and those after it are whole.

        Raises:
            StreamBroken: The other side is gone, or the stream was broken before.
            UpstreamError: Where each message is a request of its own: this one was not
                accepted, or nobody knows.  The stream goes on.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Return the next message.  For one task at a time; cancel safe: nothing is lost.

        Raises:
            StreamBroken: There will be no other; its text says why.
            MessageTooLong: One was longer than allowed and has been dropped; go on.
        """


class Connector(ABC):
    """Opens message streams to one MCP server."""

    takes_headers: bool = False
    """Whether a stream depends on the headers of the request that asks for it.

    Where it does not, streams may be opened before anybody asks."""

    @abstractmethod
    def open(self, headers: RawHeaders) -> AbstractAsyncContextManager[MessageStream]:
        """Open a stream for as long as the block lasts; then end what it leads to.

        Args:
            headers: Those of a client that go upstream, credentials only if they may.

        Cancel safe.  Leaving the block takes a few seconds at most, also when
        cancelled, and leaves nothing behind: no process, no connection.

        Raises:
            UpstreamUnavailable: None can be opened.
        """
