"""A proxy in one line, or a few, on real sockets."""

from functools import partial

import pytest
import trio

from shadowcat import (
    HttpUpstreamConfig,
    InMemoryStore,
    OriginConfig,
    ReverseProxyServerBuilder,
    SessionConfig,
    run_reverse_proxy,
)
from shadowcat.testing import ScriptedUpstream, request

from .wire import open_wires

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


@pytest.fixture
async def connect():
    async with open_wires() as connect:
        yield connect


async def test_builder_uses_the_store_it_is_given(nursery, connect):
    """An injected store sees the sessions, and is left as it is."""
    store, upstream = InMemoryStore(), ScriptedUpstream()
    server = (
        ReverseProxyServerBuilder("127.0.0.1:0", UPSTREAM.url)
        .with_session_store(store)
        .with_upstream(upstream)
        .with_sessions(SessionConfig(max_sessions=2))
        .with_origin(OriginConfig(allowed_hosts=["proxy.example"]))
        .with_shutdown_timeout(1)
        .build()
    )
    with trio.fail_after(5):
        (url,) = await nursery.start(server.run)
        wire = await connect(url)
        await wire.open_session(upstream)
        assert await store.count_sessions() == 1
        server.shutdown()
        with pytest.raises(EOFError):
            await wire.read_until(b"never")
    assert await store.count_sessions() == 1


async def test_run_reverse_proxy_serves_until_cancelled(nursery, connect):
    """The one-line way in."""
    with trio.fail_after(5):
        (url,) = await nursery.start(
            partial(run_reverse_proxy, "127.0.0.1:0", "http://127.0.0.1:1/mcp", InMemoryStore())
        )
        wire = await connect(url)
        await wire.send("POST", request(1, "initialize"))
        status, _, body = await wire.answer()
        assert status == 502
        assert "127.0.0.1" not in body.decode()
        nursery.cancel_scope.cancel()
