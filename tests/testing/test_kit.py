"""The kit: the whole proxy between a client and a server of the test's own."""

import json
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat import EndpointConfig, HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig, SessionConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.testing import (
    ScriptedUpstream,
    modern_headers,
    modern_request,
    notification,
    open_proxy_kit,
    request,
    result,
)

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
PING = modern_request(1, "ping")


class Task:
    """A call under way."""

    def __init__(self, kit, fn, *args):
        self.value: Any = None
        self.scope = trio.CancelScope()
        kit.nursery.start_soon(self.run, fn, args)

    async def run(self, fn, args):
        with self.scope:
            self.value = await fn(*args)


async def ping(kit, client=None):
    task = Task(kit, (client or kit.client).post, PING, modern_headers(PING))
    return task, await kit.upstream.next_call()


async def test_conversation_goes_through_the_real_proxy(autojump_clock):
    """The example of the documentation."""
    async with open_proxy_kit() as kit:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        response = await kit.client.initialize()
        assert kit.client.session_id == response.headers["mcp-session-id"] != "upstream-1"

        task = Task(kit, kit.client.post, request(1, "tools/list"))
        (await kit.upstream.next_call()).answer(result(1, tools=[]))
        await wait_all_tasks_blocked()
        assert await task.value.json() == result(1, tools=[])


async def test_stream_passes_as_it_is_written(autojump_clock):
    """Each event is here before the next is sent."""
    async with open_proxy_kit() as kit:
        task, call = await ping(kit)
        events = call.open_events()
        await wait_all_tasks_blocked()
        for number in range(3):
            kit.nursery.start_soon(events.send, notification("n", number=number))
            assert (await task.value.next_message())["params"] == {"number": number}


async def test_slow_client_is_felt_by_the_server(autojump_clock):
    """Nothing in between hoards."""
    async with open_proxy_kit() as kit:
        task, call = await ping(kit)
        events = call.open_events()
        sent = []

        async def flood():
            for number in range(100):
                await events.send(notification("n"))
                sent.append(number)

        kit.nursery.start_soon(flood)
        await wait_all_tasks_blocked()
        assert len(sent) <= 2
        for _ in range(100):
            await task.value.next_event()
        assert len(sent) == 100


async def test_client_that_leaves_is_felt_by_the_server(autojump_clock):
    """MCP 2026-07-28: closing the stream MUST be treated as cancellation."""
    async with open_proxy_kit() as kit:
        task, call = await ping(kit)
        call.open_events()
        await wait_all_tasks_blocked()
        task.value.leave()
        with trio.fail_after(1):
            await call.cancelled.wait()


async def test_call_that_is_cancelled_is_felt_by_the_server(autojump_clock):
    """... before the head of the answer, too."""
    async with open_proxy_kit() as kit:
        task, call = await ping(kit)
        task.scope.cancel()
        with trio.fail_after(1):
            await call.cancelled.wait()


async def test_answer_that_is_cut_is_felt_by_the_client(autojump_clock):
    """A document that breaks off is no document."""
    async with open_proxy_kit() as kit:
        message = modern_request(1, "subscriptions/listen")
        task = Task(kit, kit.client.post, message, modern_headers(message))
        events = (await kit.upstream.next_call()).open_events()
        kit.nursery.start_soon(events.cut, UpstreamDisconnected("gone"))
        await wait_all_tasks_blocked()

        with pytest.raises(trio.BrokenResourceError):
            await task.value.next_event()


async def test_clients_share_the_proxy_but_no_session(autojump_clock):
    """Each has its own."""
    async with open_proxy_kit() as kit:
        other = kit.new_client()
        for client in (kit.client, other):
            kit.nursery.start_soon(kit.upstream.answer_initialize)
            await client.initialize()

        assert kit.client.session_id != other.session_id
        assert await kit.store.count_sessions() == 2


async def test_settings_are_the_proxys_own(autojump_clock):
    """... but for the upstream."""
    config = ReverseProxyConfig(upstream=NOWHERE, path="/x", endpoint=EndpointConfig(max_body_size=10))
    async with open_proxy_kit(config) as kit:
        assert (await kit.client.send("POST", b"x" * 11, path="/x")).status == 413
        assert (await kit.client.send("POST", b"x" * 11)).status == 404


async def test_store_is_the_tests_to_keep(autojump_clock):
    """Sessions outlive the proxy, which comes back to them."""
    store = InMemoryStore()
    async with open_proxy_kit(store=store) as kit:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        await kit.client.initialize()
        session_id = kit.client.session_id

    async with open_proxy_kit(store=store) as kit:
        kit.client.session_id = session_id
        task = Task(kit, kit.client.post, request(1, "ping"))
        call = await kit.upstream.next_call()
        assert call.headers["mcp-session-id"] == "upstream-1"
        call.answer(result(1))
        await wait_all_tasks_blocked()
        assert task.value.status == 200


async def test_hours_pass_in_no_time(autojump_clock):
    """The proxy waits for nothing but trio's clock."""
    config = ReverseProxyConfig(upstream=NOWHERE, sessions=SessionConfig(max_idle=3600))
    async with open_proxy_kit(config) as kit:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        await kit.client.initialize()
        await trio.sleep(3600 + 60)

        assert (await kit.upstream.next_call()).request.method == "DELETE"
        assert await kit.store.count_sessions() == 0


async def test_block_ends_with_calls_under_way(autojump_clock):
    """Neither side need finish what the test is not about."""
    with trio.fail_after(1):
        async with open_proxy_kit() as kit:
            task, call = await ping(kit)
            call.open_events()
            await ping(kit)
            await wait_all_tasks_blocked()
    assert task.value.status == 200
    assert call.cancelled.is_set()


async def test_servers_are_replaced_by_their_urls(autojump_clock):
    """For a proxy before several."""
    other = ScriptedUpstream()
    config = ReverseProxyConfig(servers={"other": NOWHERE})
    async with open_proxy_kit(config, upstreams={NOWHERE.url: other}) as kit:
        task = Task(kit, kit.client.send, "POST", json.dumps(PING).encode(), modern_headers(PING), "/mcp/other")
        (await other.next_call()).answer(result(1))
        await wait_all_tasks_blocked()
        assert task.value.status == 200
        assert kit.upstream.hits == 0
