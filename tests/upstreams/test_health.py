"""Checks, on the mock clock."""

from functools import partial

import pytest
import trio

from shadowcat.errors import ConfigError, UpstreamUnavailable
from shadowcat.testing import ScriptedUpstream
from shadowcat.transport.upstream import HttpSseUpstreamConfig, HttpUpstreamConfig, StdioConfig, WebSocketUpstreamConfig
from shadowcat.upstreams import CheckConfig, CheckKind, Endpoint, Health, keep_checking, mcp_check, tcp_check
from shadowcat.upstreams.health import open_check


def middle(low, high):
    return (low + high) / 2


class Script:
    """A check that says what it is told to, and when it was asked."""

    def __init__(self, *answers):
        self.asked = []
        self._answers = list(answers)

    async def __call__(self):
        self.asked.append(trio.current_time())
        answer = self._answers.pop(0) if self._answers else True
        if isinstance(answer, float):
            await trio.sleep(answer)
            return True
        if isinstance(answer, Exception):
            raise answer
        await trio.lowlevel.checkpoint()
        return answer


async def checked(script, seconds):
    endpoint = Endpoint("a", ScriptedUpstream())
    with trio.move_on_after(seconds):
        await keep_checking(endpoint, script, CheckConfig(interval=10, timeout=5), middle)
    return endpoint


async def test_checks_come_at_intervals(autojump_clock):
    script = Script()
    await checked(script, 35)
    assert script.asked == [0, 10, 20, 30]


async def test_checks_are_drawn_apart(autojump_clock):
    drawn = []

    def draw(low, high):
        drawn.append((low, high))
        return 1.0

    config = CheckConfig(interval=10)
    with trio.move_on_after(5):
        await keep_checking(Endpoint("a", ScriptedUpstream()), Script(), config, draw)
    assert drawn == [(0.8, 1.2)]


async def test_failures_of_every_kind_make_it_unhealthy(autojump_clock):
    script = Script(False, UpstreamUnavailable("refused"), 60.0, True, True)
    assert (await checked(script, 21)).health is Health.HEALTHY
    script = Script(False, UpstreamUnavailable("refused"), 60.0, True, True)
    assert (await checked(script, 26)).health is Health.UNHEALTHY
    script = Script(False, UpstreamUnavailable("refused"), 60.0, True, True)
    assert (await checked(script, 50)).health is Health.HEALTHY


@pytest.mark.parametrize(("status", "is_good"), [(200, True), (400, True), (401, True), (500, False), (503, False)])
async def test_a_server_of_any_era_is_well_if_it_answers(autojump_clock, status, is_good):
    upstream = ScriptedUpstream()
    found = []

    async def check():
        found.append(await mcp_check(upstream)())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check)
        call = await upstream.next_call()
        assert call.message["method"] == "server/discover"
        assert call.headers["mcp-method"] == "server/discover"
        call.respond(status)
    assert found == [is_good]
    assert call.cancelled.is_set()  # the answer was closed


async def test_connecting_is_enough_for_tcp():
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, trio.aclose_forcefully, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        assert await tcp_check("127.0.0.1", port)()
        nursery.cancel_scope.cancel()
    assert not await tcp_check("127.0.0.1", port)()


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.example"])
async def test_a_name_that_cannot_be_is_a_server_that_is_not_there(host):
    """The check is a task of its own: what it raised would end the proxy."""
    assert not await tcp_check(host, 80)()


class Http:
    """A server that answers each request with a status, and keeps the first lines of what came."""

    def __init__(self, status):
        self.status = status
        self.seen = []

    async def serve(self, stream):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await stream.receive_some()
        self.seen.append(data)
        await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)


async def start(nursery, serve):
    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"


@pytest.mark.parametrize(("status", "is_good"), [(200, True), (204, True), (302, False), (404, False), (503, False)])
@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_path_is_asked_for_at_the_address_of_the_server(nursery, status, is_good, scheme):
    """Whatever the path that messages go to, and with the headers that it wants."""
    server = Http(status)
    address = await start(nursery, server.serve)
    kind = HttpUpstreamConfig if scheme == "http" else WebSocketUpstreamConfig
    upstream = kind(url=f"{scheme}://{address}/mcp?x=1", headers=[("authorization", "Bearer t")])
    with trio.fail_after(5):
        async with open_check(CheckConfig(kind="http", path="/up?deep=1"), upstream, ScriptedUpstream()) as check:
            assert await check() == is_good
    assert server.seen[0].startswith(b"GET /up?deep=1 HTTP/1.1\r\n")
    assert b"authorization: Bearer t" in server.seen[0]
    assert f"host: {address}".encode() in server.seen[0]
    nursery.cancel_scope.cancel()


async def test_connecting_is_checked_at_the_address_of_the_server(nursery):
    address = await start(nursery, trio.aclose_forcefully)
    upstream = HttpSseUpstreamConfig(url=f"http://{address}/sse")
    async with open_check(CheckConfig(kind="tcp"), upstream, ScriptedUpstream()) as check:
        assert await check()
    nursery.cancel_scope.cancel()


async def test_a_command_is_asked_like_any_server(autojump_clock, nursery):
    upstream = ScriptedUpstream()
    async with open_check(CheckConfig(), StdioConfig(command=["true"]), upstream) as check:
        nursery.start_soon(check)
        assert (await upstream.next_call()).message["method"] == "server/discover"
    nursery.cancel_scope.cancel()


def test_a_check_that_does_not_exist_is_an_error():
    assert CheckConfig(kind="tcp").kind is CheckKind.TCP
    with pytest.raises(ConfigError, match="no check is called 'ping'; choose one of: mcp, http, tcp"):
        CheckConfig(kind="ping")
    with pytest.raises(ConfigError, match="cannot be the path of a health check"):
        CheckConfig(path="health")
    with pytest.raises(ConfigError, match="cannot be the path of a health check"):
        CheckConfig(path="/health#a")
