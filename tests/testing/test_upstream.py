"""The upstream of the kit, asked as a relay asks it."""

import json
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import UpstreamDisconnected, UpstreamTimeout
from shadowcat.protocol import ResponseMode, SSEDecoder, SSEEvent
from shadowcat.testing import ScriptedUpstream, request, result
from shadowcat.transport import UpstreamRequest

BODY = json.dumps(request(1, "x")).encode()
POST = UpstreamRequest("POST", [(b"mcp-session-id", b"u"), (b"x-a", b"\xe9")], BODY)


class Caller:
    """Sends one request in a task, and holds what came of it."""

    def __init__(self, upstream, nursery, sent=POST):
        self.response: Any = None
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        nursery.start_soon(self.run, upstream, sent)

    async def run(self, upstream, sent):
        with self.scope:
            try:
                self.response = await upstream.send(sent)
            except UpstreamTimeout as error:
                self.error = error


@pytest.fixture
async def upstream(autojump_clock):
    return ScriptedUpstream()


async def start(upstream, nursery):
    caller = Caller(upstream, nursery)
    return caller, await upstream.next_call()


async def read(response):
    return [chunk async for chunk in response.body]


class TestCall:
    async def test_call_shows_the_request(self, autojump_clock, upstream, nursery):
        """Message, headers and the bytes themselves."""
        caller, call = await start(upstream, nursery)

        assert call.request is POST
        assert call.message == request(1, "x")
        assert call.headers == {"mcp-session-id": "u", "x-a": "é"}
        assert (upstream.hits, caller.response) == (1, None)
        nursery.cancel_scope.cancel()

    async def test_calls_come_in_order_and_are_counted_at_once(self, autojump_clock, upstream, nursery):
        """They wait until the test takes them."""
        for number in range(20):
            Caller(upstream, nursery, UpstreamRequest("POST", [], b"%d" % number))
            await wait_all_tasks_blocked()
        assert upstream.hits == 20
        assert list(range(20)) == [(await upstream.next_call()).message for _ in range(20)]
        nursery.cancel_scope.cancel()

    async def test_calls_are_answered_in_any_order(self, autojump_clock, upstream, nursery):
        """An open call never delays another."""
        (first, first_call), (second, second_call) = await start(upstream, nursery), await start(upstream, nursery)
        second_call.answer(result(2))
        await wait_all_tasks_blocked()
        assert (first.response, second.response.status) == (None, 200)
        first_call.respond(204)
        await wait_all_tasks_blocked()
        assert first.response.status == 204


class TestAnswer:
    async def test_answer_is_one_json_document(self, autojump_clock, upstream, nursery):
        """Status and headers may be said."""
        caller, call = await start(upstream, nursery)
        call.answer(result(1), status=404, headers={"Mcp-Session-Id": "s"})
        await wait_all_tasks_blocked()
        response = caller.response

        assert (response.status, response.mode) == (404, ResponseMode.JSON)
        assert response.header(b"mcp-session-id") == b"s"
        assert [json.loads(chunk) for chunk in await read(response)] == [result(1)]

    async def test_body_comes_in_the_pieces_it_was_given(self, autojump_clock, upstream, nursery):
        """... with any headers or none."""
        caller, call = await start(upstream, nursery)
        call.respond(500, {"content-type": "text/plain"}, [b"a", b"bc"])
        await wait_all_tasks_blocked()

        assert (caller.response.status, caller.response.mode) == (500, ResponseMode.PASSTHROUGH)
        assert await read(caller.response) == [b"a", b"bc"]

    async def test_call_may_fail(self, autojump_clock, upstream, nursery):
        """As a transport fails."""
        caller, call = await start(upstream, nursery)
        call.fail(error := UpstreamTimeout("late"))
        await wait_all_tasks_blocked()

        assert caller.error is error

    async def test_initialize_is_answered_in_one_line(self, autojump_clock, upstream, nursery):
        """The id is that of the request; session id and version are the test's."""
        caller = Caller(upstream, nursery)
        call = await upstream.answer_initialize("s", "2025-06-18")
        await wait_all_tasks_blocked()
        (body,) = await read(caller.response)

        assert call.request is POST
        assert caller.response.header(b"mcp-session-id") == b"s"
        assert (json.loads(body)["id"], json.loads(body)["result"]["protocolVersion"]) == (1, "2025-06-18")


class TestEvents:
    async def open(self, upstream, nursery, headers=None):
        caller, call = await start(upstream, nursery)
        events = call.open_events(headers)
        await wait_all_tasks_blocked()
        return call, events, caller.response

    async def test_stream_has_its_headers_before_its_events(self, autojump_clock, upstream, nursery):
        """... and the test's."""
        _, _, response = await self.open(upstream, nursery, {"X-A": "b"})
        assert (response.status, response.mode, response.header(b"x-a")) == (200, ResponseMode.SSE_STREAM, b"b")

    async def test_messages_are_sent_as_events(self, autojump_clock, upstream, nursery):
        """With an id if it is given one."""
        _, events, response = await self.open(upstream, nursery)
        nursery.start_soon(events.send, result(1))
        nursery.start_soon(events.send, result(1), "7")
        chunks = sorted([await anext(response.body), await anext(response.body)])

        text = json.dumps(result(1)).encode()
        assert SSEDecoder().feed(chunks[0]) == [SSEEvent(text, b"message")]
        assert SSEDecoder().feed(chunks[1]) == [SSEEvent(text, b"message", b"7")]

    async def test_sending_waits_until_it_is_read(self, autojump_clock, upstream, nursery):
        """A slow client is felt by the server."""
        _, events, response = await self.open(upstream, nursery)
        sent = []

        async def flood():
            for number in range(5):
                await events.send_bytes(b"%d" % number)
                sent.append(number)

        nursery.start_soon(flood)
        for expected in range(5):
            await wait_all_tasks_blocked()
            assert sent == list(range(expected))
            assert await anext(response.body) == b"%d" % expected

    async def test_stream_ends_properly(self, autojump_clock, upstream, nursery):
        """... for good."""
        _, events, response = await self.open(upstream, nursery)
        events.end()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(response.body)

    async def test_stream_is_cut(self, autojump_clock, upstream, nursery):
        """What was sent before arrives; then it breaks."""
        _, events, response = await self.open(upstream, nursery)

        async def play():
            await events.send_bytes(b"a")
            await events.cut(UpstreamDisconnected("gone"))

        nursery.start_soon(play)
        assert await anext(response.body) == b"a"
        with pytest.raises(UpstreamDisconnected):
            await anext(response.body)

    async def test_nobody_reads_any_more(self, autojump_clock, upstream, nursery):
        """The server learns it as it would from a socket."""
        call, events, response = await self.open(upstream, nursery)
        assert not call.cancelled.is_set()
        await response.aclose()
        await response.aclose()

        assert call.cancelled.is_set()
        with pytest.raises(trio.BrokenResourceError):
            await events.send(result(1))


class TestCancelled:
    async def test_caller_that_gives_up_is_seen(self, autojump_clock, upstream, nursery):
        """It closed the connection before the head of the answer."""
        caller, call = await start(upstream, nursery)
        await wait_all_tasks_blocked()
        assert not call.cancelled.is_set()
        caller.scope.cancel()
        with trio.fail_after(1):
            await call.cancelled.wait()

    async def test_answer_that_comes_too_late_is_no_error(self, autojump_clock, upstream, nursery):
        """Nobody hears it."""
        caller, call = await start(upstream, nursery)
        caller.scope.cancel()
        await call.cancelled.wait()
        call.answer(result(1))
        await wait_all_tasks_blocked()

        assert caller.response is None
