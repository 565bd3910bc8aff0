"""The whole proxy before a server on a pipe."""

import json
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig, open_reverse_proxy_app
from shadowcat.testing import (
    ProxyClient,
    ScriptedConnector,
    modern_headers,
    modern_request,
    notification,
    request,
    result,
)
from shadowcat.transport.upstream import PipeConfig, open_pipe_upstream

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


@attrs.frozen
class Kit:
    client: ProxyClient
    connector: ScriptedConnector
    upstream: object
    nursery: trio.Nursery
    app: object

    async def open_session(self, **capabilities):
        """Open a session; return the stream of its server."""
        opened = []

        async def serve():
            stream = await self.connector.next_stream()
            await stream.answer_initialize(**capabilities)
            opened.append(stream)

        self.nursery.start_soon(serve)
        response = await self.client.initialize()
        assert 200 == response.status
        await response.read()
        accepted = await self.client.post(notification("notifications/initialized"))
        assert 202 == accepted.status
        assert "notifications/initialized" == (await opened[0].next_message())["method"]
        return opened[0]

    async def call(self, message, headers=None):
        """Begin a call; return what waits for its answer."""
        sender, receiver = trio.open_memory_channel(1)

        async def post():
            await sender.send(await self.client.post(message, headers))

        self.nursery.start_soon(post)
        return receiver


@asynccontextmanager
async def open_kit(config=None):
    connector = ScriptedConnector()
    with trio.fail_after(3600):
        async with (
            open_pipe_upstream(connector, config or PipeConfig(spares=0)) as upstream,
            open_reverse_proxy_app(ReverseProxyConfig(upstream=NOWHERE), upstream=upstream) as app,
            trio.open_nursery() as nursery,
        ):
            yield Kit(ProxyClient(app, nursery), connector, upstream, nursery, app)
            nursery.cancel_scope.cancel()


async def test_call_is_answered_with_a_document(autojump_clock):
    """The id is the caller's, although another went upstream."""
    async with open_kit() as kit:
        server = await kit.open_session()
        call = await kit.call(request("mine", "tools/call", name="x", arguments={}))
        sent = await server.answer(content=[])
        response = await call.receive()

        assert "mine" != sent["id"]
        assert "application/json" == response.headers["content-type"]
        assert result("mine", content=[]) == await response.json()


async def test_progress_comes_before_the_answer(autojump_clock):
    """As events of one stream, with the caller's token."""
    async with open_kit() as kit:
        server = await kit.open_session()
        call = await kit.call(request(1, "tools/call", name="x", _meta={"progressToken": "t"}))
        sent = await server.next_message()
        token = sent["params"]["_meta"]["progressToken"]
        await server.say(notification("notifications/progress", progressToken=token, progress=1))
        response = await call.receive()
        assert notification("notifications/progress", progressToken="t", progress=1) == await response.next_message()
        await server.say(result(sent["id"]))

        assert result(1) == await response.next_message()
        assert b"" == await response.read()


async def test_calls_of_one_id_and_token_get_each_their_own(autojump_clock):
    """Whatever order the answers come in."""
    async with open_kit() as kit:
        server = await kit.open_session()
        message = request(1, "tools/call", name="x", _meta={"progressToken": 1})
        one = await kit.call(message)
        first = await server.next_message()
        two = await kit.call(message)
        second = await server.next_message()
        token = second["params"]["_meta"]["progressToken"]
        await server.say(notification("notifications/progress", progressToken=token, progress=2))
        await server.say(result(second["id"], n=2))
        await server.say(result(first["id"], n=1))

        assert result(1, n=1) == await (await one.receive()).json()
        response = await two.receive()
        assert notification("notifications/progress", progressToken=1, progress=2) == await response.next_message()
        assert result(1, n=2) == await response.next_message()


async def test_cancellation_names_the_call_upstream(autojump_clock):
    """And its caller's connection does not stay open for ever."""
    async with open_kit() as kit:
        server = await kit.open_session()
        call = await kit.call(request(5, "tools/call", name="slow"))
        sent = await server.next_message()
        assert 202 == (await kit.client.post(notification("notifications/cancelled", requestId=5))).status
        assert notification("notifications/cancelled", requestId=sent["id"]) == await server.next_message()
        assert 5 == (await (await call.receive()).json())["id"]
        await server.say(result(sent["id"]))
        await trio.testing.wait_all_tasks_blocked()

        assert 1 == kit.upstream.statistics().late
        assert 0 == kit.upstream.statistics().pending


@pytest.mark.parametrize("is_listening", [False, True])
async def test_server_asks_during_a_call(autojump_clock, is_listening):
    """The request comes with the call, whether or not somebody listens; the answer reaches the server."""
    async with open_kit() as kit:
        server = await kit.open_session()
        if is_listening:
            assert 200 == (await kit.client.listen()).status
        call = await kit.call(request(1, "tools/call", name="x"))
        sent = await server.next_message()
        await server.say(request("s-1", "sampling/createMessage", messages=[]))
        response = await call.receive()
        assert request("s-1", "sampling/createMessage", messages=[]) == await response.next_message()
        assert 202 == (await kit.client.post(result("s-1", role="assistant"))).status
        assert result("s-1", role="assistant") == await server.next_message()
        await server.say(result(sent["id"]))

        assert result(1) == await response.next_message()


