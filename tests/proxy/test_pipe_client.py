"""Reading a client on a pipe: order, bounds, and what is no message at all."""

import json

import pytest
import trio

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig
from shadowcat.errors import UpstreamUnavailable
from shadowcat.proxy import PipeEndpointConfig
from shadowcat.testing import modern_request, notification, request, result
from tests.proxy.piping import open_pipe_kit


def config_of(**settings):
    return ReverseProxyConfig(
        upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"), pipes=PipeEndpointConfig(**settings)
    )


class TestGarbage:
    @pytest.mark.parametrize(
        ("body", "id", "code"),
        [
            (b"hello", None, -32700),
            (b"{", None, -32700),
            (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', None, -32700),
            (b"7", None, -32600),
            (b"[]", None, -32600),
            (b'{"id":1,"method":"m"}', 1, -32600),
            (b'{"jsonrpc":"2.0","id":[],"method":"m"}', None, -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b"[" * 500 + b"]" * 500 + b"}", 1, -32600),
            (b'{"jsonrpc":"2.0","id":1}', 1, -32600),
            (None, None, -32600),
        ],
    )
    async def test_is_refused_and_the_next_message_served(self, autojump_clock, body, id, code):
        """One mistake ends nothing."""
        async with open_pipe_kit() as kit:
            refused = await kit.peer.call(body)
            assert (refused["id"], refused["error"]["code"]) == (id, code)
            (await kit.start(modern_request(2, "ping"))).answer(result(2))
            assert await kit.peer.receive() == result(2)

    async def test_batch_is_refused_to_each_where_there_are_none(self, autojump_clock):
        """2025-03-26 alone has them."""
        async with open_pipe_kit() as kit:
            await kit.initialize("2025-11-25")
            await kit.peer.send([request(1, "a"), notification("n"), request(2, "b")])
            assert [(await kit.peer.receive())["id"] for _ in range(2)] == [1, 2]

    async def test_batch_passes_where_there_are(self, autojump_clock):
        """One message in, one out."""
        async with open_pipe_kit() as kit:
            await kit.initialize("2025-03-26")
            call = await kit.start([request(1, "a"), request(2, "b")])
            call.answer([result(1), result(2)])
            assert await kit.peer.receive() == [result(1), result(2)]

    async def test_answer_to_nothing_is_dropped(self, autojump_clock):
        """Outside a session there is nobody who could have asked."""
        async with open_pipe_kit() as kit:
            await kit.peer.send(result("nobody"))
            await kit.peer.send(notification("notifications/initialized"))
            await kit.peer.send(notification("notifications/cancelled", requestId=1))
            await kit.peer.send(notification("notifications/cancelled", requestId=[{}]))
            assert await kit.peer.is_silent()
            assert kit.upstream.hits == 0

    async def test_lone_surrogate_breaks_nothing(self, autojump_clock):
        """In a name that has to be mirrored."""
        async with open_pipe_kit() as kit:
            body = json.dumps(modern_request(1, "tools/call", name="\ud800")).encode()
            assert (await kit.peer.call(body))["error"]["code"] == -32700


class TestOrder:
    async def test_requests_are_handed_over_as_they_came(self, autojump_clock):
        """A server on a pipe reads them so."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            for number in range(50):
                await kit.peer.send(request(number, "m"))
            assert [(await kit.upstream.next_call()).message["id"] for _ in range(50)] == [*range(50)]

    async def test_cancellation_finds_its_request(self, autojump_clock):
        """Right behind it."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            await kit.peer.send(request(1, "m"))
            await kit.peer.send(notification("notifications/cancelled", requestId=1))
            assert (await kit.upstream.next_call()).message == request(1, "m")
            cancelled = await kit.upstream.next_call()
            assert cancelled.message == notification("notifications/cancelled", requestId=1)

    async def test_request_behind_a_notification_waits_until_it_was_taken(self, autojump_clock):
        """Some servers refuse a request that overtakes ``notifications/initialized``."""
        async with open_pipe_kit() as kit:
            await kit.peer.send(modern_request(1, "m"))
            await kit.upstream.next_call()
            await kit.peer.send(notification("n"))
            await kit.peer.send(modern_request(2, "m"))
            note = await kit.upstream.next_call()
            await trio.sleep(4)
            assert kit.upstream.hits == 2
            note.respond(202)
            assert (await kit.upstream.next_call()).message["id"] == 2

    async def test_notification_that_is_never_taken_does_not_hold_up_the_rest(self, autojump_clock):
        """After a while, what follows goes on."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            stuck = await kit.start(notification("n"))
            began = trio.current_time()
            call = await kit.start(request(1, "m"))
            assert trio.current_time() - began == 5
            call.answer(result(1))
            assert await kit.peer.receive() == result(1)
            stuck.respond(202)

    async def test_request_that_is_never_sent_holds_up_notifications_once(self, autojump_clock):
        """A connection that is not made is not waited for again by each of them."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            upstream = kit.upstream
            send, stuck = upstream.send, trio.Event()

            async def send_but_one(sent):
                if b'"stuck"' in sent.body:
                    await stuck.wait()
                    raise UpstreamUnavailable("never")
                return await send(sent)

            upstream.send = send_but_one
            await kit.peer.send(request(1, "stuck"))
            began = trio.current_time()
            for _ in range(3):
                (await kit.start(notification("n"))).respond(202)
            assert trio.current_time() - began == 5

    async def test_messages_around_a_refused_notification_pass(self, autojump_clock):
        """There is nobody to tell."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            (await kit.start(notification("n"))).respond(400)
            (await kit.start(request(1, "m"))).answer(result(1))
            assert await kit.peer.receive() == result(1)


class TestBounds:
    async def test_more_requests_than_allowed_are_refused(self, autojump_clock):
        """With the id of each; and taken again when there is room."""
        async with open_pipe_kit(config_of(max_pending=2)) as kit:
            first = await kit.start(modern_request(1, "m"))
            await kit.start(modern_request(2, "m"))
            refused = await kit.peer.call(modern_request(3, "m"))
            assert (refused["id"], refused["error"]["code"]) == (3, -32603)
            first.answer(result(1))
            assert await kit.peer.receive() == result(1)
            await kit.start(modern_request(3, "m"))

    async def test_notifications_that_nobody_takes_are_dropped_at_the_limit(self, autojump_clock, caplog):
        """They are no way to fill the memory."""
        async with open_pipe_kit(config_of(max_pending=2, order_timeout=1.0)) as kit:
            await kit.initialize()
            for _ in range(5):
                await kit.peer.send(notification("n"))
            await trio.sleep(100)
            assert kit.upstream.hits == 3 + 2
        assert "too much is under way" in caplog.text

    async def test_long_answer_is_refused(self, autojump_clock):
        """It would have to be held whole."""
        async with open_pipe_kit(config_of(max_answer=1024)) as kit:
            call = await kit.start(modern_request(1, "m"))
            call.answer(result(1, text="x" * 2000))
            refused = await kit.peer.receive()
            assert (refused["id"], refused["error"]["code"]) == (1, -32603)


class TestCancellation:
    async def test_of_a_call_that_is_answered_already_passes(self, autojump_clock):
        """The server knows what to do with it."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            (await kit.start(request(1, "m"))).answer(result(1))
            await kit.peer.receive()
            assert (await kit.start(notification("notifications/cancelled", requestId=1))).request.method == "POST"

    async def test_that_several_calls_could_be_meant_by_cancels_none(self, autojump_clock):
        """Rather that than the wrong one."""
        async with open_pipe_kit() as kit:
            calls = [await kit.start(modern_request(1, "m")) for _ in range(2)]
            await kit.peer.send(notification("notifications/cancelled", requestId=1))
            await trio.sleep(10)
            assert not any(call.cancelled.is_set() for call in calls)
            assert kit.upstream.hits == 2

    async def test_legacy_call_that_ends_without_an_answer_is_not_reported(self, autojump_clock):
        """Who has cancelled it does not wait for it."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            call = await kit.start(request(1, "m"))
            events = call.open_events()
            (await kit.start(notification("notifications/cancelled", requestId=1))).respond(202)
            events.end()
            assert await kit.peer.is_silent(100)

    @pytest.mark.parametrize("after", range(12))
    async def test_of_the_whole_leaves_nothing(self, autojump_clock, after):
        """At whatever point it comes."""
        async with open_pipe_kit() as kit:
            await kit.initialize()
            for message in (request(1, "a"), notification("n"), modern_request(2, "b"), request(3, "initialize")):
                await kit.peer.send(message)
            for _ in range(after):
                await trio.lowlevel.checkpoint()
            kit.nursery.cancel_scope.cancel()
        assert kit.app.under_way == 0
