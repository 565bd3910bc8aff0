"""Path and method to handler."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

import attrs

from ..errors import ConfigError, MethodNotAllowed, PathNotFound
from ..session import FailoverStatistics
from ..transport import Exchange
from .drain import Drain
from .endpoint import McpEndpoint
from .http_sse import HttpSseEndpoint
from .websocket import WebSocketEndpoint

Handler = Callable[[Exchange], Awaitable[None]]


@attrs.frozen
class Route:
    """What is served at one path."""

    handlers: Mapping[str, Handler]
    is_guarded: bool = True
    """Whether Origin and Host are checked, and nothing is served while draining."""
    takes_upgrade: bool = False
    """Whether its ``GET`` may be the handshake of a WebSocket."""

    @property
    def allow(self) -> str:
        """The methods, as the ``Allow`` header has them."""
        return ", ".join(self.handlers)

    def handler(self, method: str) -> Handler:
        """Return what answers *method*.

        Raises:
            MethodNotAllowed: Nothing does.
        """
        try:
            return self.handlers[method]
        except KeyError:
            raise MethodNotAllowed(f"this path answers {self.allow} only", self.allow) from None


class Routes:
    """The paths that are served."""

    def __init__(self, routes: Mapping[str, Route], mcp_path: str) -> None:
        self._routes = routes
        self._mcp_path = mcp_path

    def find(self, path: str) -> Route:
        """Return the route at *path*.

        Raises:
            PathNotFound: There is none.
        """
        try:
            return self._routes[path]
        except KeyError:
            raise PathNotFound(f"nothing is served here; the MCP endpoint is {self._mcp_path}") from None


def build_routes(
    mcp_path: str,
    endpoint: McpEndpoint,
    drain: Drain,
    fallback: Callable[[], FailoverStatistics | None] = lambda: None,
    http_sse: HttpSseEndpoint | None = None,
    sockets: Mapping[str, WebSocketEndpoint] | None = None,
) -> Routes:
    """Return the table: the MCP endpoint, the two of HTTP+SSE, and what a supervisor asks.

    Args:
        mcp_path: Where *endpoint* is.
        endpoint: What clients talk to.
        drain: Tells whether the proxy is shutting down.
        fallback: Returns how the fallback of the session store is doing; None while it is not in use.
        http_sse: What clients of the older transport talk to, if it is served.
        sockets: WebSocket endpoints, by path.

    Raises:
        ConfigError: Two of them have one path.
    """

    async def health(exchange: Exchange) -> None:
        await exchange.respond(200, _JSON, b'{"status":"ok"}')

    async def ready(exchange: Exchange) -> None:
        if drain.is_draining:
            await exchange.respond(503, _JSON, b'{"status":"draining"}')
        elif (statistics := fallback()) is not None:
            await exchange.respond(200, _JSON, _degraded(statistics))
        else:
            await exchange.respond(200, _JSON, b'{"status":"ready"}')

    routes = {path: Route({"GET": socket.get}, takes_upgrade=True) for path, socket in (sockets or {}).items()}
    routes |= {
        mcp_path: Route({"POST": endpoint.post, "GET": endpoint.get, "DELETE": endpoint.delete}),
        "/health": Route({"GET": health, "HEAD": health}, is_guarded=False),
        "/ready": Route({"GET": ready, "HEAD": ready}, is_guarded=False),
    }
    if http_sse is not None:
        for path, route in http_sse_routes(http_sse).items():
            if path in routes:
                raise ConfigError(f"{path} is served already; choose another path for HTTP+SSE")
            routes[path] = route
    return Routes(routes, mcp_path)


def http_sse_routes(endpoint: HttpSseEndpoint) -> dict[str, Route]:
    """Return what is served over HTTP+SSE, by path."""
    return {
        endpoint.config.sse_path: Route({"GET": endpoint.get}),
        endpoint.config.messages_path: Route({"POST": endpoint.post}),
    }


_JSON = ((b"content-type", b"application/json"),)


def _degraded(statistics: FailoverStatistics) -> bytes:
    counts = {name: getattr(statistics, name) for name in ("fallbacks", "failures", "pending", "conflicts")}
    return json.dumps({"status": "degraded", "store": counts}, separators=(",", ":")).encode()
