"""A reverse proxy in one line, or a few."""

from __future__ import annotations

import attrs
import trio

from ..auth import OriginConfig
from ..session import SessionConfig, SessionStore
from ..transport import Upstream
from ..transport.downstream import ListenerConfig
from ..transport.upstream import HttpUpstreamConfig
from ..upstreams import UpstreamConfig, UpstreamSetConfig
from .config import EndpointConfig
from .limits_config import LimitsConfig
from .recovery import RecoveryConfig
from .reverse import ReverseProxyConfig, serve_reverse_proxy


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
        upstream: The MCP server: the URL of its streamable HTTP endpoint, any way to reach it, or several of them.
    """

    def __init__(self, bind: str, upstream: str | UpstreamConfig | UpstreamSetConfig) -> None:
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

    def with_limits(self, limits: LimitsConfig) -> ReverseProxyServerBuilder:
        """Limit how many messages clients send, as *limits* says."""
        self._config = attrs.evolve(self._config, limits=limits)
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
    upstream: str | UpstreamConfig | UpstreamSetConfig,
    store: SessionStore | None = None,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *upstream* at *bind* until cancelled, with sessions in *store* or in memory."""
    builder = ReverseProxyServerBuilder(bind, upstream)
    if store is not None:
        builder.with_session_store(store)
    await builder.build().run(task_status=task_status)
