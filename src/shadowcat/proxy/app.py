"""The proxy as an ASGI application: checks, routes, and the error boundary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from ..auth import OriginPolicy
from ..errors import HeadersTooLarge, InvalidRequest, PathNotFound
from ..protocol import collect_headers
from ..session import PersistenceStatistics, Session, SessionManager, SessionStatistics, StreamStatistics
from ..transport import Exchange, MessageStream, Receive, Scope, Send, Upgrade
from ..upstreams import UpstreamSet, UpstreamSetStatistics
from .boundary import serve_safely
from .drain import Drain, draining_error
from .limits import Limits, LimitStatistics
from .observers import Observers
from .routes import Route, Routes

_CORS_HEADERS = (
    (
        b"access-control-expose-headers",
        b"mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, ratelimit, ratelimit-policy",
    ),
    (b"vary", b"origin"),
)


PROBES = frozenset({"/health", "/ready"})
"""What supervisors ask, too often to be told of."""

if TYPE_CHECKING:
    from ..session import FailoverStatistics
    from ..telemetry import AuditLog
    from .reverse import ReverseProxyConfig

ServePipe = Callable[..., Awaitable[None]]

Reconfigure = Callable[["ReverseProxyConfig"], Awaitable["ReverseProxyConfig"]]
"""Returns the settings that hold then."""


@attrs.frozen(kw_only=True)
class AppConfig:
    """What is checked before a request is routed."""

    max_header_size: int = attrs.field(default=32 * 1024, validator=attrs.validators.ge(1024))
    """Bytes of all header fields together; more is answered with 431."""

    max_header_count: int = attrs.field(default=128, validator=attrs.validators.ge(8))


@attrs.frozen
class ProxyStatistics:
    """What a proxy has done so far, and what it is doing."""

    under_way: int
    """Calls and listening connections now."""
    listening: int
    """Of those, the connections on which a client merely listens."""
    recoveries: int
    """Upstream sessions that took the place of lost ones."""
    sessions: SessionStatistics
    streams: StreamStatistics
    persistence: PersistenceStatistics | None
    """None until something was to be written behind."""
    fallback: FailoverStatistics | None
    """None if the store has none."""
    upstreams: Mapping[str, UpstreamSetStatistics]
    """The servers by name; the one that has none is called ``default``."""
    limits: Mapping[str, LimitStatistics] = attrs.field(factory=dict)
    """By the name of the limit, as ``per_client`` or ``per_tool.search``."""
    limit_failures: int = 0
    """How often a store that counts for several proxies was asked and did not."""


class ReverseProxyApp:
    """An ASGI application that answers for an MCP server.

    Runs under any ASGI server on trio.  One request's failure, whatever it is,
    stays that request's.
    """

    def __init__(
        self,
        config: AppConfig,
        routes: Routes,
        origins: OriginPolicy,
        drain: Drain,
        statistics: Callable[[], ProxyStatistics],
        serve_pipe: ServePipe | None = None,
        *,
        sessions: SessionManager | None = None,
        upstream_sets: Mapping[str, UpstreamSet] = MappingProxyType({}),
        limits: Limits | None = None,
        reconfigure: Reconfigure | None = None,
        settings: ReverseProxyConfig | None = None,
        observers: Observers | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._reconfigure = reconfigure
        self.limits = limits or Limits()
        """How many messages clients may send; its ``reconfigure`` takes another `LimitsConfig`."""
        self.audit = audit
        """Where what was done to the proxy is to be written down; None if nobody wants that."""
        self.observers = Observers() if observers is None else observers
        """Who is told of each exchange."""
        self._sessions = sessions
        self.upstream_sets = upstream_sets
        """The servers behind the proxy that can be steered, by name."""
        self.settings = settings
        """What the proxy does as it is told; None if nobody said."""
        self._serve_pipe = serve_pipe
        self.statistics = statistics
        """Returns a snapshot of what the proxy has done so far."""
        self._drain = drain
        self._config = config
        self._routes = routes
        self._origins = origins

    @property
    def sessions(self) -> SessionManager:
        """The sessions of the proxy, to be looked at and ended."""
        assert self._sessions is not None, "this app was built without sessions"
        return self._sessions

    async def reconfigure(self, config: ReverseProxyConfig) -> None:
        """Serve the servers of *config* from now on, by its rules and limits, without disturbing anybody.

        Servers that stay what they were keep connections, sessions and what is known of
        them.  Those that are gone get no new sessions, and are closed when no call is under
        way, or after ``drain_timeout``.  Other settings take effect at the next start; the
        log says which.  If this raises or is cancelled, nothing has changed.

        Raises:
            ConfigError: Something in *config* cannot be.
        """
        assert self._reconfigure is not None, "this app was built without a way to reconfigure it"
        self.settings = await self._reconfigure(config)

    async def end_session(self, session: Session) -> None:
        """End a session as its client can: here, in the store, and then upstream.

        Its streams here end at once, those at other proxies of the same store when they
        look next.  Takes a few seconds at most.  Cancel safe: cancelled, it has not ended,
        or the upstream has not been told.

        Raises:
            StoreError: The store cannot be told; streams here have ended, but the session may go on.
        """
        await self.sessions.end(session.id)
        if self.sessions.on_expired is not None:
            await self.sessions.on_expired(session)

    def begin_drain(self) -> None:
        """End the streams on which clients only listen, and refuse new requests with 503.

        For whoever serves the app: call it before stopping the server, which
        would otherwise wait for those streams.  Calls under way are not disturbed.
        """
        self._drain.begin()

    def finish_drain(self) -> None:
        """Tell the callers that still wait for an answer that there will be none."""
        self._drain.finish()

    async def serve_pipe(
        self, stream: MessageStream, headers: Mapping[bytes, bytes] = MappingProxyType({}), *, grace: float = 0.0
    ) -> None:
        """Serve one client on *stream* until either side ends it, or the proxy shuts down.

        Whether the client may connect at all is for the caller to check, and the stream the caller's to close.

        Args:
            headers: Those of the HTTP request that opened the stream, if there was one.
                Credentials among them go upstream if they may.
            grace: Seconds that calls have to finish after the client has sent its last message,
                on streams that still take answers then.

        Cancel safe; its session is ended in any case, which takes a few seconds at most.
        """
        assert self._serve_pipe is not None, "this app was built without a way to serve pipes"
        await self._serve_pipe(stream, headers, grace=grace)

    @property
    def under_way(self) -> int:
        """How many calls and listening streams there are now."""
        return self._drain.under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
            return
        exchange = (Upgrade if scope["type"] == "websocket" else Exchange)(scope, receive, send)
        if self.observers.present and exchange.path not in PROBES:
            client = scope.get("client")
            self.observers.begin(exchange, exchange.path, client[0] if client else None)
        await serve_safely(exchange, lambda: self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        self._check_size(exchange)
        exchange.headers = collect_headers(exchange.raw_headers)
        if exchange.record is not None and exchange.record.client is not None:
            exchange.record.client = self.limits.address_of(exchange.record.client, exchange.headers)
        route = self._routes.find(exchange.path)
        if isinstance(exchange, Upgrade) and not route.takes_upgrade:
            raise PathNotFound("no WebSocket is served here; send plain HTTP requests")
        if route.is_guarded:
            self._origins.check_host(exchange.headers.get(b"host"))
            origin = exchange.headers.get(b"origin")
            self._origins.check_origin(origin)
            if origin is not None:
                exchange.extra_headers = ((b"access-control-allow-origin", origin), *_CORS_HEADERS)
                if exchange.method == "OPTIONS":
                    await _answer_preflight(exchange, route)
                    return
            if self._drain.is_draining:
                raise draining_error()
            if self.limits.is_active and exchange.method != "POST":
                # A POST is counted by what it brings.
                undecided = self.limits.admit(exchange, None)
                if undecided is not None:
                    await undecided
        await route.handler(exchange.method)(exchange)

    def _check_size(self, exchange: Exchange) -> None:
        fields = exchange.raw_headers
        size = 0
        for name, value in fields:
            size += len(name) + len(value)
        if size > self._config.max_header_size or len(fields) > self._config.max_header_count:
            raise HeadersTooLarge(
                f"the headers are larger than {self._config.max_header_size} bytes "
                f"or more than {self._config.max_header_count}; send fewer"
            )


async def _answer_preflight(exchange: Exchange, route: Route) -> None:
    """Let a page of an allowed origin send what it asks to send."""
    wanted = exchange.headers.get(b"access-control-request-headers", b"")
    if len(wanted) > 4096:
        raise InvalidRequest("the preflight asks for too many headers")
    headers = [
        (b"access-control-allow-methods", route.allow.encode()),
        (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", b"7200"),
    ]
    await exchange.respond(204, headers)


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    """Agree to a server's lifespan; the app's own began when it was opened."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
