"""The server behind the proxy: which part reaches which kind."""

import pytest

from shadowcat import HttpUpstream, HttpUpstreamConfig
from shadowcat.errors import ConfigError
from shadowcat.transport import Upstream
from shadowcat.transport.upstream import HttpSseUpstreamConfig, PipeConfig, StdioConfig, WebSocketUpstreamConfig
from shadowcat.upstreams.reach import check_upstream, open_upstream

NO_SPARES = PipeConfig(spares=0)
HTTP = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


async def test_streamable_http_needs_nothing_between():
    async with open_upstream(HTTP, NO_SPARES) as upstream:
        assert isinstance(upstream, HttpUpstream)


@pytest.mark.parametrize(
    "config",
    [
        HttpSseUpstreamConfig(url="http://upstream.invalid/sse"),
        WebSocketUpstreamConfig(url="ws://upstream.invalid/ws"),
        StdioConfig(command=["true"]),
    ],
)
async def test_everything_else_is_shared_by_an_adapter(config):
    """Nothing is opened before somebody asks."""
    async with open_upstream(config, NO_SPARES) as upstream:
        assert isinstance(upstream, Upstream)
        assert not isinstance(upstream, HttpUpstream)


def test_only_commands_are_checked():
    """A server that is reached over a network may come up later."""
    check_upstream(HTTP)
    check_upstream(StdioConfig(command=["true"]))
    with pytest.raises(ConfigError, match="shadowcat-no-such-program"):
        check_upstream(StdioConfig(command=["shadowcat-no-such-program"]))
