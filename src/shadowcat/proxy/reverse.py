"""The reverse proxy: what it is made of, and how long each part lives."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from socket import socket
from typing import TYPE_CHECKING

import attrs
import trio

from ..auth import OriginConfig, OriginPolicy
from ..errors import ConfigError
from ..session import (
    SessionConfig,
    SessionStore,
    StorageConfig,
    StorageFactory,
    open_session_manager,
)
from ..telemetry import AccessLogConfig, AuditLogConfig, TracingConfig
from ..transport import Upstream
from ..transport.downstream import ListenerConfig, bind_socket, parse_bind, serve_asgi, start_listening
from ..transport.upstream import HttpUpstreamConfig, PipeConfig
from .app import AppConfig, ProxyStatistics, ReverseProxyApp
from .config import EndpointConfig
from .drain import Drain
from .endpoint import McpEndpoint
from .http_sse import HttpSseConfig, HttpSseEndpoint
from .legacy import LegacyEndpoint
from .logs import audit_sessions, auditing_circuits, open_logs
from .observers import Observers
from .pipe import PipeEndpoint
from .pipe_call import PipeEndpointConfig
from .pump import PumpConfig, PumpRoom
from .recovery import RecoveryConfig, SessionUpstream
from .routes import build_routes
from .upstream import UpstreamConfig, check_upstream, open_upstream
from .websocket import ServePipe, WebSocketEndpoint

if TYPE_CHECKING:
    from ..session import FailoverStatistics

log = logging.getLogger(__name__)

Beside = Callable[[ReverseProxyApp], AbstractAsyncContextManager[None]]
"""Opens what is served about a proxy that has been opened."""

_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")

LAST_WORDS = 0.9
"""The part of the shutdown timeout after which calls are told that they failed."""


def nothing_beside(_app: ReverseProxyApp) -> AbstractAsyncContextManager[None]:
    """Serve nothing about a proxy."""
    return nullcontext()


def _check_path(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _PATH.fullmatch(value) or value in {"/health", "/ready"}:
        kind = "MCP" if attribute.name == "path" else "WebSocket"
        raise ConfigError(f"{value!r} cannot be the {kind} path; choose one like {attribute.default}")


@attrs.frozen(kw_only=True)
class ReverseProxyConfig:
    """A reverse proxy before one MCP server."""

    upstream: UpstreamConfig
    children: PipeConfig = attrs.field(factory=PipeConfig)
    """How clients share a server that is not reached by streamable HTTP: a child process each, for example."""

    listener: ListenerConfig = attrs.field(factory=ListenerConfig)
    path: str = attrs.field(default="/mcp", validator=_check_path)
    """Where clients find the MCP endpoint."""

    ws_path: str = attrs.field(default="/ws", validator=_check_path)
    """Where clients open WebSockets."""

    endpoint: EndpointConfig = attrs.field(factory=EndpointConfig)
    sessions: SessionConfig = attrs.field(factory=SessionConfig)
    streams: PumpConfig = attrs.field(factory=PumpConfig)
    recovery: RecoveryConfig = attrs.field(factory=RecoveryConfig)
    storage: StorageConfig = attrs.field(factory=StorageConfig)
    origin: OriginConfig = attrs.field(factory=OriginConfig)
    http_sse: HttpSseConfig | None = attrs.field(factory=HttpSseConfig)
    """Where clients of the older transport find theirs; None if it is not served."""

    access: AccessLogConfig | None = None
    """Where each exchange is written down; None: nowhere."""

    audit: AuditLogConfig | None = None
    """Where is written down who was let in and what was done to the proxy; None: nowhere."""

    tracing: TracingConfig | None = None
    """Where spans are sent; None: nowhere, and clients' own trace headers pass as they are."""

    app: AppConfig = attrs.field(factory=AppConfig)
    pipes: PipeEndpointConfig = attrs.field(factory=PipeEndpointConfig)
    shutdown_timeout: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """Seconds that calls under way have to finish once shutdown begins."""

    @http_sse.validator
    def _check_paths(self, _: object, value: HttpSseConfig | None) -> None:
        paths = [self.path, self.ws_path, *((value.sse_path, value.messages_path) if value else ())]
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise ConfigError(f"{twice[0]!r} cannot be the path of two endpoints; choose another for one of them")


