"""Clients on pipes, before the whole proxy: what an MCP client and a server see of each other."""

import json

import pytest
import trio

from shadowcat import EndpointConfig, HttpUpstreamConfig, ReverseProxyConfig, SessionConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.testing import error, modern_request, notification, open_proxy_kit, request, result
from tests.proxy.piping import initialize, open_pipe_kit

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


def config_of(**settings):
    return ReverseProxyConfig(upstream=NOWHERE, **settings)


class TestSession:
    async def test_id_and_version_go_with_every_message(self, autojump_clock):
        """A client on a pipe knows nothing of them."""
        async with open_pipe_kit() as kit:
            await kit.initialize("2025-06-18")
            call = await kit.start(request(1, "tools/list"))

            assert call.headers["mcp-session-id"] == "upstream-1"
            assert call.headers["mcp-protocol-version"] == "2025-06-18"
            assert call.headers["accept"] == "application/json, text/event-stream"
            assert call.message == request(1, "tools/list")
            call.answer(result(1, tools=[]))
            assert await kit.peer.receive() == result(1, tools=[])

    async def test_message_behind_initialize_waits_for_it(self, autojump_clock):
        """It belongs to the session that is only being opened."""
        async with open_pipe_kit() as kit:
            await kit.peer.send(initialize())
            await kit.peer.send(request(1, "ping"))
            opening = await kit.upstream.next_call()
            await trio.sleep(10)
            assert kit.upstream.hits == 1
            opening.answer(result(0, protocolVersion="2025-11-25"), headers={"mcp-session-id": "s"})
            ping = await kit.upstream.next_call()
            assert ping.headers["mcp-session-id"] == "s"

    async def test_initialize_answered_by_an_event_stream_opens_it_too(self, autojump_clock):
        """Even if the server does not end the stream."""
        async with open_pipe_kit() as kit:
            opening = await kit.start(initialize())
            events = opening.open_events({"mcp-session-id": "s"})
            await events.send(result(0, protocolVersion="2025-06-18"))
            assert (await kit.peer.receive())["id"] == 0
            ping = await kit.start(request(1, "ping"))
            assert (ping.headers["mcp-session-id"], ping.headers["mcp-protocol-version"]) == ("s", "2025-06-18")

    async def test_refused_initialize_opens_none(self, autojump_clock):
        """The client may try another version."""
        async with open_pipe_kit() as kit:
            (await kit.start(initialize())).answer(error(0, -32602, "unsupported"))
            assert await kit.peer.receive() == error(0, -32602, "unsupported")
            refused = await kit.peer.call(request(1, "ping"))
            assert (refused["id"], refused["error"]["code"]) == (1, -32600)
            assert "initialize" in refused["error"]["message"]
            await kit.initialize()

    async def test_second_initialize_ends_the_first_session(self, autojump_clock):
        """Before another is opened: a server may have room for one only."""
        async with open_pipe_kit() as kit:
            listening = await kit.initialize(listens=True)
            listening.open_events()
            await kit.peer.send(initialize(id=5))
            ended = await kit.upstream.next_call()
            assert (ended.request.method, ended.headers["mcp-session-id"]) == ("DELETE", "upstream-1")
            await listening.cancelled.wait()
            ended.respond(200)
            await kit.upstream.answer_initialize("upstream-2")
            assert (await kit.peer.receive())["id"] == 5
            assert (await kit.start(request(1, "ping"))).headers["mcp-session-id"] == "upstream-2"

    async def test_end_of_the_client_ends_it_upstream(self, autojump_clock):
        """Calls under way and all that listens end with it."""
        async with open_pipe_kit() as kit:
            listening = await kit.initialize(listens=True)
            listening.open_events()
            call = await kit.start(request(1, "tools/call", name="slow"))
            kit.peer.sender.close()
            ended = await kit.upstream.next_call()
            assert ended.request.method == "DELETE"
            ended.respond(200)
            for gone in (kit.peer.ended, listening.cancelled, call.cancelled):
                await gone.wait()

    async def test_server_that_does_not_end_it_is_not_waited_for_long(self, autojump_clock):
        """Five seconds."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            kit.peer.sender.close()
            with trio.fail_after(6):
                await kit.peer.ended.wait()

    async def test_lost_session_is_told_and_another_can_be_opened(self, autojump_clock):
        """To callers that wait, and to whoever calls later."""
        async with open_pipe_kit(config_of(sessions=SessionConfig(max_age=100.0))) as kit:
            await kit.initialize()
            call = await kit.start(request(1, "tools/call", name="slow"))
            events = call.open_events()
            await events.send(notification("notifications/progress", progress=1), id="e1")
            await kit.peer.receive()
            await trio.sleep(1000)
            lost = await kit.peer.receive()
            assert (lost["id"], lost["error"]["code"]) == (1, -32600)
            again = await kit.peer.call(request(2, "ping"))
            assert "initialize" in again["error"]["message"]
            await kit.peer.send(initialize())
            while (call := await kit.upstream.next_call()).request.method == "DELETE":
                call.respond(404)
            call.answer(result(0, protocolVersion="2025-11-25"), headers={"mcp-session-id": "s"})
            assert (await kit.peer.receive())["id"] == 0

    async def test_limit_of_sessions_is_told(self, autojump_clock):
        """As an error to initialize."""
        async with open_pipe_kit(config_of(sessions=SessionConfig(max_sessions=1))) as kit:
            kit.nursery.start_soon(kit.upstream.answer_initialize)
            await kit.proxy.client.initialize()
            refused = await kit.peer.call(initialize())
            assert (refused["id"], refused["error"]["code"]) == (0, -32603)


class TestListening:
    async def test_what_the_server_sends_arrives(self, autojump_clock):
        """Requests of the server too; the answer goes back by itself."""
        async with open_pipe_kit() as kit:
            listening = await kit.initialize(listens=True)
            events = listening.open_events()
            await events.send(request("s1", "sampling/createMessage"))
            assert await kit.peer.receive() == request("s1", "sampling/createMessage")
            answer = await kit.start(result("s1", role="assistant"))
            assert answer.message == result("s1", role="assistant")
            assert answer.headers["mcp-session-id"] == "upstream-1"
            answer.respond(202)

    async def test_begins_once_and_only_after_the_handshake(self, autojump_clock):
        """A client that says it twice does not listen twice."""
        async with open_pipe_kit() as kit:
            await kit.peer.send(initialize())
            await kit.upstream.answer_initialize()
            await kit.peer.receive()
            await trio.sleep(10)
            assert kit.upstream.hits == 1
            (await kit.start(notification("notifications/initialized"))).respond(202)
            listening = await kit.upstream.next_call()
            assert listening.request.method == "GET"
            (await kit.start(notification("notifications/initialized"))).respond(202)
            await trio.sleep(10)
            assert kit.upstream.hits == 4

    async def test_server_without_one_is_not_asked_again(self, autojump_clock):
        """405 means never."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            hits = kit.upstream.hits
            await trio.sleep(1000)
            assert kit.upstream.hits == hits

    async def test_goes_on_when_the_stream_breaks(self, autojump_clock):
        """For as long as the client is there."""
        async with open_pipe_kit() as kit:
            listening = await kit.initialize(listens=True)
            events = listening.open_events()
            await events.send(notification("a"), id="e1")
            await kit.peer.receive()
            await events.cut(UpstreamDisconnected("gone"))
            again = await kit.upstream.next_call()
            assert (again.request.method, again.headers["last-event-id"]) == ("GET", "e1")
            await again.open_events().send(notification("b"), id="e2")
            assert await kit.peer.receive() == notification("b")


