"""Limits on clients whose messages share a pipe: WebSocket, HTTP+SSE, standard streams."""

import json

import pytest
import trio

from shadowcat import LimitsConfig, StdioConfig
from shadowcat.testing import ProxyClient, modern_request, notification, request
from tests.proxy.limiting import config_of, open_limited
from tests.proxy.piping import initialize, open_pipe_kit
from tests.proxy.test_forward import Forward
from tests.transport.socket_client import SocketClient

PING = request(5, "ping")


async def test_a_client_on_a_pipe_is_told_how_long_to_wait(autojump_clock):
    """Its session counts, and what it answers does not."""
    async with open_pipe_kit(config_of({"per_session": "60/min burst 2"})) as kit:
        await kit.initialize()
        call = await kit.start(PING)
        call.answer({"jsonrpc": "2.0", "id": 5, "result": {}})
        assert (await kit.peer.receive())["result"] == {}
        refused = await kit.peer.call(PING)
        assert refused["id"] == 5
        assert refused["error"]["code"] == -32603
        assert refused["error"]["data"] == {"limit": "per_session", "retryAfter": 1.0}
        await kit.peer.send({"jsonrpc": "2.0", "id": "s-1", "result": {}})
        answer = await kit.upstream.next_call()
        assert answer.message["id"] == "s-1"
        answer.respond(202)
        await trio.sleep(1)
        assert (await kit.start(PING)).message["method"] == "ping"


async def test_a_client_without_an_address_is_counted_by_everything_else(autojump_clock):
    async with open_pipe_kit(config_of({"per_client": "1/h", "per_method": {"tools/list": "1/h"}})) as kit:
        for number in range(3):
            (await kit.start(modern_request(number, "ping"))).answer({"jsonrpc": "2.0", "id": number, "result": {}})
            assert "result" in await kit.peer.receive()
        (await kit.start(modern_request(4, "tools/list"))).answer({"jsonrpc": "2.0", "id": 4, "result": {}})
        assert "result" in await kit.peer.receive()
        assert (await kit.peer.call(modern_request(5, "tools/list")))["error"]["data"]["limit"] == (
            "per_method.tools/list"
        )


async def test_a_notification_that_is_refused_is_dropped(autojump_clock):
    async with open_pipe_kit(config_of({"per_method": {"notifications/progress": "1/h"}})) as kit:
        await kit.initialize()
        await kit.peer.send(notification("notifications/progress", n=1))
        (await kit.upstream.next_call()).respond(202)
        await kit.peer.send(notification("notifications/progress", n=2))
        assert (await kit.start(PING)).message["method"] == "ping"


async def test_a_client_that_listens_and_ends_its_session_is_not_counted_for_it(autojump_clock):
    """The proxy does that on its behalf."""
    async with open_pipe_kit(config_of({"per_session": "2/h", "total": "3/h"})) as kit:
        await kit.initialize()
        assert (await kit.start(PING)).message["method"] == "ping"


async def test_forward_proxy(autojump_clock, nursery):
    forward = await Forward(nursery, limits=LimitsConfig(total="2/h")).start()
    await forward.peer.send(initialize())
    await forward.upstream.answer_initialize()
    await forward.peer.receive()
    (await forward.call(PING)).answer({"jsonrpc": "2.0", "id": 5, "result": {}})
    await forward.peer.receive()
    assert (await forward.peer.call(PING))["error"]["data"]["limit"] == "total"


async def test_http_sse(autojump_clock):
    """Messages count for the address that has the stream; the stream itself for one."""
    async with open_limited(per_client="3/h") as limited:
        stream = await limited.kit.new_client("198.51.100.1").send("GET", path="/sse")
        event = await stream.next_event()
        assert event.data is not None

        async def post(number):
            body = json.dumps(modern_request(number, "ping")).encode()
            sender = limited.kit.new_client("198.51.100.2")
            return (await sender.send("POST", body, path=event.data.decode())).status

        assert [await post(number) for number in range(3)] == [202] * 3
        answers = {message["id"]: message for message in [await stream.next_message() for _ in range(3)]}
        assert "result" in answers[0]
        assert "result" in answers[1]
        assert answers[2]["error"]["data"]["limit"] == "per_client"
        refused = await limited.kit.new_client("198.51.100.1").send("GET", path="/sse")
        assert refused.status == 429


async def play(app, socket):
    await app(socket.scope, socket.receive, socket.send)


def said(socket):
    return [json.loads(event["text"]) for event in socket.sent if event["type"] == "websocket.send"]


@pytest.mark.parametrize("trusted", [[], ["127.0.0.0/8"]])
async def test_websocket(autojump_clock, trusted, nursery):
    """The handshake counts, too, and what it says of the client holds for all messages."""
    async with open_limited(per_client="3/h", trusted_proxies=trusted) as limited:
        app = limited.kit.app
        socket = SocketClient(headers=[(b"x-forwarded-for", b"198.51.100.1")])
        socket.scope["client"] = ("127.0.0.1", 1)
        for number in range(3):
            socket.text(json.dumps(modern_request(number, "ping")))
        nursery.start_soon(play, app, socket)
        await trio.sleep(1)
        answers = {message["id"]: message for message in said(socket)}
        assert ["error" in answers[number] for number in range(3)] == [False, False, True]
        again = SocketClient(headers=[(b"x-forwarded-for", b"198.51.100.1")])
        again.scope["client"] = ("127.0.0.1", 1)
        await play(app, again)
        assert (again.sent[0]["type"], again.sent[0]["status"]) == ("websocket.http.response.start", 429)
        assert (await ProxyClient(app, nursery, "198.51.100.1").listen()).status == (429 if trusted else 400)
        nursery.cancel_scope.cancel()


def test_forward_proxy_takes_limits_as_they_are_written():
    from shadowcat import ForwardProxyConfig

    config = ForwardProxyConfig(
        upstream=StdioConfig(command=("server",)), limits=LimitsConfig(per_tool={"search": "5/min"})
    )
    assert config.as_reverse().limits is config.limits