@asynccontextmanager
async def open_reverse_proxy_app(
    config: ReverseProxyConfig,
    *,
    store: SessionStore | None = None,
    upstream: Upstream | None = None,
    serve_pipe: ServePipe | None = None,
) -> AsyncGenerator[ReverseProxyApp, None]:
    """Yield the proxy as a bare ASGI app, to be served or mounted by the caller.

    The app works for as long as the block lasts; stop serving it before.

    Args:
        store: Where sessions are kept instead of ``config.storage``.  Never closed here.
        upstream: Used instead of ``config.upstream``.  Never closed here.
        serve_pipe: Serves clients on WebSockets and over HTTP+SSE, instead of the proxy.
    """
    drain = Drain()
    observers = Observers()
    async with (
        open_logs(config.access, config.audit, config.tracing, observers) as audit,
        _open_upstream(config, upstream) as upstream,
        _open_store(config.storage, store) as store,
        open_session_manager(config.sessions, store) as sessions,
    ):
        recovery = SessionUpstream(upstream, sessions, config.recovery)
        room = PumpRoom(
            upstream, recovery, sessions, config.streams, trio.CapacityLimiter(config.streams.max_reconnects)
        )
        legacy = LegacyEndpoint(config.endpoint, room, drain)
        endpoint = McpEndpoint(config.endpoint, upstream, legacy, drain)
        sessions.on_expired = legacy.end_upstream
        if audit is not None:
            audit_sessions(audit, sessions.journal)
        serve = serve_pipe or PipeEndpoint(config.pipes, config.endpoint, endpoint, drain, observers).serve
        http_sse = None if config.http_sse is None else HttpSseEndpoint(config.http_sse, config.endpoint, serve)
        sockets = {config.ws_path: WebSocketEndpoint(config.endpoint, serve, drain)}
        routes = build_routes(config.path, endpoint, drain, partial(_degraded, store), http_sse, sockets)
        host, _ = parse_bind(config.listener.bind)

        def statistics() -> ProxyStatistics:
            return ProxyStatistics(
                drain.under_way,
                drain.listening,
                recovery.recoveries,
                sessions.journal.statistics(),
                sessions.streams.statistics(),
                sessions.persistence_statistics(),
                _fallback(store),
            )

        app = ReverseProxyApp(
            config.app,
            routes,
            OriginPolicy(config.origin, host),
            drain,
            statistics,
            serve,
            sessions=sessions,
            upstreams={endpoint.name: upstream},
            observers=observers,
            audit=audit,
        )
        async with auditing_circuits(audit, lambda: app.upstream_sets):
            yield app


@asynccontextmanager
async def _open_store(config: StorageConfig, injected: SessionStore | None) -> AsyncGenerator[SessionStore, None]:
    if injected is not None:
        yield injected
        return
    async with StorageFactory.open(config) as own:
        yield own


def _fallback(store: SessionStore) -> FailoverStatistics | None:
    """Return how the fallback of *store* is doing, if it has one."""
    # Imported here, because a proxy need not have it to start.
    from ..session import FailoverStore

    return store.statistics() if isinstance(store, FailoverStore) else None


def _degraded(store: SessionStore) -> FailoverStatistics | None:
    statistics = _fallback(store)
    return statistics if statistics is not None and statistics.is_degraded else None


@asynccontextmanager
async def _open_upstream(config: ReverseProxyConfig, injected: Upstream | None) -> AsyncGenerator[Upstream, None]:
    if injected is not None:
        yield injected
        return
    async with open_upstream(config.upstream, config.children) as own:
        yield own


