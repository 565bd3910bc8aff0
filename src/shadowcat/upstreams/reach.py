"""One MCP server, however it is reached."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ..transport import Connector, Upstream
from ..transport.upstream import (
    HttpSseConnector,
    HttpSseUpstreamConfig,
    HttpUpstream,
    HttpUpstreamConfig,
    PipeConfig,
    StdioConfig,
    StdioConnector,
    WebSocketConnector,
    WebSocketUpstreamConfig,
    load_trust,
    open_pipe_upstream,
)

UpstreamConfig = HttpUpstreamConfig | HttpSseUpstreamConfig | WebSocketUpstreamConfig | StdioConfig
"""Streamable HTTP, the older HTTP+SSE, WebSocket, or a command that is run."""

OpenUpstream = Callable[[UpstreamConfig, PipeConfig], AbstractAsyncContextManager[Upstream]]
"""Reaches a server for as long as the block lasts, as `open_upstream` does."""


def check_upstream(config: UpstreamConfig) -> None:
    """See whether a command can be run and certificates be read, before anybody is let in.

    Raises:
        ConfigError: They cannot.
    """
    if isinstance(config, StdioConfig):
        StdioConnector(config).check()
    else:
        load_trust(config.ca_file)


@asynccontextmanager
async def open_upstream(config: UpstreamConfig, children: PipeConfig) -> AsyncGenerator[Upstream, None]:
    """Yield what *config* names for as long as the block lasts; then end what it leads to.

    Args:
        children: How clients share what is no streamable HTTP.
    """
    if isinstance(config, HttpUpstreamConfig):
        own = HttpUpstream(config)
        try:
            yield own
        finally:
            with trio.move_on_after(1, shield=True):
                await own.aclose()
        return
    async with open_pipe_upstream(_connector(config), children) as upstream:
        yield upstream


def _connector(config: HttpSseUpstreamConfig | WebSocketUpstreamConfig | StdioConfig) -> Connector:
    match config:
        case HttpSseUpstreamConfig():
            return HttpSseConnector(config)
        case WebSocketUpstreamConfig():
            return WebSocketConnector(config)
        case StdioConfig():
            return StdioConnector(config)