class TestCalls:
    async def test_events_are_messages_in_order(self, autojump_clock):
        """Progress, then the result."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            events = (await kit.start(request(1, "tools/call", name="t"))).open_events()
            for message in (notification("notifications/progress", progress=1), result(1, content=[])):
                await events.send(message)
                assert await kit.peer.receive() == message
            assert await kit.peer.is_silent()

    async def test_run_at_once_and_end_in_any_order(self, autojump_clock):
        """A slow call delays no other."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            slow = await kit.start(request(1, "a"))
            fast = await kit.start(request("x", "b"))
            fast.answer(result("x"))
            assert await kit.peer.receive() == result("x")
            slow.answer(result(1))
            assert await kit.peer.receive() == result(1)

    async def test_bytes_pass_to_the_letter(self, autojump_clock):
        """In both directions."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            body = b'{"jsonrpc":"2.0", "id":90071992547409931,"method":"m","params":{"x":1.0}}'
            answer = b'{"jsonrpc":"2.0","id":90071992547409931,"result":{"x":1.0, "y":1e2}}'
            call = await kit.start(body)
            assert call.request.body == body
            call.respond(200, {"content-type": "application/json"}, [answer])
            assert await kit.peer.receiver.receive() == answer

    async def test_same_id_twice_gives_each_its_own_answer(self, autojump_clock):
        """As over HTTP."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            first = await kit.start(request(1, "a"))
            second = await kit.start(request(1, "b"))
            assert second.message["id"] != 1
            second.answer(result(second.message["id"], who="b"))
            assert await kit.peer.receive() == result(1, who="b")
            first.answer(result(1, who="a"))
            assert await kit.peer.receive() == result(1, who="a")

    @pytest.mark.parametrize("status", [400, 401, 404, 500])
    async def test_http_error_is_an_error_to_the_caller(self, autojump_clock, status):
        """With the caller's own id, whatever the server wrote."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            call = await kit.start(request("me", "m"))
            call.respond(status, {"content-type": "text/html"}, [b"<h1>no</h1>"])
            if status == 404:  # means that the session is lost: another is tried first
                (await kit.upstream.next_call()).respond(503)
            refused = await kit.peer.receive()
            assert (refused["id"], refused["error"]["code"]) == ("me", -32603)

    async def test_server_that_breaks_off_is_an_error_to_the_caller(self, autojump_clock):
        """It may have acted."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            (await kit.start(request(1, "m"))).fail(UpstreamDisconnected("check before sending it again"))
            assert await kit.peer.receive() == error(1, -32603, "check before sending it again")

    async def test_credentials_of_the_opening_request_go_upstream_if_they_may(self, autojump_clock):
        """And nothing else of it."""
        config = config_of(endpoint=EndpointConfig(forward_headers=["Authorization"]))
        headers = {
            b"authorization": b"Bearer t",
            b"user-agent": b"u",
            b"cookie": b"c",
            b"accept": b"text/html",
            b"mcp-session-id": b"mine",
            b"content-encoding": b"gzip",
        }
        async with open_pipe_kit(config, headers=headers) as kit:
            await kit.peer.send(initialize())
            call = await kit.upstream.answer_initialize()
            assert call.headers == {
                "authorization": "Bearer t",
                "user-agent": "u",
                "accept": "application/json, text/event-stream",
                "content-type": "application/json",
                "accept-encoding": "identity",
            }


