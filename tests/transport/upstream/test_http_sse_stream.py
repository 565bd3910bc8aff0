"""One session over HTTP+SSE: messages out by POST, in by events."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import (
    MessageRefused,
    MessageTooLong,
    StreamBroken,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamRedirected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

from .sse_server import ENDPOINT, SECRETS, Cut, SseServer, open_stream


def event(data):
    return b"event: message\ndata: %s\n\n" % data


class Gate:
    """Accepts each message when the test says so."""

    def __init__(self, server):
        server.on_post = self.accept
        self.arrived = []
        self.opened = trio.Event()

    async def accept(self, message):
        self.arrived.append((message, trio.current_time()))
        await self.opened.wait()
        return httpx.Response(202)


class TestReceiving:
    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    async def test_events_are_messages_however_they_arrive(self, size):
        """Comments, other events and those without data are not."""
        text = (
            b': heartbeat\n\nevent: message\r\ndata: {"a":1}\r\n\r\nid: 5\ndata:{"b":2}\n\nevent: ping\ndata: x\n\n'
            b'event: endpoint\ndata: /other\n\nevent: message\ndata:\n\nevent: message\ndata: {"c":\ndata: 3}\n\n'
        )
        server = SseServer(ENDPOINT)
        async with open_stream(server) as stream, trio.open_nursery() as nursery:

            async def speak():
                for start in range(0, len(text), size):
                    await server.say(text[start : start + size])

            nursery.start_soon(speak)
            assert [await stream.receive() for _ in range(3)] == [b'{"a":1}', b'{"b":2}', b'{"c":\n3}']
            await stream.send(b"{}")
        assert server.posts[0].url.path == "/messages"

    async def test_a_message_may_come_with_the_endpoint(self):
        """In one piece of the body."""
        async with open_stream(SseServer(ENDPOINT + event(b"1"))) as stream:
            assert await stream.receive() == b"1"

    async def test_a_message_that_is_too_long_is_dropped_alone(self):
        """The next one is whole."""
        server = SseServer(ENDPOINT, event(b"x" * 50), event(b"x" * 51), event(b"7"))
        async with open_stream(server, max_message_size=50) as stream:
            assert await stream.receive() == b"x" * 50
            with pytest.raises(MessageTooLong, match="longer than 50 bytes"):
                await stream.receive()
            assert await stream.receive() == b"7"

    async def test_the_end_is_told_after_all_messages_and_again(self):
        """... and nothing can be sent any more."""
        server = SseServer(ENDPOINT, event(b"1") + event(b"2"))
        async with open_stream(server) as stream:
            server.end()
            assert [await stream.receive(), await stream.receive()] == [b"1", b"2"]
            for use in (stream.receive, stream.receive, lambda: stream.send(b"{}")):
                with pytest.raises(StreamBroken, match=r"has ended the event stream; initialize again"):
                    await use()
        assert server.posts == []

    async def test_a_cut_is_told(self):
        """Half an event is none."""
        async with open_stream(SseServer(ENDPOINT, event(b"1"), b"data: 2\n", Cut())) as stream:
            assert await stream.receive() == b"1"
            with pytest.raises(StreamBroken, match=r"broke off the event stream; initialize again"):
                await stream.receive()

    async def test_cancelling_loses_nothing(self, autojump_clock):
        """Not even in the middle of an event."""
        server = SseServer(ENDPOINT, b"data: {")
        async with open_stream(server) as stream:
            with trio.move_on_after(1):
                await stream.receive()
            await server.say(b"}\n\n")
            assert await stream.receive() == b"{}"

    async def test_is_read_on_demand_only(self, autojump_clock):
        """A client that reads slowly slows the server down."""
        server = SseServer(ENDPOINT, event(b"1") + event(b"2"), event(b"3"))
        async with open_stream(server) as stream:
            await wait_all_tasks_blocked()
            reads = [server.body.reads]
            for _ in range(3):
                await stream.receive()
                reads.append(server.body.reads)
        assert reads == [1, 2, 2, 3]

    async def test_a_silent_stream_stays_open(self, autojump_clock):
        """For as long as the client likes."""
        server = SseServer(ENDPOINT)
        async with open_stream(server) as stream:
            with trio.move_on_after(7 * 24 * 3600):
                await stream.receive()
            await server.say(event(b"1"))
            assert await stream.receive() == b"1"


class TestSending:
    async def test_a_message_waits_until_the_one_before_was_accepted(self, autojump_clock):
        """So they arrive in order, though each has a connection of its own."""
        server = SseServer(ENDPOINT)
        gate = Gate(server)
        async with open_stream(server) as stream, trio.open_nursery() as nursery:
            for message in (b"1", b"2", b"3"):
                nursery.start_soon(stream.send, message)
                await wait_all_tasks_blocked()
            assert gate.arrived == [(b"1", 0)]
            gate.opened.set()
        assert gate.arrived == [(b"1", 0), (b"2", 0), (b"3", 0)]

    async def test_but_not_for_long(self, autojump_clock):
        """A server that accepts a request when it has answered it may need another message first."""
        server = SseServer(ENDPOINT)
        gate = Gate(server)
        async with open_stream(server) as stream, trio.open_nursery() as nursery:
            for message in (b"1", b"2", b"3"):
                nursery.start_soon(stream.send, message)
                await wait_all_tasks_blocked()
            await trio.sleep(5)
            assert [message for message, _ in gate.arrived] == [b"1", b"2", b"3"]
            assert [at for _, at in gate.arrived] == pytest.approx([0, 0.1, 0.2])
            gate.opened.set()

    async def test_a_sender_that_is_cancelled_holds_up_nobody(self, autojump_clock):
        """Whether its message is on its way or waits for its turn."""
        server = SseServer(ENDPOINT)
        gate = Gate(server)
        async with open_stream(server) as stream, trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                await stream.send(b"1")
            nursery.start_soon(stream.send, b"2")
            await wait_all_tasks_blocked()
            with trio.move_on_after(0.05):
                await stream.send(b"3")
            nursery.start_soon(stream.send, b"4")
            await trio.sleep(1)
            gate.opened.set()
        assert [message for message, _ in gate.arrived] == [b"1", b"2", b"4"]
        assert [at for _, at in gate.arrived] == pytest.approx([0, 1, 1.1])

    async def test_cancelled_beforehand_sends_nothing(self):
        """A checkpoint."""
        server = SseServer(ENDPOINT)
        async with open_stream(server) as stream:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send(b"1")
            await stream.send(b"2")
        assert [b"".join(post.stream) for post in server.posts] == [b"2"]

    @pytest.mark.parametrize("status", [200, 202, 204])
    async def test_any_success_is_one(self, status):
        """2024-11-05 does not say which."""
        server = SseServer(ENDPOINT)

        async def accept(message):
            return httpx.Response(status)

        server.on_post = accept
        async with open_stream(server) as stream:
            await stream.send(b"1")

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (400, "check whether it was acted upon"),
            (401, "credentials"),
            (404, "initialize again"),
            (413, "shorter"),
            (500, "check whether it was acted upon"),
            (503, "later"),
        ],
    )
    async def test_a_refusal_concerns_one_message(self, status, text):
        """The stream goes on."""
        server = SseServer(ENDPOINT)

        async def refuse(message):
            return httpx.Response(status if message == b"1" else 202, content=b"hidden")

        server.on_post = refuse
        async with open_stream(server) as stream:
            with pytest.raises(MessageRefused, match=rf"HTTP status {status}; .*{text}") as caught:
                await stream.send(b"1")
            assert "hidden" not in str(caught.value)
            await stream.send(b"2")
            await server.say(event(b"3"))
            assert await stream.receive() == b"3"

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (httpx.ConnectError("x"), UpstreamUnavailable),
            (httpx.ReadError("x"), UpstreamDisconnected),
            (httpx.ReadTimeout("x"), UpstreamTimeout),
            (httpx.RemoteProtocolError("x"), MessageRefused),
            (httpx.LocalProtocolError("x"), MessageRefused),
        ],
    )
    async def test_a_failure_says_whether_the_server_has_the_message(self, error, kind):
        """... and concerns one message too."""
        server = SseServer(ENDPOINT)

        async def fail(message):
            raise error

        async with open_stream(server) as stream:
            server.on_post = fail
            with pytest.raises(kind) as caught:
                await stream.send(b"1")
            assert isinstance(caught.value, UpstreamError)
            assert not [secret for secret in SECRETS if secret in str(caught.value)]
            server.on_post = server.accept
            await stream.send(b"2")

    async def test_a_redirect_is_not_followed(self):
        """... here as little as at the beginning."""
        server = SseServer(ENDPOINT)

        async def move(message):
            return httpx.Response(307, headers={"location": "https://elsewhere.example/m"})

        server.on_post = move
        async with open_stream(server) as stream:
            with pytest.raises(UpstreamRedirected):
                await stream.send(b"1")
        assert len(server.posts) == 1

    async def test_acceptance_has_its_time(self, autojump_clock):
        """A server may be slow, but not for ever."""
        server = SseServer(ENDPOINT)
        Gate(server)
        async with open_stream(server, answer_timeout=20) as stream:
            with pytest.raises(UpstreamTimeout):
                await stream.send(b"1")
        assert trio.current_time() == 20

    @pytest.mark.parametrize("content_type", ["text/plain", "text/event-stream"])
    async def test_an_answer_that_does_not_end_is_not_waited_for(self, autojump_clock, content_type):
        """What is behind the head says nothing."""
        server, reply = SseServer(ENDPOINT), SseServer(b"x", content_type=content_type)

        async def accept(message):
            return httpx.Response(200, headers=reply.headers, stream=reply.body)

        server.on_post = accept
        async with open_stream(server) as stream:
            await stream.send(b"1")
        assert trio.current_time() <= 1
        assert reply.body.closed.is_set()

    async def test_an_answer_that_is_cut_behind_its_head_is_one(self):
        """The message was accepted."""
        server, reply = SseServer(ENDPOINT), SseServer(b"x" * 40000, b"x" * 40000, Cut())

        async def accept(message):
            return httpx.Response(202, headers={"content-type": "text/plain"}, stream=reply.body)

        server.on_post = accept
        async with open_stream(server) as stream:
            await stream.send(b"1")
