"""Path and method to handler."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from ..errors import ConfigError, MethodNotAllowed, PathNotFound
from ..session import FailoverStatistics
from ..transport import Exchange
from .drain import Drain
from .endpoint import McpEndpoint
from .http_sse import HttpSseEndpoint
from .websocket import WebSocketEndpoint

Handler = Callable[[Exchange], Awaitable[None]]

_MAX_NAMED = 20
"""Paths that are named to who asks for another."""


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

    def __init__(self, routes: Mapping[str, Route], *mcp_paths: str) -> None:
        self._routes = routes
        self._mcp_paths = mcp_paths

    def replace(self, other: Routes) -> None:
        """Serve what *other* does from now on."""
        self._routes, self._mcp_paths = other._routes, other._mcp_paths

    def find(self, path: str) -> Route:
        """Return the route at *path*.

        Raises:
            PathNotFound: There is none.
        """
        try:
            return self._routes[path]
        except KeyError:
            raise PathNotFound(f"nothing is served here; {where(self._mcp_paths)}") from None


def where(mcp_paths: Sequence[str]) -> str:
    """Return a clause that tells where MCP is served."""
    if len(mcp_paths) == 1:
        return f"the MCP endpoint is {mcp_paths[0]}"
    more = "" if len(mcp_paths) <= _MAX_NAMED else " and others"
    return f"the MCP endpoints are {', '.join(mcp_paths[:_MAX_NAMED])}{more}"


def supervisor_routes(
    drain: Drain, fallback: Callable[[], FailoverStatistics | None] = lambda: None
) -> dict[str, Route]:
    """Return what a supervisor asks, by path.

    Args:
        drain: Tells whether the proxy is shutting down.
        fallback: Returns how the fallback of the session store is doing; None while it is not in use.
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

    return {
        "/health": Route({"GET": health, "HEAD": health}, is_guarded=False),
        "/ready": Route({"GET": ready, "HEAD": ready}, is_guarded=False),
    }


def mcp_route(endpoint: McpEndpoint) -> Route:
    """Return what is served at the path of an MCP endpoint."""
    return Route({"POST": endpoint.post, "GET": endpoint.get, "DELETE": endpoint.delete})


def socket_route(endpoint: WebSocketEndpoint) -> Route:
    """Return what is served at the path of a WebSocket endpoint."""
    return Route({"GET": endpoint.get}, takes_upgrade=True)


def join_routes(*tables: Mapping[str, Route]) -> dict[str, Route]:
    """Return all of *tables* as one.

    Raises:
        ConfigError: Two of them have one path.
    """
    joined: dict[str, Route] = {}
    for table in tables:
        if twice := joined.keys() & table.keys():
            raise ConfigError(f"{min(twice)} is served already; choose another path for one of the two")
        joined |= table
    return joined


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
