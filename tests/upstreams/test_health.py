"""Checks, on the mock clock."""

from functools import partial

import pytest
import trio

from shadowcat.errors import UpstreamUnavailable
from shadowcat.testing import ScriptedUpstream
from shadowcat.upstreams import CheckConfig, Endpoint, Health, keep_checking, mcp_check, tcp_check


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
