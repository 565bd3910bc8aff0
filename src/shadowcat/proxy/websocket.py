"""The WebSocket endpoint: a client whose messages share one socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from ..errors import UpgradeRequired
from ..transport import Exchange, MessageStream, Upgrade
from .config import EndpointConfig
from .drain import Drain

ServePipe = Callable[[MessageStream, Mapping[bytes, bytes]], Awaitable[None]]
"""Serves one client on a stream; it gets the headers of the handshake, too.

Returns when the stream breaks, and, once the proxy drains, when nothing is under way on the
stream, or those who wait have been told that they will get no answer."""

_NORMAL_CLOSURE = 1000
_GOING_AWAY = 1001


class WebSocketEndpoint:
    """Accepts WebSockets, and leaves what happens on them to *serve_pipe*."""

    def __init__(self, config: EndpointConfig, serve_pipe: ServePipe, drain: Drain) -> None:
        self._config = config
        self._serve_pipe = serve_pipe
        self._drain = drain

    async def get(self, exchange: Exchange) -> None:
        """Serve a client until either side ends it."""
        if not isinstance(exchange, Upgrade):
            raise UpgradeRequired("a WebSocket is served here; open it with a WebSocket client")
        async with exchange.accept(self._config.max_body_size) as stream:
            await self._serve_pipe(stream, exchange.headers)
            if self._drain.is_draining:
                await stream.close(_GOING_AWAY, "the proxy is shutting down")
            else:
                await stream.close(_NORMAL_CLOSURE)
