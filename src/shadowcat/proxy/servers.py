"""The servers behind one proxy: what answers for each, and at which paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from ..errors import ConfigError, PathNotFound
from ..transport import Exchange, MessageStream
from ..upstreams import UpstreamConfig, UpstreamSetConfig, is_name
from .attendance import Attendance
from .drain import Drain
from .endpoint import McpEndpoint
from .http_sse import HttpSseEndpoint
from .legacy import LegacyEndpoint
from .limits import Limits
from .observers import Observers
from .pipe import PipeEndpoint
from .pump import PumpRoom
from .routes import Route, Routes, http_sse_routes, join_routes, mcp_route, socket_route, where
from .rules import ServerRule, choose_server
from .websocket import WebSocketEndpoint

if TYPE_CHECKING:
    from .reverse import ReverseProxyConfig

DEFAULT = "default"
"""What the server is called that has no name."""

Servers = Mapping[str, UpstreamConfig | UpstreamSetConfig]


@attrs.frozen
class Server:
    """What answers for one server."""

    endpoint: McpEndpoint
    serve_pipe: Callable[..., Awaitable[None]]
    socket: WebSocketEndpoint
    http_sse: HttpSseEndpoint | None


class Reception:
    """Knows what answers for which server, and builds the table of paths.

    What answers for a server stays the same for as long as the server has its name.

    Args:
        room: What the legacy sessions of all servers share.
        serve_pipe: Serves clients on WebSockets and over HTTP+SSE, instead of the proxy.
        always: What is served beside the servers, by path.
    """

    def __init__(
        self,
        config: ReverseProxyConfig,
        room: PumpRoom,
        drain: Drain,
        attendance: Attendance,
        limits: Limits,
        observers: Observers,
        serve_pipe: Callable[..., Awaitable[None]] | None,
        always: Mapping[str, Route],
    ) -> None:
        self._config = config
        self._room = room
        self._drain = drain
        self._attendance = attendance
        self._limits = limits
        self._observers = observers
        self._serve_pipe = serve_pipe
        self._always = always
        self._servers: dict[str, Server] = {}
        self.routes = Routes({})
        self.arrange(config)

    def arrange(self, config: ReverseProxyConfig) -> None:
        """Serve the servers of *config* from now on, by its rules; its other settings are not looked at."""
        names = list(config.servers)
        if config.upstream is not None:
            names.append(DEFAULT)
        self._servers = {name: self._servers.get(name) or self._make(name) for name in names}
        self._rules = config.rules
        self._otherwise = None if config.upstream is None else DEFAULT
        self.routes.replace(self._build())

    def _make(self, name: str) -> Server:
        config = self._config
        legacy = LegacyEndpoint(config.endpoint, name, self._room, self._drain, self._attendance)
        upstream = self._room.recovery.upstream_of(name)
        endpoint = McpEndpoint(name, config.endpoint, upstream, legacy, self._drain, self._attendance, self._limits)
        pipes = PipeEndpoint(config.pipes, config.endpoint, endpoint, self._drain, self._limits, self._observers)
        serve = self._serve_pipe or pipes.serve
        http_sse = None
        if config.http_sse is not None:
            own = attrs.evolve(
                config.http_sse,
                sse_path=_below(config.http_sse.sse_path, name),
                messages_path=_below(config.http_sse.messages_path, name),
            )
            http_sse = HttpSseEndpoint(own, config.endpoint, serve)
        return Server(endpoint, serve, WebSocketEndpoint(config.endpoint, serve, self._drain), http_sse)

    def _build(self) -> Routes:
        config = self._config
        tables = [self._always]
        if not self._rules and self._otherwise is not None:
            tables.append(_routes_of(config, DEFAULT, self._servers[DEFAULT]))
        else:
            tables.append(self._bare_routes())
        named = [name for name in self._servers if name != DEFAULT]
        tables += [_routes_of(config, name, self._servers[name]) for name in named]
        return Routes(join_routes(*tables), *self._mcp_paths())

    def _mcp_paths(self) -> Sequence[str]:
        return mcp_paths(self._config.path, list(self._servers), has_bare=bool(self._rules))

    def _bare_routes(self) -> dict[str, Route]:
        """Return what is served where no server is named: the rules decide."""
        config = self._config

        async def post(exchange: Exchange) -> None:
            await self._choose(exchange.headers).endpoint.post(exchange)

        async def get(exchange: Exchange) -> None:
            await self._choose(exchange.headers).endpoint.get(exchange)

        async def delete(exchange: Exchange) -> None:
            await self._choose(exchange.headers).endpoint.delete(exchange)

        async def get_socket(exchange: Exchange) -> None:
            await self._choose(exchange.headers).socket.get(exchange)

        async def get_sse(exchange: Exchange) -> None:
            # It tells its client the server's own path for messages.
            http_sse = self._choose(exchange.headers).http_sse
            assert http_sse is not None
            await http_sse.get(exchange)

        routes = {
            config.path: Route({"POST": post, "GET": get, "DELETE": delete}),
            config.ws_path: Route({"GET": get_socket}, takes_upgrade=True),
        }
        if config.http_sse is not None:
            routes[config.http_sse.sse_path] = Route({"GET": get_sse})
            default = self._servers.get(DEFAULT)
            if default is not None and default.http_sse is not None:
                routes[config.http_sse.messages_path] = Route({"POST": default.http_sse.post})
        return routes

    def _choose(self, headers: Mapping[bytes, bytes]) -> Server:
        name = choose_server(self._rules, headers, self._otherwise)
        if name is None:
            paths = mcp_paths(self._config.path, list(self._servers), has_bare=False)
            raise PathNotFound(f"no server is meant by this request; {where(paths)}")
        return self._servers[name]

    async def serve_pipe(
        self, stream: MessageStream, headers: Mapping[bytes, bytes] = MappingProxyType({}), *, grace: float = 0.0
    ) -> None:
        """Serve a client on *stream*, at the server that *headers* choose; see `PipeEndpoint.serve`."""
        await self._choose(headers).serve_pipe(stream, headers, grace=grace)


def _routes_of(config: ReverseProxyConfig, name: str, server: Server) -> dict[str, Route]:
    routes = {
        _below(config.path, name): mcp_route(server.endpoint),
        _below(config.ws_path, name): socket_route(server.socket),
    }
    return routes if server.http_sse is None else join_routes(routes, http_sse_routes(server.http_sse))


def _below(path: str, name: str) -> str:
    return path if name == DEFAULT else f"{path.rstrip('/')}/{name}"


def mcp_paths(path: str, names: Sequence[str], *, has_bare: bool) -> Sequence[str]:
    """Return where MCP is served if *path* is where it is for a server without a name.

    Args:
        has_bare: Whether something is served at *path* even if no server is without a name.
    """
    bare = [path] if has_bare or DEFAULT in names else []
    return [*bare, *(_below(path, name) for name in names if name != DEFAULT)]


def check_names(servers: Servers, rules: Sequence[ServerRule], *, has_default: bool) -> None:
    """See whether servers and rules go together.

    Raises:
        ConfigError: They do not.
    """
    if not servers and not has_default:
        raise ConfigError("name the MCP server: set upstream, or servers by name")
    for name in servers:
        if not is_name(name):
            raise ConfigError(f"{name!r} cannot be the name of a server; use up to 64 letters, digits and -_.")
        if name == DEFAULT:
            raise ConfigError(f"{DEFAULT!r} is the server without a name; set it as upstream, or choose another name")
    known = [*servers, *([DEFAULT] if has_default else [])]
    for rule in rules:
        if rule.server not in known:
            raise ConfigError(f"a rule names the server {rule.server!r}; choose one of: {', '.join(known)}")


def check_paths(config: ReverseProxyConfig) -> None:
    """See whether each server has paths of its own.

    Raises:
        ConfigError: Two have one.
    """
    bases = [config.path, config.ws_path]
    if config.http_sse is not None:
        bases += [config.http_sse.sse_path, config.http_sse.messages_path]
    paths = ["/health", "/ready", *bases, *(_below(base, name) for base in bases for name in config.servers)]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise ConfigError(f"{twice[0]!r} cannot be the path of two endpoints; choose another for one of them")
