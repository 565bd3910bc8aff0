"""The forward proxy: one client on a pipe, before one MCP server."""

from __future__ import annotations

import attrs
import trio

from ..session import SessionConfig
from ..transport import MessageStream, Upstream
from ..transport.upstream import PipeConfig
from ..upstreams import UpstreamConfig, check_servers
from .config import EndpointConfig
from .limits_config import LimitsConfig
from .pipe_call import PipeEndpointConfig
from .pump import PumpConfig
from .recovery import RecoveryConfig
from .reverse import LAST_WORDS, ReverseProxyConfig, drain_at, open_reverse_proxy_app


@attrs.frozen(kw_only=True)
class ForwardProxyConfig:
    """A proxy for one client, before one MCP server.  Its sessions live in memory."""

    upstream: UpstreamConfig
    children: PipeConfig = attrs.field(factory=lambda: PipeConfig(spares=0))
    """How a server is shared that is not reached by streamable HTTP."""

    endpoint: EndpointConfig = attrs.field(factory=EndpointConfig)
    sessions: SessionConfig = attrs.field(factory=SessionConfig)
    streams: PumpConfig = attrs.field(factory=PumpConfig)
    recovery: RecoveryConfig = attrs.field(factory=RecoveryConfig)
    limits: LimitsConfig = attrs.field(factory=LimitsConfig)
    """How many messages the client may send; it has no address to be counted by."""

    pipes: PipeEndpointConfig = attrs.field(factory=PipeEndpointConfig)
    shutdown_timeout: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """Seconds that calls under way have to finish once the client has said its last, or shutdown begins."""

    def as_reverse(self) -> ReverseProxyConfig:
        """Return the reverse proxy that this is one client of."""
        return ReverseProxyConfig(
            upstream=self.upstream,
            children=self.children,
            endpoint=self.endpoint,
            sessions=self.sessions,
            streams=self.streams,
            recovery=self.recovery,
            limits=self.limits,
            pipes=self.pipes,
            shutdown_timeout=self.shutdown_timeout,
        )


async def serve_forward_proxy(
    config: ForwardProxyConfig,
    stream: MessageStream,
    *,
    upstream: Upstream | None = None,
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the client on *stream* until it has left, or *shutdown* is set and its calls have ended.

    After either, calls have ``config.shutdown_timeout`` seconds.  Cancel to stop at once instead.

    Args:
        stream: What `shadowcat.transport.downstream.open_stdio` yields, or any other; it stays the caller's to close.
        upstream: Used instead of ``config.upstream``.  Never closed here.

    Raises:
        ConfigError: ``config.upstream`` is a command that cannot be run.
    """
    if upstream is None:
        check_servers(config.upstream)
    stop = trio.Event() if shutdown is None else shutdown
    async with (
        open_reverse_proxy_app(config.as_reverse(), upstream=upstream) as app,
        trio.open_nursery() as nursery,
    ):

        async def stop_at() -> None:
            await drain_at(stop, app, config.shutdown_timeout)
            await trio.sleep(config.shutdown_timeout * (1 - LAST_WORDS))
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop_at)
        task_status.started()
        await app.serve_pipe(stream, grace=config.shutdown_timeout)
        nursery.cancel_scope.cancel()