class TestModern:
    async def test_headers_mirror_the_body(self, autojump_clock):
        """A name that HTTP cannot carry is encoded."""
        async with open_pipe_kit() as kit:
            call = await kit.start(modern_request(1, "tools/call", name="größe", arguments={}))
            assert call.headers["mcp-protocol-version"] == "2026-07-28"
            assert call.headers["mcp-method"] == "tools/call"
            assert call.headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="
            assert "mcp-session-id" not in call.headers
            call.answer(result(1, content=[]))
            assert await kit.peer.receive() == result(1, content=[])

    async def test_arguments_that_a_tool_wants_mirrored_are(self, autojump_clock):
        """Once its declaration has passed by."""
        schema = {
            "type": "object",
            "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"},
                "count": {"type": "integer", "x-mcp-header": "Count"},
                "dry": {"type": "boolean", "x-mcp-header": "Dry"},
                "gone": {"type": "string", "x-mcp-header": "Gone"},
            },
        }
        async with open_pipe_kit() as kit:
            listed = await kit.start(modern_request(1, "tools/list"))
            listed.answer(result(1, tools=[{"name": "t", "inputSchema": schema}]))
            await kit.peer.receive()
            arguments = {"region": " us", "count": 7, "dry": True, "gone": None}
            call = await kit.start(modern_request(2, "tools/call", name="t", arguments=arguments))
            mirrored = {name: value for name, value in call.headers.items() if name.startswith("mcp-param-")}
            assert mirrored == {
                "mcp-param-region": "=?base64?IHVz?=",
                "mcp-param-count": "7",
                "mcp-param-dry": "true",
            }

    async def test_cancellation_closes_the_request_and_is_not_answered(self, autojump_clock):
        """Closing it is how a server over HTTP is told."""
        async with open_pipe_kit() as kit:
            call = await kit.start(modern_request(1, "tools/call", name="t"))
            other = await kit.start(modern_request("1", "tools/call", name="t"))
            await kit.peer.send(notification("notifications/cancelled", requestId=1))
            await call.cancelled.wait()
            assert await kit.peer.is_silent()
            other.answer(result("1"))
            assert await kit.peer.receive() == result("1")
            assert kit.upstream.hits == 2

    async def test_subscription_goes_on_until_it_is_cancelled(self, autojump_clock):
        """Its events are messages; other calls pass it by."""
        async with open_pipe_kit() as kit:
            listening = await kit.start(modern_request(1, "subscriptions/listen", notifications={}))
            events = listening.open_events()
            await events.send(notification("notifications/tools/list_changed"))
            assert await kit.peer.receive() == notification("notifications/tools/list_changed")
            (await kit.start(modern_request(2, "ping"))).answer(result(2))
            assert await kit.peer.receive() == result(2)
            await kit.peer.send(notification("notifications/cancelled", requestId=1))
            await listening.cancelled.wait()
            assert await kit.peer.is_silent()

    async def test_stream_that_breaks_is_an_error_to_the_caller(self, autojump_clock):
        """There is no resuming in this era."""
        async with open_pipe_kit() as kit:
            call = await kit.start(modern_request(1, "tools/call", name="t"))
            await call.open_events().cut(UpstreamDisconnected("gone"))
            assert await kit.peer.receive() == error(1, -32603, "gone")

    async def test_probe_of_an_old_server_is_told_no(self, autojump_clock):
        """And the client goes on with a handshake."""
        async with open_pipe_kit() as kit:
            probe = await kit.start(modern_request(0, "server/discover"))
            probe.respond(400, {"content-type": "text/plain"}, [b"Bad Request: no session"])
            refused = await kit.peer.receive()
            assert (refused["id"], refused["error"]["code"]) == (0, -32603)
            await kit.initialize()

    async def test_both_eras_share_a_pipe(self, autojump_clock):
        """A message says itself which it is."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            assert "mcp-session-id" not in (await kit.start(modern_request(1, "ping"))).headers
            assert "mcp-session-id" in (await kit.start(request(2, "ping"))).headers

    @pytest.mark.parametrize("method", ["a\r\nx-evil: 1", "ä", "", " a", "a\0"])
    async def test_method_that_no_header_carries_is_refused(self, autojump_clock, method):
        """Nothing of it gets into a header."""
        async with open_pipe_kit() as kit:
            refused = await kit.peer.call(modern_request(1, method))
            assert (refused["id"], refused["error"]["code"]) == (1, -32600)
            assert kit.upstream.hits == 0


class TestShutdown:
    async def test_calls_finish_and_then_the_client_is_let_go(self, autojump_clock):
        """What is new is refused; the session is ended last."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            call = await kit.start(request(1, "slow"))
            kit.app.begin_drain()
            refused = await kit.peer.call(request(2, "new"))
            assert refused["id"] == 2
            assert "shutting down" in refused["error"]["message"]
            (await kit.start(result("s1"))).respond(202)
            call.answer(result(1))
            assert await kit.peer.receive() == result(1)
            ended = await kit.upstream.next_call()
            assert ended.request.method == "DELETE"
            ended.respond(200)
            await kit.peer.ended.wait()

    @pytest.mark.parametrize("is_streaming", [False, True])
    @pytest.mark.parametrize("era", ["legacy", "modern"])
    async def test_calls_that_do_not_finish_are_told(self, autojump_clock, era, is_streaming):
        """That the server may still act."""
        async with open_pipe_kit() as kit:
            message = modern_request(1, "slow")
            if era == "legacy":
                await kit.initialize()
                message = request(1, "slow")
            call = await kit.start(message)
            if is_streaming:
                await call.open_events().send(notification("n"), id="e1")
                await kit.peer.receive()
            kit.app.begin_drain()
            kit.app.finish_drain()
            told = await kit.peer.receive()
            assert (told["id"], told["error"]["code"]) == (1, -32603)
            assert "may still act" in told["error"]["message"]

    async def test_idle_client_is_let_go_at_once(self, autojump_clock):
        """It would wait for ever."""
        async with open_pipe_kit() as kit:
            kit.app.begin_drain()
            with trio.fail_after(1):
                await kit.peer.ended.wait()


