"""What follows when the upstream breaks off: rule by rule."""

import pytest
import trio

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig
from shadowcat.errors import UpstreamDisconnected, UpstreamUnavailable
from shadowcat.proxy.pump import PumpConfig
from shadowcat.resilience import BackoffConfig
from shadowcat.testing import notification, open_proxy_kit, request, result

from .conversation import Follower, open_session, start_listen, start_post, start_stream

CUT = UpstreamDisconnected("gone")


def step(number):
    return notification("notifications/progress", progress=number)


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        await open_session(kit)
        yield kit


async def resumed(kit, last_event_id):
    """Return the upstream's side of the next attempt to go on after an event."""
    call = await kit.upstream.next_call()
    assert call.request.method == "GET"
    assert call.headers.get("last-event-id") == last_event_id
    assert call.headers["accept"] == "text/event-stream"
    assert call.headers["mcp-session-id"] == "upstream-1"
    return call


class TestAnswer:
    async def test_cut_stream_is_resumed_and_its_client_notices_nothing(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)
        again = (await resumed(kit, "a")).open_events()
        await again.send(step(2), "b")
        await again.send(result(1), "c")
        again.end()

        assert await follower.rest() == [step(1), step(2), result(1)]
        assert kit.upstream.hits == 3

    async def test_what_is_sent_twice_arrives_once(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        for number in range(4):
            await events.send(step(number), str(number))
        await events.cut(CUT)
        again = (await resumed(kit, "3")).open_events()
        for number in range(2, 6):
            await again.send(step(number), str(number))
        await again.send(result(1), "x")
        again.end()

        assert await follower.rest() == [*map(step, range(6)), result(1)]

    async def test_id_without_data_is_enough(self, autojump_clock, kit):
        """MCP 2025-11-25: the server primes the client with an id and empty data."""
        events, follower = await start_stream(kit)
        await events.send_bytes(b"id: p\ndata:\n\n")
        await events.cut(CUT)
        again = (await resumed(kit, "p")).open_events()
        await again.send(result(1))
        again.end()

        assert await follower.rest() == [result(1)]

    async def test_without_an_id_the_caller_is_told(self, autojump_clock, kit):
        events, follower = await start_stream(kit, 9)
        await events.send(step(1))
        await events.cut(CUT)

        assert await follower.next() == step(1)
        (answer,) = await follower.rest()
        assert (answer["id"], answer["error"]["code"]) == (9, -32603)
        assert "check before sending it again" in answer["error"]["message"]
        assert kit.upstream.hits == 2

    async def test_after_the_answer_nothing_is_resumed(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(result(1), "a")
        await events.cut(CUT)

        assert await follower.rest() == [result(1)]
        await trio.sleep(1000)
        assert kit.upstream.hits == 2

    async def test_server_that_forgets_to_end_the_stream_is_not_waited_for(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(result(1), "a")
        assert await follower.rest() == [result(1)]
        assert trio.current_time() == pytest.approx(1)

    async def test_client_is_told_when_the_server_wants_to_be_asked_again(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send_bytes(b"id: 1\nretry: 7000\ndata:\n\n")
        event = await follower.response.next_event()
        assert (event.retry, event.data) == (7000, b"")
        assert event.id.decode() != follower.cursor

    async def test_answer_is_known_by_value_not_by_spelling(self, autojump_clock, kit):
        call, response = await start_post(kit, b'{"jsonrpc":"2.0","id":"\\u0061","method":"x"}')
        events = call.open_events()
        await events.send(result("a"), "1")
        events.end()
        assert await Follower(await response()).rest() == [result("a")]

    async def test_server_that_closes_on_purpose_is_polled_when_it_likes(self, autojump_clock, kit):
        """MCP 2025-11-25, Streamable HTTP: the client MUST respect the retry field."""
        events, follower = await start_stream(kit)
        await events.send_bytes(b"id: 1\nretry: 7000\ndata:\n\n")
        events.end()
        for number in range(1, 4):
            began = trio.current_time()
            again = (await resumed(kit, str(number))).open_events()
            assert trio.current_time() - began == 7
            await again.send(step(number), str(number + 1))
            again.end()
        again = (await resumed(kit, "4")).open_events()
        await again.send(result(1), "5")
        again.end()
        assert await follower.rest() == [step(1), step(2), step(3), result(1)]

    async def test_long_retry_is_cut_to_the_cap(self, autojump_clock, kit):
        events, _ = await start_stream(kit)
        await events.send_bytes(b"id: 1\nretry: 999999999\ndata:\n\n")
        events.end()
        await resumed(kit, "1")
        assert trio.current_time() == 30

    async def test_event_that_was_cut_comes_again_as_a_whole(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.send_bytes(b'id: b\ndata: {"half')
        await events.cut(CUT)
        again = (await resumed(kit, "a")).open_events()
        await again.send(result(1), "b")
        again.end()
        assert await follower.rest() == [step(1), result(1)]

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
    async def test_failures_of_the_moment_are_tried_again(self, autojump_clock, kit, status):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)
        for _ in range(5):
            (await resumed(kit, "a")).respond(status)
        again = (await resumed(kit, "a")).open_events()
        await again.send(result(1), "b")
        again.end()
        assert await follower.rest() == [step(1), result(1)]

    async def test_waits_grow_up_to_the_cap(self, autojump_clock, kit):
        events, _ = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)
        before, limit = trio.current_time(), 0.2
        for _ in range(12):
            call = await resumed(kit, "a")
            assert trio.current_time() - before <= limit
            before, limit = trio.current_time(), min(limit * 2, 30)
            call.fail(UpstreamUnavailable("refused"))

    async def test_after_five_minutes_without_progress_the_caller_is_told(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)

        async def refuse():
            while True:
                (await resumed(kit, "a")).fail(UpstreamUnavailable("refused"))

        kit.nursery.start_soon(refuse)
        assert await follower.next() == step(1)
        (answer,) = await follower.rest()
        assert (answer["id"], answer["error"]["code"]) == (1, -32603)
        assert 270 <= trio.current_time() <= 330

    async def test_progress_begins_the_budget_anew(self, autojump_clock):
        backoff = BackoffConfig(base=1, cap=1, budget=5)
        config = ReverseProxyConfig(
            upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"), streams=PumpConfig(backoff=backoff)
        )
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            await events.send(step(0), "0")
            await events.cut(CUT)
            for number in range(20):
                for _ in range(2):
                    (await resumed(kit, str(number))).respond(503)
                again = (await resumed(kit, str(number))).open_events()
                await again.send(step(number + 1), str(number + 1))
                await again.cut(CUT)
            assert [await follower.next() for _ in range(21)] == [*map(step, range(21))]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410])
    async def test_refusal_is_the_end_and_the_caller_is_told(self, autojump_clock, kit, status):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)
        (await resumed(kit, "a")).respond(status)

        assert await follower.next() == step(1)
        (answer,) = await follower.rest()
        assert (answer["id"], answer["error"]["code"]) == (1, -32603)
        await trio.sleep(1000)
        assert kit.upstream.hits == 3

    async def test_answer_that_is_no_stream_is_a_refusal(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.cut(CUT)
        (await resumed(kit, "a")).answer({})
        assert [message.get("id") for message in await follower.rest()] == [None, 1]

    async def test_cancelled_call_is_not_waited_for(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        cancel, accepted = await start_post(kit, notification("notifications/cancelled", requestId=1))
        cancel.respond(202)
        await accepted()
        events.end()

        assert await follower.rest() == [step(1)]
        await trio.sleep(1000)
        assert kit.upstream.hits == 3

    async def test_giant_event_passes_in_parts(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        body = b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + b"x" * 5_000_000 + b'"}}'

        async def send():
            await events.send_bytes(b"id: a\ndata: ")
            for start in range(0, len(body), 65536):
                await events.send_bytes(body[start : start + 65536])
            await events.send_bytes(b"\n\n")
            events.end()

        kit.nursery.start_soon(send)
        read = await follower.response.read()
        assert read.partition(b"\n")[2] == b"data: " + body + b"\n\n"

    async def test_giant_event_that_was_cut_is_asked_for_again(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        assert await follower.next() == step(1)

        async def begin():
            await events.send_bytes(b"id: b\ndata: " + b"x" * 2_000_000)
            await events.cut(CUT)

        kit.nursery.start_soon(begin)
        with pytest.raises(trio.BrokenResourceError):
            await follower.next()

        async def finish():
            again = (await resumed(kit, "a")).open_events()
            await again.send(result(1), "b")
            again.end()

        kit.nursery.start_soon(finish)
        await follower.resume(kit.client)
        assert await follower.rest() == [result(1)]


class TestListening:
    async def test_it_goes_on_after_the_last_event(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events = call.open_events()
        follower = Follower(await response())
        await events.send(step(1), "a")
        events.end()
        again = (await resumed(kit, "a")).open_events()
        await again.send(step(2), "b")
        assert [await follower.next(), await follower.next()] == [step(1), step(2)]

    async def test_without_ids_it_goes_on_and_says_that_there_is_a_gap(self, autojump_clock):
        async with open_proxy_kit() as kit:
            await open_logging_session(kit)
            call, response = await start_listen(kit)
            events = call.open_events()
            follower = Follower(await response())
            await events.send(step(1))
            await events.cut(CUT)
            again = (await resumed(kit, None)).open_events()
            await again.send(step(2))

            assert await follower.next() == step(1)
            gap = await follower.next()
            assert (gap["method"], gap["params"]["logger"]) == ("notifications/message", "shadowcat")
            assert await follower.next() == step(2)

    async def test_client_of_a_server_that_does_not_log_is_not_told(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events = call.open_events()
        follower = Follower(await response())
        await events.send(step(1))
        await events.cut(CUT)
        again = (await resumed(kit, None)).open_events()
        await again.send(step(2))
        assert [await follower.next(), await follower.next()] == [step(1), step(2)]

    @pytest.mark.parametrize("status", [401, 403, 405])
    async def test_refusal_ends_it(self, autojump_clock, kit, status):
        call, response = await start_listen(kit)
        events = call.open_events()
        follower = Follower(await response())
        await events.send(step(1), "a")
        await events.cut(CUT)
        (await resumed(kit, "a")).respond(status)
        assert await follower.rest() == [step(1)]

    async def test_silence_is_no_reason_to_end(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events = call.open_events()
        follower = Follower(await response())
        await follower.prime()

        async def send():
            await trio.sleep(3600)
            await events.send(step(1), "a")

        kit.nursery.start_soon(send)
        assert await follower.next() == step(1)
        assert trio.current_time() >= 3600
        assert kit.upstream.hits == 2


async def test_few_reconnect_at_once(autojump_clock):
    config = ReverseProxyConfig(
        upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"), streams=PumpConfig(max_reconnects=3)
    )
    async with open_proxy_kit(config) as kit:
        await open_session(kit)
        for number in range(10):
            events, _ = await start_stream(kit, number)
            await events.send(step(number), f"e{number}")
            await events.cut(CUT)
        await trio.sleep(2)
        calls = []
        for expected in (3, 3, 3, 1):
            for _ in range(expected):
                calls.append(await kit.upstream.next_call())
            await trio.sleep(2)
            assert kit.upstream.hits == 11 + len(calls)
            for call in calls[-expected:]:
                call.open_events()
        assert {call.headers["last-event-id"] for call in calls} == {f"e{number}" for number in range(10)}


async def open_logging_session(kit):
    async def answer():
        call = await kit.upstream.next_call()
        said = result(0, protocolVersion="2025-11-25", capabilities={"logging": {}}, serverInfo={"name": "s"})
        call.answer(said, headers={"mcp-session-id": "upstream-1"})

    kit.nursery.start_soon(answer)
    await (await kit.client.initialize()).read()


async def test_bug_in_one_stream_ends_that_stream_alone(autojump_clock, kit, caplog):
    """The boundary of work for a session."""
    call, response = await start_post(kit, request(1, "x"))
    events = call.open_events()
    follower = Follower(await response())
    await follower.prime()
    await events.cut(ZeroDivisionError("a bug"))
    with pytest.raises(trio.BrokenResourceError):
        await follower.next()
    assert "work for a session failed" in caplog.text

    call, response = await start_post(kit, request(2, "x"))
    call.answer(result(2))
    assert await (await response()).json() == result(2)


class TestQuiet:
    async def test_quiet_stream_that_is_cut_is_resumed(self, autojump_clock, kit):
        """The budget counts from the cut, not from the last event."""
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        assert await follower.next() == step(1)
        await trio.sleep(3600)
        await events.cut(CUT)
        again = (await resumed(kit, "a")).open_events()
        await again.send(result(1), "b")
        again.end()
        assert await follower.rest() == [result(1)]

    async def test_quiet_listening_stream_that_is_cut_each_minute_lives(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events, follower = call.open_events(), Follower(await response())
        await follower.prime()
        for _ in range(60):
            await trio.sleep(60)
            events.end()
            events = (await resumed(kit, None)).open_events()
        await events.send(step(1), "a")
        assert await follower.next() == step(1)


async def test_batch_has_an_answer_for_each_of_its_requests(autojump_clock):
    """MCP 2025-03-26: however long it takes from one to the next."""
    async with open_proxy_kit() as kit:
        await open_session(kit, "2025-03-26")
        batch = [request(1, "ping"), notification("n"), request("2", "ping")]
        call, response = await start_post(kit, batch)
        events, follower = call.open_events(), Follower(await response())

        async def answer():
            await events.send(result(1))
            await trio.sleep(600)
            await events.send(result("2"))

        kit.nursery.start_soon(answer)
        assert await follower.rest() == [result(1), result("2")]
        assert trio.current_time() == pytest.approx(601)


async def test_listening_stream_that_the_upstream_refuses_is_lost(autojump_clock, kit):
    """Who comes back for it is told so; an empty stream would be asked for again and again."""
    call, response = await start_listen(kit)
    events, follower = call.open_events(), Follower(await response())
    await events.send(step(1), "a")
    events.end()
    (await resumed(kit, "a")).respond(405)
    assert await follower.rest() == [step(1)]
    assert (await kit.client.listen(follower.cursor)).status == 410
