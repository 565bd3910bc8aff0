"""What the relay needs from an upstream, whatever the transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

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