async def serve_reverse_proxy(
    config: ReverseProxyConfig,
    *,
    store: SessionStore | None = None,
    upstream: Upstream | None = None,
    sock: socket | None = None,
    shutdown: trio.Event | None = None,
    retire: trio.Event | None = None,
    beside: Beside = nothing_beside,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until *shutdown* is set and what is under way has ended.

    Passes the URLs of the MCP endpoint to ``task_status``, once they work.  After
    *shutdown* nothing new is accepted, listening streams end, and calls have
    ``config.shutdown_timeout`` seconds.  Cancel to stop at once instead.

    Args:
        store: Where sessions are kept instead of ``config.storage``.  Never closed here.
        upstream: Used instead of ``config.upstream``.  Never closed here.
        sock: Bound already, and listened on instead of ``config.listener.bind``; closed at the end.
        retire: Set some time before *shutdown* where another process listens on the same *sock*:
            stops listening only, and closes each connection after its next answer.
        beside: Opened with the app before anybody is let in, and closed when nobody is left:
            what else is served about the proxy.

    Raises:
        ConfigError: The address cannot be bound, or ``config.upstream`` is a command that cannot be run.
    """
    if upstream is None:
        check_upstream(config.upstream)
    stop = trio.Event() if shutdown is None else shutdown
    # Before anything else, so that its error comes alone.
    with sock or bind_socket(config.listener) as sock:
        async with open_reverse_proxy_app(config, store=store, upstream=upstream) as app, beside(app):
            await _serve_on(sock, config, app, stop, retire, task_status)


async def _serve_on(
    sock: socket,
    config: ReverseProxyConfig,
    app: ReverseProxyApp,
    stop: trio.Event,
    retire: trio.Event | None,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_asgi(
                app,
                sock,
                config.listener,
                shutdown=stop,
                retire=retire,
                graceful_timeout=config.shutdown_timeout,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        # Not before the store is open: nobody is let in who cannot be served.
        start_listening(sock, config.listener)
        nursery.start_soon(drain_at, stop, app, config.shutdown_timeout)
        urls = await nursery.start(serve)
        task_status.started([url + config.path for url in urls])


async def drain_at(shutdown: trio.Event, app: ReverseProxyApp, timeout: float) -> None:  # noqa: ASYNC109
    """Wait for *shutdown*, then end what *app* has under way within *timeout* seconds.  Cancel safe."""
    await shutdown.wait()
    log.info("shutting down: %d requests are under way, and have %g s", app.under_way, timeout)
    app.begin_drain()
    await trio.sleep(timeout * LAST_WORDS)
    app.finish_drain()


class ReverseProxyServer:
    """A reverse proxy that is configured and not yet running.

    Give `run` to ``nursery.start``.
    """

    def __init__(
        self, config: ReverseProxyConfig, store: SessionStore | None = None, upstream: Upstream | None = None
    ) -> None:
        self.config = config
        self._store = store
        self._upstream = upstream
        self._shutdown = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `shutdown` is called; see `serve_reverse_proxy`.  Once only."""
        await serve_reverse_proxy(
            self.config,
            store=self._store,
            upstream=self._upstream,
            shutdown=self._shutdown,
            task_status=task_status,
        )

    def shutdown(self) -> None:
        """Begin to shut down gracefully, or do so as soon as it runs."""
        self._shutdown.set()


class ReverseProxyServerBuilder:
    """Collects what a `ReverseProxyServer` needs.

    Args:
        bind: ``HOST:PORT`` to listen on; port 0 takes a free one.
        upstream: The MCP server: the URL of its streamable HTTP endpoint, or any way to reach it.
    """

    def __init__(self, bind: str, upstream: str | UpstreamConfig) -> None:
        reached = HttpUpstreamConfig(url=upstream) if isinstance(upstream, str) else upstream
        self._config = ReverseProxyConfig(listener=ListenerConfig(bind=bind), upstream=reached)
        self._store: SessionStore | None = None
        self._upstream: Upstream | None = None

    def with_session_store(self, store: SessionStore) -> ReverseProxyServerBuilder:
        """Keep sessions in *store* instead of memory; it stays the caller's to close."""
        self._store = store
        return self

    def with_upstream(self, upstream: Upstream) -> ReverseProxyServerBuilder:
        """Reach the server through *upstream*; it stays the caller's to close."""
        self._upstream = upstream
        return self

    def with_endpoint(self, endpoint: EndpointConfig) -> ReverseProxyServerBuilder:
        """Treat requests as *endpoint* says."""
        self._config = attrs.evolve(self._config, endpoint=endpoint)
        return self

    def with_sessions(self, sessions: SessionConfig) -> ReverseProxyServerBuilder:
        """Limit sessions as *sessions* says."""
        self._config = attrs.evolve(self._config, sessions=sessions)
        return self

    def with_recovery(self, recovery: RecoveryConfig) -> ReverseProxyServerBuilder:
        """Treat sessions that the upstream has lost as *recovery* says."""
        self._config = attrs.evolve(self._config, recovery=recovery)
        return self

    def with_origin(self, origin: OriginConfig) -> ReverseProxyServerBuilder:
        """Let in the hosts and web pages that *origin* names."""
        self._config = attrs.evolve(self._config, origin=origin)
        return self

    def with_shutdown_timeout(self, seconds: float) -> ReverseProxyServerBuilder:
        """Give calls under way *seconds* to finish once shutdown begins."""
        self._config = attrs.evolve(self._config, shutdown_timeout=seconds)
        return self

    def build(self) -> ReverseProxyServer:
        """Return the server.  Starts nothing."""
        return ReverseProxyServer(self._config, self._store, self._upstream)


async def run_reverse_proxy(
    bind: str,
    upstream: str | UpstreamConfig,
    store: SessionStore | None = None,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *upstream* at *bind* until cancelled, with sessions in *store* or in memory."""
    builder = ReverseProxyServerBuilder(bind, upstream)
    if store is not None:
        builder.with_session_store(store)
    await builder.build().run(task_status=task_status)