async def test_grace_lets_calls_finish_after_the_last_message(autojump_clock):
    """A client may close its side and still read."""
    async with open_pipe_kit(grace=10.0) as kit:
        call = await kit.start(modern_request(1, "slow"))
        late = await kit.start(modern_request(2, "never"))
        listening = await kit.start(modern_request(3, "subscriptions/listen"))
        kit.peer.sender.close()
        await listening.cancelled.wait()
        await trio.sleep(5)
        call.answer(result(1))
        assert await kit.peer.receive() == result(1)
        told = await kit.peer.receive()
        assert (told["id"], told["error"]["code"]) == (2, -32603)
        await late.cancelled.wait()
        with trio.fail_after(2):
            await kit.peer.ended.wait()


async def test_grace_covers_initialize(autojump_clock):
    """Though nothing may be read behind it."""
    async with open_pipe_kit(grace=10.0) as kit:
        await kit.peer.send(initialize())
        kit.peer.sender.close()
        opening = await kit.upstream.next_call()
        await trio.sleep(5)
        opening.answer(result(0, protocolVersion="2025-11-25"), headers={"mcp-session-id": "s"})
        assert (await kit.peer.receive())["id"] == 0
        (await kit.upstream.next_call()).respond(200)
        await kit.peer.ended.wait()


