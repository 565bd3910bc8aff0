"""The whole proxy between a client and a server of the test's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from ..proxy import ReverseProxyApp, ReverseProxyConfig, UpstreamConfig, open_reverse_proxy_app
from ..session import InMemoryStore, SessionStore
from ..transport import Upstream
from ..transport.upstream import HttpUpstreamConfig, PipeConfig
from .client import ProxyClient
from .upstream import ScriptedUpstream

_NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


@attrs.frozen
class ProxyKit:
    """A client, the proxy, and the server behind it."""

    client: ProxyClient
    upstream: ScriptedUpstream
    app: ReverseProxyApp
    store: SessionStore
    nursery: trio.Nursery
    """For the test's own tasks; cancelled at the end of the block."""

    def new_client(self, address: str = "127.0.0.1") -> ProxyClient:
        """Return another client of the same proxy, without a session."""
        return ProxyClient(self.app, self.nursery, address)


@asynccontextmanager
async def open_proxy_kit(
    config: ReverseProxyConfig | None = None,
    *,
    store: SessionStore | None = None,
    upstreams: Mapping[str, Upstream] | None = None,
) -> AsyncGenerator[ProxyKit, None]:
    """Open the real proxy, joined to a scripted client and server without sockets.

    Nothing in it waits for anything but the two, and for trio's clock: under
    ``autojump_clock`` an hour passes in no time.

    Args:
        config: Its ``upstream`` is not used, unless *upstreams* are given.
        upstreams: What is reached at each URL that *config* names.
    """
    upstream = ScriptedUpstream()

    @asynccontextmanager
    async def open_upstream(server: UpstreamConfig, _children: PipeConfig) -> AsyncGenerator[Upstream, None]:
        assert isinstance(server, HttpUpstreamConfig), "only URLs can be replaced"
        yield (upstreams or {})[server.url]

    store = InMemoryStore() if store is None else store
    config = config or ReverseProxyConfig(upstream=_NOWHERE)
    async with (
        open_reverse_proxy_app(
            config, store=store, upstream=upstream if upstreams is None else None, open_upstream=open_upstream
        ) as app,
        trio.open_nursery() as nursery,
    ):
        yield ProxyKit(ProxyClient(app, nursery), upstream, app, store, nursery)
        nursery.cancel_scope.cancel()
