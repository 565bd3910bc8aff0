"""The forward proxy: one client on a stream, from its first message to the end."""

from functools import partial

import pytest
import trio

from shadowcat import EndpointConfig, ForwardProxyConfig, HttpUpstreamConfig, serve_forward_proxy
from shadowcat.errors import ConfigError
from shadowcat.testing import ScriptedUpstream, modern_request, result
from shadowcat.transport.upstream import StdioConfig
from tests.proxy.piping import PipePeer, initialize

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


class Forward:
    """A forward proxy that runs, its client and its server."""

    def __init__(self, nursery, **settings):
        self.config = ForwardProxyConfig(upstream=UPSTREAM, **settings)
        self.peer = PipePeer(1000)
        self.upstream = ScriptedUpstream()
        self.shutdown, self.ended = trio.Event(), trio.Event()
        self.nursery = nursery

    async def start(self):
        async def serve(*, task_status):
            await serve_forward_proxy(
                self.config,
                self.peer.stream,
                upstream=self.upstream,
                shutdown=self.shutdown,
                task_status=task_status,
            )
            self.ended.set()

        await self.nursery.start(serve)
        return self

    async def call(self, message):
        await self.peer.send(message)
        return await self.upstream.next_call()


async def test_client_is_served_until_it_leaves(autojump_clock, nursery):
    """Its session ends with it."""
    forward = await Forward(nursery).start()
    await forward.peer.send(initialize())
    await forward.upstream.answer_initialize()
    assert (await forward.peer.receive())["id"] == 0
    forward.peer.sender.close()
    ended = await forward.upstream.next_call()
    assert ended.request.method == "DELETE"
    ended.respond(200)
    with trio.fail_after(1):
        await forward.ended.wait()


@pytest.mark.parametrize("by", ["the end of input", "shutdown"])
async def test_calls_have_time_to_finish(autojump_clock, nursery, by):
    """And it ends as soon as they have."""
    forward = await Forward(nursery, shutdown_timeout=10.0).start()
    call = await forward.call(modern_request(1, "slow"))
    forward.shutdown.set() if by == "shutdown" else forward.peer.sender.close()
    await trio.sleep(8)
    call.answer(result(1))
    assert await forward.peer.receive() == result(1)
    with trio.fail_after(1):
        await forward.ended.wait()


@pytest.mark.parametrize("by", ["the end of input", "shutdown"])
@pytest.mark.parametrize("seconds", [10.0, 0.0])
async def test_calls_that_do_not_finish_are_told(autojump_clock, nursery, by, seconds):
    """In time; if there is any."""
    forward = await Forward(nursery, shutdown_timeout=seconds).start()
    call = await forward.call(modern_request(1, "slow"))
    began = trio.current_time()
    forward.shutdown.set() if by == "shutdown" else forward.peer.sender.close()
    if seconds:
        told = await forward.peer.receive()
        assert (told["id"], told["error"]["code"]) == (1, -32603)
    await call.cancelled.wait()
    await forward.ended.wait()
    assert trio.current_time() - began <= seconds


async def test_client_that_does_not_read_cannot_delay_shutdown(autojump_clock, nursery):
    """For longer than the timeout, and the time to end the session."""
    forward = Forward(nursery, shutdown_timeout=10.0)
    forward.peer = PipePeer(0)
    await forward.start()
    (await forward.call(modern_request(1, "m"))).answer(result(1))
    await trio.sleep(1)
    forward.shutdown.set()
    with trio.fail_after(16):
        await forward.ended.wait()


async def test_command_that_cannot_be_run_is_refused_first(nursery):
    """Before anything is read of the client."""
    config = ForwardProxyConfig(upstream=StdioConfig(command=["shadowcat-no-such-program"]))
    with pytest.raises(ConfigError, match="shadowcat-no-such-program"):
        await nursery.start(partial(serve_forward_proxy, config, PipePeer(0).stream))


def test_settings_are_those_of_the_reverse_proxy():
    """Nothing is lost on the way."""
    config = ForwardProxyConfig(
        upstream=UPSTREAM, endpoint=EndpointConfig(max_body_size=7), shutdown_timeout=3.0
    ).as_reverse()

    assert (config.upstream, config.endpoint.max_body_size, config.shutdown_timeout) == (UPSTREAM, 7, 3.0)
    assert config.children.spares == 0


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_cancelled_at_any_point_it_ends(autojump_clock, nursery, steps):
    """At once, but for the end of the session."""
    async with trio.open_nursery() as inner:
        forward = await Forward(inner).start()
        await forward.peer.send(initialize())
        await forward.peer.send(modern_request(1, "m"))
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        inner.cancel_scope.cancel()