async def test_leaving_during_initialize_ends_it(autojump_clock):
    """Nobody would use the session."""
    async with open_pipe_kit() as kit:
        opening = await kit.start(initialize())
        kit.peer.sender.close()
        await opening.cancelled.wait()
        await kit.peer.ended.wait()


async def test_client_that_does_not_read_slows_the_server_down(autojump_clock):
    """Nothing is queued for it."""
    async with open_pipe_kit(room=0) as kit:
        call = await kit.start(modern_request(1, "flood"))
        events = call.open_events()
        with trio.move_on_after(10):
            for number in range(100):
                await events.send(notification("n", number=number))
        assert number < 5
        for expected in range(number):
            assert json.loads(await kit.peer.receiver.receive())["params"]["number"] == expected


async def test_client_that_reads_no_more_is_let_go(autojump_clock):
    """All that is under way for it ends."""
    async with open_pipe_kit() as kit:
        await kit.initialize()
        other = await kit.start(request(2, "other"))
        call = await kit.start(request(1, "m"))
        kit.peer.receiver.close()
        call.answer(result(1))
        await other.cancelled.wait()
        ended = await kit.upstream.next_call()
        assert ended.request.method == "DELETE"
        ended.respond(200)
        await kit.peer.ended.wait()


async def test_client_over_http_and_sse_is_one(autojump_clock):
    """The whole way: a session, a call with progress, and the end."""
    async with open_proxy_kit() as kit:
        stream = await kit.client.send("GET", headers={"accept": "text/event-stream"}, path="/sse")
        where = ((await stream.next_event()).data or b"").decode()

        async def post(message):
            answer = await kit.client.send("POST", json.dumps(message).encode(), path=where)
            assert answer.status == 202

        await post(initialize("2024-11-05"))
        await kit.upstream.answer_initialize(version="2024-11-05")
        assert (await stream.next_message())["id"] == 0
        await post(request(1, "m"))
        call = await kit.upstream.next_call()
        assert call.headers["mcp-session-id"] == "upstream-1"
        events = call.open_events()
        for message in (notification("notifications/progress", progress=1), result(1)):
            await events.send(message)
            assert await stream.next_message() == message
        stream.leave()
        ended = await kit.upstream.next_call()
        assert ended.request.method == "DELETE"
