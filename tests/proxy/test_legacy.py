"""What a client finds that comes back to the same proxy."""

import contextlib
import json

import pytest
import trio
import trio.testing

from shadowcat import HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig, SessionConfig
from shadowcat.errors import StoreUnavailable, UpstreamDisconnected
from shadowcat.session import LogLimits, StreamConfig, open_failover_store
from shadowcat.testing import notification, open_proxy_kit, request, result

from ..session.stores.flaky import FlakyStore
from .conversation import Follower, move, open_session, start_listen, start_post, start_stream

CUT = UpstreamDisconnected("gone")
UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


def step(number):
    return notification("notifications/progress", progress=number)


def config_of(**streams):
    return ReverseProxyConfig(upstream=UPSTREAM, sessions=SessionConfig(streams=StreamConfig(**streams)))


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        await open_session(kit)
        yield kit


async def answered(kit, follower, cursor):
    """Return what the proxy says to a client that comes back with *cursor*."""
    follower.response.leave()
    return await kit.client.listen(cursor)


class TestSameProxy:
    async def test_missed_events_come_then_those_to_come(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1))
        assert await follower.next() == step(1)
        follower.response.leave()
        for number in (2, 3):
            await events.send(step(number))
        response = await follower.resume(kit.client)
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert [await follower.next(), await follower.next()] == [step(2), step(3)]
        await events.send(step(4))
        await events.send(result(1))
        events.end()

        assert await follower.rest() == [step(4), result(1)]
        assert kit.upstream.hits == 2

    async def test_client_that_comes_back_is_told_its_own_place_before_anything_new(self, autojump_clock, kit):
        """Not all remember it if they are cut off again before an event comes."""
        events, follower = await start_stream(kit)
        await events.send_bytes(b"id: p\nretry: 250\ndata:\n\n")
        await events.send(step(1), "a")
        await follower.next()
        cursor = follower.cursor
        for _ in range(2):
            with trio.fail_after(5):
                event = await (await follower.resume(kit.client)).next_event()
            assert (event.id, event.data, event.retry) == (cursor.encode(), b"", 250)
        await events.send(result(1), "b")
        events.end()
        assert await follower.rest() == [result(1)]

    async def test_answer_waits_for_its_client(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        follower.response.leave()
        await events.send(result(1))
        events.end()
        await trio.sleep(200)

        await follower.resume(kit.client)
        assert await follower.rest() == [result(1)]

    async def test_answer_that_was_lost_on_the_way_comes_again(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        cursor = follower.cursor
        await events.send(result(1))
        events.end()
        assert await follower.rest() == [result(1)]
        again = Follower(await answered(kit, follower, cursor))
        assert await again.rest() == [result(1)]

    async def test_after_the_answer_there_is_no_stream(self, autojump_clock, kit):
        """Whatever has become of it since.  Clients come back again and again to one that ends empty."""
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await events.send(result(1), "b")
        events.end()
        await follower.rest()
        for _ in range(2):
            again = await answered(kit, follower, follower.cursor)
            assert (again.status, await again.read()) == (405, b"")
            await trio.sleep(400)
        assert kit.upstream.hits == 2

    async def test_after_the_end_of_a_cancelled_call_there_is_no_stream(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await follower.next()
        cancel, accepted = await start_post(kit, notification("notifications/cancelled", requestId=1))
        cancel.respond(202)
        await accepted()
        events.end()
        assert await follower.rest() == []
        assert (await answered(kit, follower, follower.cursor)).status == 405

    async def test_listening_that_is_joined_is_primed_where_it_is_joined(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events = call.open_events()
        (await response()).leave()
        await trio.testing.wait_all_tasks_blocked()
        await events.send(step(1))
        follower = Follower(await kit.client.listen())
        await follower.prime()
        await follower.resume(kit.client)
        assert await follower.next() == step(1)

    async def test_nothing_of_another_stream_is_replayed(self, autojump_clock, kit):
        """MCP 2025-11-25: the server MUST NOT replay messages of a different stream."""
        one, follower = await start_stream(kit, 1)
        other, _ = await start_stream(kit, 2)
        follower.response.leave()
        await other.send(step(20), "x")
        await one.send(step(10), "x")
        await one.send(result(1), "y")
        one.end()

        await follower.resume(kit.client)
        assert await follower.rest() == [step(10), result(1)]

    @pytest.mark.parametrize("size", [1, 10, 64, 500])
    async def test_every_cursor_is_a_place_to_go_on_from(self, autojump_clock, kit, size):
        events, follower = await start_stream(kit)
        cursors = [follower.cursor]
        for number in range(size):
            await events.send(step(number))
            await follower.next()
            cursors.append(follower.cursor)
        await events.send(result(1))
        events.end()
        await follower.rest()
        for number in {0, 1, size // 2, size}:
            again = Follower(await answered(kit, follower, cursors[number]))
            assert await again.rest() == [*map(step, range(number, size)), result(1)]

    async def test_newer_connection_takes_the_place_of_the_older(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        other = Follower(await kit.client.listen(follower.cursor))
        with pytest.raises(trio.BrokenResourceError):
            await follower.next()
        await events.send(result(1))
        events.end()
        assert await other.rest() == [result(1)]

    @pytest.mark.parametrize("cursor", ["5", "a.1", "x" * 30, "aAAAAAAAAAAAA.1.0.!", "é"])
    async def test_id_that_is_none_of_ours_is_an_error(self, autojump_clock, kit, cursor):
        response = await kit.client.listen(cursor)
        assert response.status == 400
        assert "open a stream without it" in (await response.json())["error"]["message"]

    async def test_unknown_stream_is_lost_and_the_session_lives(self, autojump_clock, kit):
        response = await kit.client.listen("aAAAAAAAAAAAA.1")
        assert response.status == 410
        assert "no longer kept" in (await response.json())["error"]["message"]
        call, answer = await start_post(kit, request(5, "x"))
        call.answer(result(5))
        assert (await answer()).status == 200

    async def test_stream_of_another_session_is_unknown(self, autojump_clock, kit):
        _, follower = await start_stream(kit)
        other = kit.new_client()
        kit.nursery.start_soon(kit.upstream.answer_initialize, "upstream-2")
        await (await other.initialize()).read()
        assert (await other.listen(follower.cursor)).status == 410

    async def test_client_of_an_older_revision_gets_no_event_without_data(self, autojump_clock):
        async with open_proxy_kit() as kit:
            await open_session(kit, "2025-06-18")
            call, response = await start_post(kit, request(1, "x"))
            events = call.open_events()
            await events.send(step(1))
            assert (await (await response()).next_event()).data


def late_head(app):
    """Return *app*, whose answers take a second to begin."""

    async def call(scope, receive, send):
        async def send_late(event):
            if event["type"] == "http.response.start":
                await trio.sleep(1)
            await send(event)

        await app(scope, receive, send_late)

    return call


class TestPriming:
    @pytest.mark.parametrize("ids", [True, False])
    async def test_first_event_stands_before_all_others_however_fast_they_come(self, autojump_clock, kit, ids):
        slow = move(kit.client, kit, late_head(kit.app))
        call, response = await start_post(kit, request(1, "x"), slow)
        messages = [*map(step, range(5)), result(1)]
        blocks = [
            (b"id: %d\n" % number if ids else b"") + b"data: " + json.dumps(message).encode() + b"\n\n"
            for number, message in enumerate(messages)
        ]
        call.respond(200, {"content-type": "text/event-stream"}, [b"".join(blocks)])
        follower = Follower(await response())
        await follower.prime()
        cursor = follower.cursor
        assert await follower.rest() == messages

        again = Follower(await answered(kit, follower, cursor))
        assert await again.rest() == messages

    async def test_no_id_comes_twice(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        ids = [follower.cursor]
        await events.send_bytes(b"id: p\ndata:\n\n")
        await trio.testing.wait_all_tasks_blocked()
        await events.send(step(1), "a")
        await events.send_bytes(b"id: q\ndata:\n\n")
        await events.send(step(2), "b")
        await events.send(result(1), "c")
        events.end()
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                ids.append((await follower.response.next_event()).id.decode())
        assert len(ids) == len(set(ids)) == 5


class TestLimits:
    async def test_events_that_are_gone_are_an_error(self, autojump_clock):
        async with open_proxy_kit(config_of(limits=LogLimits(max_events=10))) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            follower.response.leave()
            for number in range(20):
                await events.send(step(number))
            assert (await answered(kit, follower, follower.cursor)).status == 410

    async def test_events_that_are_gone_here_are_asked_for_upstream(self, autojump_clock):
        async with open_proxy_kit(config_of(limits=LogLimits(max_events=10))) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            await events.send(step(0), "e0")
            assert await follower.next() == step(0)
            follower.response.leave()
            for number in range(1, 20):
                await events.send(step(number), f"e{number}")

            async def replay():
                call = await kit.upstream.next_call()
                assert call.headers["last-event-id"] == "e0"
                again = call.open_events()
                for number in range(1, 20):
                    await again.send(step(number), f"e{number}")
                await again.send(result(1), "r")
                again.end()

            kit.nursery.start_soon(replay)
            await follower.resume(kit.client)
            assert await follower.rest() == [*map(step, range(1, 20)), result(1)]

    async def test_old_streams_are_forgotten(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        follower.response.leave()
        await events.send(result(1))
        events.end()
        await trio.sleep(400)
        assert (await answered(kit, follower, follower.cursor)).status == 410


class TestAbsence:
    async def test_stream_is_parked_and_taken_up_again(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        events = call.open_events()
        await events.send(step(1), "a")
        follower = Follower(await response())
        assert await follower.next() == step(1)
        follower.response.leave()
        left = trio.current_time()
        await events.send(step(2), "b")
        await call.cancelled.wait()
        assert trio.current_time() - left == pytest.approx(60)
        await trio.sleep(100)

        async def go_on():
            again = await kit.upstream.next_call()
            assert (again.request.method, again.headers["last-event-id"]) == ("GET", "b")
            stream = again.open_events()
            await stream.send(result(1), "c")
            stream.end()

        kit.nursery.start_soon(go_on)
        await follower.resume(kit.client)
        assert await follower.rest() == [step(2), result(1)]

    async def test_call_that_cannot_be_taken_up_again_is_told(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1))
        follower.response.leave()
        await trio.sleep(61)
        await follower.resume(kit.client)
        assert await follower.next() == step(1)
        (answer,) = await follower.rest()
        assert "may still act" in answer["error"]["message"]

    async def test_client_that_is_there_is_waited_for(self, autojump_clock, kit):
        events, follower = await start_stream(kit)

        async def finish():
            await trio.sleep(3600)
            await events.send(result(1))
            events.end()

        kit.nursery.start_soon(finish)
        assert await follower.rest() == [result(1)]


class TestListening:
    async def test_new_stream_goes_on_with_the_one_that_lost_its_client(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events = call.open_events()
        (await response()).leave()
        await trio.testing.wait_all_tasks_blocked()
        await events.send(step(1))
        follower = Follower(await kit.client.listen())
        assert await follower.next() == step(1)
        await events.send(step(2))
        assert await follower.next() == step(2)
        assert kit.upstream.hits == 2

    async def test_two_may_listen(self, autojump_clock, kit):
        first, first_response = await start_listen(kit)
        one, follower = first.open_events(), Follower(await first_response())
        second, second_response = await start_listen(kit)
        other, other_follower = second.open_events(), Follower(await second_response())
        await one.send(step(1))
        await other.send(step(2))
        assert [await follower.next(), await other_follower.next()] == [step(1), step(2)]

    async def test_newer_takes_over_where_the_upstream_allows_one(self, autojump_clock, kit):
        first, first_response = await start_listen(kit)
        events, follower = first.open_events(), Follower(await first_response())
        await follower.prime()
        second, second_response = await start_listen(kit)
        second.respond(409)
        newer = Follower(await second_response())
        with pytest.raises(trio.BrokenResourceError):
            await follower.next()
        await events.send(step(1))
        assert await newer.next() == step(1)

    async def test_refusal_passes(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        call.respond(405, {"allow": "POST"})
        assert (await response()).status == 405


class TestStore:
    async def test_store_that_fails_is_503(self, autojump_clock):
        class FailingStore(InMemoryStore):
            async def claim_stream(self, session_id, stream_id, owner):
                raise StoreUnavailable("down; try again later")

        async with open_proxy_kit(store=FailingStore()) as kit:
            await open_session(kit)
            assert (await kit.client.listen("aAAAAAAAAAAAA.1")).status == 503

    async def test_stream_that_is_here_can_be_resumed_in_an_outage_with_a_fallback(self, autojump_clock):
        """The events are in this process; that the session exists is known from the copy."""
        primary = FlakyStore()
        async with open_failover_store(primary) as store, open_proxy_kit(store=store) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            follower.response.leave()
            primary.mode = "down"
            await events.send(result(1), "u1")
            events.end()
            with trio.fail_after(60):
                await follower.resume(kit.client)
                assert follower.response.status == 200
                assert await follower.rest() == [result(1)]

    async def test_no_stream_can_be_resumed_in_an_outage_without_one(self, autojump_clock):
        store = FlakyStore()
        async with open_proxy_kit(store=store) as kit:
            await open_session(kit)
            _, follower = await start_stream(kit)
            store.mode = "down"
            assert (await follower.resume(kit.client)).status == 503

    async def test_store_that_keeps_no_streams_does_for_one_process(self, autojump_clock):
        async with open_proxy_kit(store=InMemoryStore(keeps_streams=False)) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            follower.response.leave()
            await events.send(result(1))
            events.end()
            await follower.resume(kit.client)
            assert await follower.rest() == [result(1)]
