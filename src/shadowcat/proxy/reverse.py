"""The reverse proxy: what it is made of, and how long each part lives."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from socket import socket
from typing import TYPE_CHECKING

import attrs
import trio

from ..auth import OriginConfig, OriginPolicy
from ..errors import ConfigError
from ..session import SessionConfig, SessionStore, StorageConfig, StorageFactory, open_session_manager
from ..telemetry import AccessLogConfig, AuditLogConfig, TracingConfig
from ..transport import Upstream
from ..transport.downstream import ListenerConfig, ServerTls, bind_socket, parse_bind, serve_asgi, start_listening
from ..transport.upstream import PipeConfig
from ..upstreams import (
    OpenUpstream,
    UpstreamConfig,
    UpstreamSetConfig,
    check_servers,
    open_upstream,
    open_upstream_sets,
)
from .app import AppConfig, ProxyStatistics, ReverseProxyApp
from .attendance import open_attendance
from .config import EndpointConfig
from .drain import Drain
from .http_sse import HttpSseConfig
from .limits import Limits
from .limits_config import LimitsConfig
from .logs import audit_sessions, auditing_circuits, open_logs
from .observers import Observers
from .pipe_call import PipeEndpointConfig
from .pump import PumpConfig, PumpRoom
from .reconfiguration import Reconfiguration
from .recovery import RecoveryConfig, SessionUpstream
from .routes import supervisor_routes
from .rules import ServerRule
from .servers import DEFAULT, Reception, check_names, check_paths, mcp_paths
from .websocket import ServePipe

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


def _as_mapping(
    servers: Mapping[str, UpstreamConfig | UpstreamSetConfig],
) -> Mapping[str, UpstreamConfig | UpstreamSetConfig]:
    return dict(servers)


def _check_path(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not _PATH.fullmatch(value) or value in {"/health", "/ready"}:
        kind = "MCP" if attribute.name == "path" else "WebSocket"
        raise ConfigError(f"{value!r} cannot be the {kind} path; choose one like {attribute.default}")


@attrs.frozen(kw_only=True)
class ReverseProxyConfig:
    """A reverse proxy before one MCP server, or several."""

    upstream: UpstreamConfig | UpstreamSetConfig | None = None
    """What is served where no server is named; None if there are ``servers``."""

    servers: Mapping[str, UpstreamConfig | UpstreamSetConfig] = attrs.field(factory=dict, converter=_as_mapping)
    """More servers, by name: each at ``path/NAME``, ``ws_path/NAME`` and so on."""

    rules: tuple[ServerRule, ...] = attrs.field(default=(), converter=tuple)
    """Which server a request means that names none; the first that matches, or else ``upstream``."""

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

    limits: LimitsConfig = attrs.field(factory=LimitsConfig)
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

    def __attrs_post_init__(self) -> None:
        check_names(self.servers, self.rules, has_default=self.upstream is not None)
        check_paths(self)

    @property
    def upstreams(self) -> Mapping[str, UpstreamConfig | UpstreamSetConfig]:
        """All servers by name; the one that has none is called ``default``."""
        return self.servers if self.upstream is None else {DEFAULT: self.upstream, **self.servers}

    @property
    def mcp_paths(self) -> Sequence[str]:
        """Where clients find MCP endpoints; the one without a name first, if there is one."""
        return mcp_paths(self.path, list(self.upstreams), has_bare=bool(self.rules))


@asynccontextmanager
async def open_reverse_proxy_app(
    config: ReverseProxyConfig,
    *,
    store: SessionStore | None = None,
    upstream: Upstream | None = None,
    serve_pipe: ServePipe | None = None,
    open_upstream: OpenUpstream = open_upstream,
) -> AsyncGenerator[ReverseProxyApp, None]:
    """Yield the proxy as a bare ASGI app, to be served or mounted by the caller.

    The app works for as long as the block lasts; stop serving it before.

    Args:
        store: Where sessions are kept instead of ``config.storage``.  Never closed here.
        upstream: Used instead of ``config.upstream``.  Never closed here.
        serve_pipe: Serves clients on WebSockets and over HTTP+SSE, instead of the proxy.
        open_upstream: How each server is reached, instead of over the network.

    Raises:
        ConfigError: A command cannot be run, or certificates not be read.
    """
    drain = Drain()
    fixed = {} if upstream is None else {DEFAULT: upstream}
    observers = Observers()
    async with (
        open_logs(config.access, config.audit, config.tracing, observers) as audit,
        _open_store(config.storage, store) as store,
        open_upstream_sets(config.upstreams, config.children, fixed=fixed, open_one=open_upstream) as upstreams,
        open_session_manager(config.sessions, store) as sessions,
        open_attendance(config.endpoint.heartbeat_interval) as attendance,
    ):
        recovery = SessionUpstream(upstreams.sets, sessions, config.recovery)
        room = PumpRoom(recovery, sessions, config.streams, trio.CapacityLimiter(config.streams.max_reconnects))
        always = supervisor_routes(drain, partial(_degraded, store))
        limits = Limits(config.limits, store.rates)
        reception = Reception(config, room, drain, attendance, limits, observers, serve_pipe, always)
        sessions.on_expired = recovery.end_upstream_of
        if audit is not None:
            audit_sessions(audit, sessions.journal)
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
                {name: found.statistics() for name, found in upstreams.sets.items()},
                limits.statistics(),
                limits.failures,
            )

        app = ReverseProxyApp(
            config.app,
            reception.routes,
            OriginPolicy(config.origin, host),
            drain,
            statistics,
            reception.serve_pipe,
            sessions=sessions,
            upstream_sets=upstreams.sets,
            limits=limits,
            reconfigure=Reconfiguration(config, upstreams, reception, limits).apply,
            settings=config,
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


async def serve_reverse_proxy(
    config: ReverseProxyConfig,
    *,
    store: SessionStore | None = None,
    upstream: Upstream | None = None,
    sock: socket | None = None,
    shutdown: trio.Event | None = None,
    retire: trio.Event | None = None,
    beside: Beside = nothing_beside,
    tls: ServerTls | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until *shutdown* is set and what is under way has ended.

    Passes the URLs of the MCP endpoints to ``task_status``, once they work.  After
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
        tls: Used in place of ``config.listener.tls``, for a certificate that can be changed.

    Raises:
        ConfigError: The address cannot be bound, a server is a command that cannot be run, or the
            files of ``config.listener.tls`` cannot be used.
    """
    for name, server in config.upstreams.items():
        if upstream is None or name != DEFAULT:
            check_servers(server)
    if tls is None and config.listener.tls is not None:
        tls = ServerTls(config.listener.tls)
    stop = trio.Event() if shutdown is None else shutdown
    # Before anything else, so that its error comes alone.
    with sock or bind_socket(config.listener) as sock:
        async with open_reverse_proxy_app(config, store=store, upstream=upstream) as app, beside(app):
            await _serve_on(sock, config, app, stop, retire, tls, task_status)


async def _serve_on(
    sock: socket,
    config: ReverseProxyConfig,
    app: ReverseProxyApp,
    stop: trio.Event,
    retire: trio.Event | None,
    tls: ServerTls | None,
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
                tls=tls,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        # Not before the store is open: nobody is let in who cannot be served.
        start_listening(sock, config.listener)
        nursery.start_soon(drain_at, stop, app, config.shutdown_timeout)
        urls = await nursery.start(serve)
        task_status.started([url + path for url in urls for path in config.mcp_paths])


async def drain_at(shutdown: trio.Event, app: ReverseProxyApp, timeout: float) -> None:  # noqa: ASYNC109
    """Wait for *shutdown*, then end what *app* has under way within *timeout* seconds.  Cancel safe."""
    await shutdown.wait()
    log.info("shutting down: %d requests are under way, and have %g s", app.under_way, timeout)
    app.begin_drain()
    await trio.sleep(timeout * LAST_WORDS)
    app.finish_drain()
