"""Whole conversations through the proxy, on Trio's mock clock."""

import pytest
import trio

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig, SessionConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.testing import notification, open_proxy_kit, request, result


async def open_session(kit):
    kit.nursery.start_soon(kit.upstream.answer_initialize)
    assert (await kit.client.initialize()).status == 200


async def test_progress_and_then_the_answer(autojump_clock):
    async def run_tool():
        call = await kit.upstream.next_call()
        assert call.message["params"] == {"name": "bake"}
        events = call.open_events()
        await trio.sleep(40 * 60)
        await events.send(notification("notifications/progress", progress=1))
        await events.send(result(1, content=[]))
        events.end()

    async with open_proxy_kit() as kit:
        await open_session(kit)
        kit.nursery.start_soon(run_tool)
        response = await kit.client.post(request(1, "tools/call", name="bake"))

        assert (await response.next_message())["method"] == "notifications/progress"
        assert await response.next_message() == result(1, content=[])
        assert trio.current_time() == 40 * 60


async def test_a_caller_is_told_when_the_server_breaks_off(autojump_clock):
    async def break_off():
        call = await kit.upstream.next_call()
        call.fail(UpstreamDisconnected("the server broke off"))

    async with open_proxy_kit() as kit:
        await open_session(kit)
        kit.nursery.start_soon(break_off)
        response = await kit.client.post(request(7, "tools/call", name="bake"))

        assert response.status == 502
        assert (await response.json())["id"] == 7


@pytest.mark.parametrize(("idle", "status"), [(30, 200), (300, 404)])
async def test_a_session_lasts_as_long_as_configured(autojump_clock, idle, status):
    config = ReverseProxyConfig(
        upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"),  # not used: the kit has its own
        sessions=SessionConfig(max_idle=120),
    )

    async def answer_all():
        while True:
            call = await kit.upstream.next_call()
            if call.request.method == "DELETE":
                call.respond(200)
            else:
                call.answer(result(call.message["id"]))

    async with open_proxy_kit(config) as kit:
        await open_session(kit)
        kit.nursery.start_soon(answer_all)
        await trio.sleep(idle)

        assert (await kit.client.post(request(1, "ping"))).status == status