async def test_server_asks_during_several_calls(autojump_clock):
    """Whose it is nobody can tell, so the listener is asked."""
    async with open_kit() as kit:
        server = await kit.open_session()
        listener = await kit.client.listen()
        for number in (1, 2):
            await kit.call(request(number, "tools/call", name="x"))
            await server.next_message()
        await server.say(request("s-1", "elicitation/create"))

        assert "s-1" == (await next_request(listener))["id"]


async def next_request(response):
    while not (event := await response.next_event()).data:
        pass
    return json.loads(event.data)


async def test_what_nobody_listens_for_is_held(autojump_clock):
    """Until somebody does."""
    async with open_kit() as kit:
        server = await kit.open_session()
        await server.say(notification("notifications/tools/list_changed"))
        await server.say(request("s-1", "roots/list"))
        listener = await kit.client.listen()

        assert "notifications/tools/list_changed" == (await next_request(listener))["method"]
        assert "roots/list" == (await next_request(listener))["method"]


async def test_death_of_the_server_is_told_at_once_and_survived(autojump_clock):
    """The call under way fails; the next is made in another stream, in the same session of the client."""
    async with open_kit() as kit:
        server = await kit.open_session()
        session_id = kit.client.session_id
        call = await kit.call(request(1, "tools/call", name="x"))
        await server.next_message()
        began = trio.current_time()
        server.stop("the server process exited with status 1")
        response = await call.receive()
        assert 502 == response.status
        text = (await response.json())["error"]["message"]
        assert "exited with status 1" in text
        assert "check before sending it again" in text
        assert trio.current_time() == began

        call = await kit.call(request(2, "tools/call", name="x"))
        another = await kit.connector.next_stream()
        await another.answer_initialize()
        assert "notifications/initialized" == (await another.next_message())["method"]
        await another.answer(n=2)
        assert result(2, n=2) == await (await call.receive()).json()
        assert session_id == kit.client.session_id


async def test_listener_survives_the_death_of_the_server(autojump_clock):
    """Its stream goes on in another upstream session."""
    async with open_kit() as kit:
        server = await kit.open_session()
        listener = await kit.client.listen()
        server.stop()
        another = await kit.connector.next_stream()
        await another.answer_initialize()
        assert "notifications/initialized" == (await another.next_message())["method"]
        await another.say(notification("notifications/tools/list_changed"))

        assert "notifications/tools/list_changed" == (await next_request(listener))["method"]


async def test_a_newer_listener_takes_over(autojump_clock):
    """The pipe has one listener, and the proxy gives it to the client that came last."""
    async with open_kit() as kit:
        server = await kit.open_session()
        await kit.client.listen()
        newer = await kit.client.listen()
        await server.say(notification("notifications/tools/list_changed"))

        assert "notifications/tools/list_changed" == (await next_request(newer))["method"]


async def test_end_of_the_session_ends_the_stream(autojump_clock):
    """And nothing is left."""
    async with open_kit() as kit:
        server = await kit.open_session()
        assert 200 == (await kit.client.delete()).status
        await server.closed.wait()

        assert 0 == kit.upstream.statistics().sessions


async def test_modern_call_reaches_a_modern_server(autojump_clock):
    """After it was asked once whether it is one."""
    async with open_kit() as kit:
        message = modern_request("a", "tools/call", name="x", arguments={})
        call = await kit.call(message, modern_headers(message))
        server = await kit.connector.next_stream()
        assert "server/discover" == (await server.answer(supportedVersions=["2026-07-28"], capabilities={}))["method"]
        assert "tools/call" == (await server.answer(content=[]))["method"]

        assert result("a", content=[]) == await (await call.receive()).json()


async def test_modern_client_that_leaves_cancels_its_call(autojump_clock):
    """The server is told; there is no connection that it could see closing."""
    async with open_kit() as kit:
        message = modern_request("a", "tools/call", name="x", arguments={})
        message["params"]["_meta"]["progressToken"] = 1
        call = await kit.call(message, modern_headers(message))
        server = await kit.connector.next_stream()
        await server.answer(supportedVersions=["2026-07-28"])
        sent = await server.next_message()
        await server.say(
            notification("notifications/progress", progressToken=sent["params"]["_meta"]["progressToken"], progress=1)
        )
        response = await call.receive()
        response.leave()
        cancelled = await server.next_message()

        assert "notifications/cancelled" == cancelled["method"]
        assert sent["id"] == cancelled["params"]["requestId"]


async def test_modern_client_learns_that_the_server_is_legacy(autojump_clock):
    """So that it can fall back to initialize."""
    async with open_kit() as kit:
        message = modern_request("a", "tools/list")
        call = await kit.call(message, modern_headers(message))
        server = await kit.connector.next_stream()
        probe = await server.next_message()
        await server.say({"jsonrpc": "2.0", "id": probe["id"], "error": {"code": -32601, "message": "what?"}})
        response = await call.receive()

        assert 400 == response.status
        error = (await response.json())["error"]
        assert -32022 == error["code"]
        assert "2025-11-25" in error["data"]["supported"]
        await kit.open_session()
