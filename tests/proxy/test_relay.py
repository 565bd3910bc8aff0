"""How answers end: the client's way, the upstream's way, and ours."""

import json

import pytest
import trio

from shadowcat.errors import UpstreamDisconnected
from shadowcat.testing import modern_headers, modern_request, notification, open_proxy_kit, request, result

from .conversation import Pending, open_session, start_post


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        yield kit


class TestDocuments:
    async def test_long_document_streams_with_its_length(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        pieces = [b"x" * 65536] * 64
        call.respond(200, {"content-type": "application/json", "content-length": str(64 * 65536)}, pieces)

        answer = await response()
        assert answer.headers["content-length"] == str(64 * 65536)
        assert await answer.read() == b"".join(pieces)

    async def test_long_document_waits_for_a_slow_client(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        taken = []

        def pieces():
            for number in range(1024):
                taken.append(number)
                yield b"x" * 65536

        call.respond(200, {"content-type": "application/octet-stream"}, pieces())
        answer = await response()
        await trio.testing.wait_all_tasks_blocked()
        assert len(taken) < 8
        assert len(await answer.read()) == 1024 * 65536

    async def test_document_that_breaks_off_is_cut(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))

        def pieces():
            yield b"x" * 300_000
            raise UpstreamDisconnected("gone")

        call.respond(200, {"content-type": "application/json"}, pieces())
        with pytest.raises(trio.BrokenResourceError):
            await (await response()).read()

    async def test_short_document_that_breaks_off_is_an_error_with_the_callers_id(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request("q", "x"))

        def pieces():
            yield b'{"half":'
            raise UpstreamDisconnected("gone")

        call.respond(200, {"content-type": "application/json"}, pieces())
        answer = await response()
        assert answer.status == 502
        assert (await answer.json())["id"] == "q"

    async def test_encoded_answer_passes_unread(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        call.respond(200, {"content-type": "application/json", "content-encoding": "gzip"}, [b"\x1f\x8b..."])

        answer = await response()
        assert answer.headers["content-encoding"] == "gzip"
        assert await answer.read() == b"\x1f\x8b..."


class TestLongDocuments:
    """What is too long to be gathered streams, and nothing of ours gets into it."""

    @pytest.mark.parametrize("headers", [{}, {"content-length": "600000"}])
    async def test_no_heartbeat_gets_into_it(self, autojump_clock, kit, headers):
        message = modern_request(1, "x")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        call.respond(200, {"content-type": "application/json", **headers}, [b"x" * 300_000] * 2)
        answer = await response()
        await trio.sleep(100)
        assert await answer.read() == b"x" * 600_000

    async def test_no_last_word_gets_into_it(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        call.respond(200, {"content-type": "application/json"}, [b"x" * 300_000] * 2)
        answer = await response()
        kit.app.finish_drain()
        with pytest.raises(trio.BrokenResourceError):
            await answer.read()

    async def test_client_that_leaves_frees_it(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        call.respond(200, {"content-type": "text/html"}, (b"x" * 65536 for _ in iter(int, 1)))
        (await response()).leave()
        with trio.fail_after(5):
            await call.cancelled.wait()


class TestDraining:
    async def test_new_requests_are_refused(self, autojump_clock, kit):
        kit.app.begin_drain()
        response = await kit.client.post(request(1, "x"))
        assert response.status == 503
        assert response.headers["retry-after"]

    async def test_listening_stream_ends_properly(self, autojump_clock, kit):
        await open_session(kit)
        listening = Pending()
        kit.nursery.start_soon(listening.run, kit.client.listen)
        (await kit.upstream.next_call()).open_events()
        stream = await listening()
        assert (await stream.next_event()).data == b""
        kit.app.begin_drain()

        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

    async def test_subscription_ends_with_its_result(self, autojump_clock, kit):
        message = modern_request("sub", "subscriptions/listen")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        call.open_events()
        stream = await response()
        kit.app.begin_drain()

        answer = await stream.next_message()
        assert answer["id"] == "sub"
        assert answer["result"]["resultType"] == "complete"
        assert answer["result"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "sub"}
        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

    async def test_call_may_finish(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        kit.app.begin_drain()
        await trio.sleep(5)
        call.answer(result(1, done=True))

        assert await (await response()).json() == result(1, done=True)

    async def test_unfinished_call_is_told(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        kit.app.begin_drain()
        kit.app.finish_drain()

        answer = await response()
        error = await answer.json()
        assert (answer.status, error["id"]) == (504, 1)
        assert "check before sending it again" in error["error"]["message"]
        assert call.cancelled.is_set()

    async def test_unfinished_stream_is_told(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        call.open_events()
        stream = await response()
        kit.app.finish_drain()

        assert (await stream.next_message())["id"] == 1
        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

    async def test_stream_that_can_go_on_elsewhere_is_told_to_come_back(self, autojump_clock, kit):
        """The upstream has given an id, so the next process can ask it for the rest."""
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        events = call.open_events()
        stream = await response()
        assert (await stream.next_event()).data == b""
        await events.send(notification("notifications/progress", progress=1), "u1")
        assert (await stream.next_message())["method"] == "notifications/progress"
        kit.app.finish_drain()

        last = await stream.next_event()
        assert (last.data, last.id, last.retry) == (None, None, 1000)
        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

    async def test_stream_within_an_event_is_only_cut(self, autojump_clock, kit):
        message = modern_request(1, "x")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        events = call.open_events()
        stream = await response()
        kit.nursery.start_soon(events.send_bytes, b"data: half")
        assert await stream.read_some() == b"data: half"
        kit.app.finish_drain()

        with pytest.raises(trio.BrokenResourceError):
            await stream.read_some()

    async def test_nothing_is_under_way_afterwards(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        assert kit.app.under_way == 1
        call.answer(result(1))
        await (await response()).json()
        await trio.testing.wait_all_tasks_blocked()
        assert kit.app.under_way == 0


class TestStrandedCaller:
    """Modern streams; those of the legacy era are resumed instead."""

    async def test_stream_that_ends_without_the_answer_gets_an_error(self, autojump_clock, kit):
        events, stream = await start_modern(kit, modern_request(3, "x"))
        kit.nursery.start_soon(events.send, result(4))
        await stream.next_event()
        events.end()

        answer = await stream.next_message()
        assert (answer["id"], answer["error"]["code"]) == (3, -32603)

    async def test_stream_that_ends_within_an_event_is_cut(self, autojump_clock, kit):
        """Nothing can be said there, and an orderly end would be a lie."""
        events, stream = await start_modern(kit, modern_request(3, "x"))
        kit.nursery.start_soon(events.send_bytes, b"data: half")
        await stream.read_some()
        events.end()
        with pytest.raises(trio.BrokenResourceError):
            await stream.read_some()

    async def test_answer_is_known_by_value_not_by_spelling(self, autojump_clock, kit):
        message = json.dumps(modern_request("a", "x")).replace('"a"', '"\\u0061"', 1)
        call, response = await start_post(
            kit, message.encode(), headers={"mcp-protocol-version": "2026-07-28", "mcp-method": "x"}
        )
        events = call.open_events()
        kit.nursery.start_soon(events.send, result("a"))
        stream = await response()
        await stream.next_event()
        events.end()

        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

    async def test_giant_event_passes_and_counts_as_the_answer(self, autojump_clock, kit):
        events, stream = await start_modern(kit, modern_request(1, "x"))

        async def send():
            await events.send_bytes(b"data: ")
            for _ in range(80):
                await events.send_bytes(b"x" * 65536)
            await events.send_bytes(b"\n\n")
            events.end()

        kit.nursery.start_soon(send)
        assert len(await stream.read()) == 6 + 80 * 65536 + 2

    async def test_subscription_that_is_cut_is_cut(self, autojump_clock, kit):
        events, stream = await start_modern(kit, modern_request("sub", "subscriptions/listen"))
        kit.nursery.start_soon(events.send, notification("notifications/tools/list_changed"))
        await stream.next_event()
        kit.nursery.start_soon(events.cut, UpstreamDisconnected("gone"))

        with pytest.raises(trio.BrokenResourceError):
            await stream.next_event()


async def start_modern(kit, message):
    """Send *message* and have it answered by an event stream; return both ends of that."""
    call, response = await start_post(kit, message, headers=modern_headers(message))
    events = call.open_events()
    return events, await response()
