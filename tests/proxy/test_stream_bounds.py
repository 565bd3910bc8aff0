"""What no peer can do to the proxy: make it ask for ever, or keep without bound."""

import gc
import secrets

import pytest
import trio
import trio.testing

from shadowcat import EndpointConfig, HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig, SessionConfig, StreamConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.session import EventStream
from shadowcat.testing import notification, open_proxy_kit, request, result

from .conversation import Follower, Pending, move, open_session, start_listen, start_post, start_stream
from .test_stream_relay import Replica

CUT = UpstreamDisconnected("gone")
UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


def step(number):
    return notification("notifications/progress", progress=number)


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        await open_session(kit)
        yield kit


def live_streams():
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, EventStream) and not found.is_resting]


class TestUpstream:
    @pytest.mark.parametrize(
        "block",
        [b"id: a\ndata: {}\n\n", b"retry: 0\n\n", b"event: x\n\n", b": comment\n\n"],
        ids=bytes.hex,
    )
    async def test_nothing_new_is_no_progress(self, autojump_clock, kit, block):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await follower.next()
        await events.cut(CUT)
        asked = 0

        async def repeat():
            nonlocal asked
            while True:
                again = (await kit.upstream.next_call()).open_events()
                asked += 1
                await again.send_bytes(block)
                again.end()

        kit.nursery.start_soon(repeat)
        (answer,) = await follower.rest()
        assert "cannot be reached any more" in answer["error"]["message"]
        assert asked < 50

    async def test_server_that_asks_politely_is_polled_for_hours(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send_bytes(b"id: a\nretry: 5000\ndata:\n\n")
        events.end()

        async def poll():
            for _ in range(1000):
                again = (await kit.upstream.next_call()).open_events()
                await again.send_bytes(b"retry: 5000\n\n")
                again.end()
            again = (await kit.upstream.next_call()).open_events()
            await again.send(result(1), "b")
            again.end()

        kit.nursery.start_soon(poll)
        assert await follower.rest() == [result(1)]
        assert trio.current_time() > 5000

    async def test_head_that_never_comes_is_a_failed_attempt(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        await follower.next()
        await events.cut(CUT)
        (answer,) = await follower.rest()
        assert answer["id"] == 1
        assert 270 <= trio.current_time() <= 400

    async def test_heads_that_never_come_do_not_keep_others_waiting(self, autojump_clock, kit):
        listening = []
        for _ in range(16):
            call, response = await start_listen(kit)
            listening.append(call.open_events())
            await response()
        events, follower = await start_stream(kit)
        await events.send(step(1), "a")
        for stream in listening:
            stream.end()
        for _ in listening:
            await kit.upstream.next_call()
        await events.cut(CUT)
        with trio.fail_after(60):
            while (await kit.upstream.next_call()).headers.get("last-event-id") != "a":
                pass

    async def test_long_ids_are_as_good_as_none(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        for number in range(3):
            await events.send(step(number), f"{number}" + "x" * 3000)
            await follower.next()
        assert len(follower.cursor) < 100
        await events.cut(CUT)
        (answer,) = await follower.rest()
        assert "error" in answer

    async def test_404_to_what_listens_is_recovered_from_once(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events, follower = call.open_events(), Follower(await response())
        await events.send(step(1), "a")
        events.end()
        opened = 0

        async def refuse():
            nonlocal opened
            while True:
                call = await kit.upstream.next_call()
                if call.request.method == "GET":
                    call.respond(404)
                elif call.message["method"] == "initialize":
                    opened += 1
                    said = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
                    call.answer(result(call.message["id"], **said), headers={"mcp-session-id": f"u{opened}"})
                else:
                    call.respond(202)

        kit.nursery.start_soon(refuse)
        assert await follower.rest() == [step(1)]
        assert opened == 1

    async def test_ids_in_the_tail_of_a_giant_event_are_left_out(self, autojump_clock, kit):
        events, follower = await start_stream(kit)

        async def send():
            await events.send_bytes(b"data: " + b"x" * 1_500_000)
            await events.send_bytes(b"\nid: forged\nid\ndata: y\nid: again\n\n")
            await events.send(result(1))
            events.end()

        kit.nursery.start_soon(send)
        received = await follower.response.read()
        assert b"forged" not in received
        assert b"again" not in received
        assert b"\ndata: y\n" in received

    async def test_rest_of_a_giant_event_is_no_event(self, autojump_clock, kit):
        """Its client left within it; another stream of the client begins with the event after."""
        call, response = await start_listen(kit)
        events = call.open_events()
        reading = await response()
        left = trio.Event()

        async def send():
            await events.send_bytes(b"id: g\ndata: " + b"x" * 1_200_000)
            await left.wait()
            await events.send_bytes(b"data: injected\n\n")
            await events.send(step(1), "n")

        kit.nursery.start_soon(send)
        received = b""
        while len(received) < 1_000_000:
            received += await reading.read_some()
        reading.leave()
        await trio.sleep(1)
        follower = Follower(await kit.client.listen())
        left.set()
        assert await follower.next() == step(1)


class TestClient:
    async def test_forged_cursors_open_so_many_streams(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, sessions=SessionConfig(streams=StreamConfig(max_left=20)))
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            calls = []

            async def answer():
                while True:
                    calls.append(await kit.upstream.next_call())
                    calls[-1].open_events()

            kit.nursery.start_soon(answer)
            for _ in range(100):
                (await kit.client.listen(f"l{secrets.token_urlsafe(9)}.1.0.YQ")).leave()
            await trio.sleep(20)
            assert len(calls) == 100
            assert sum(not call.cancelled.is_set() for call in calls) <= 20

    async def test_what_is_read_for_those_who_left_is_bounded_in_bytes(self, autojump_clock):
        streams = StreamConfig(max_resting_bytes=10_000_000)
        config = ReverseProxyConfig(upstream=UPSTREAM, sessions=SessionConfig(streams=streams))
        async with open_proxy_kit(config, store=InMemoryStore(keeps_streams=False)) as kit:
            await open_session(kit)
            block = b"data: {" + b" " * 200_000 + b"}\n\n"
            for number in range(80):
                events, follower = await start_stream(kit, number)
                follower.response.leave()
                await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(1):
                    for _ in range(6):
                        await events.send_bytes(block)
            held = sum(stream.log.size for stream in live_streams())
            assert held < 45_000_000  # what 32 may hold in any case, and the limit

    async def test_cursor_beyond_all_streams_is_none(self, autojump_clock, kit):
        assert (await kit.client.listen("lAAAAAAAAAAAA.999999999999999.0.YQ")).status == 400

    async def test_one_client_tails_a_stream(self, autojump_clock):
        shared, reads = InMemoryStore(), 0

        class CountingReplica(Replica):
            async def read_events(self, *args):
                nonlocal reads
                reads += 1
                return await super().read_events(*args)

        async with (
            open_proxy_kit(store=Replica(shared)) as one,
            open_proxy_kit(store=CountingReplica(shared)) as other,
        ):
            await open_session(one)
            events, follower = await start_stream(one)
            await events.send(step(1), "a")
            await follower.next()
            await trio.sleep(1)
            client = move(one.client, other)
            for _ in range(50):
                other.nursery.start_soon(client.listen, follower.cursor)
            await trio.sleep(1)
            reads = 0
            await trio.sleep(10)
            assert reads <= 250

    async def test_who_resumes_is_let_in_by_the_upstream(self, autojump_clock):
        """MCP 2025-11-25, Security Best Practices: sessions MUST NOT be used for authentication."""
        config = ReverseProxyConfig(upstream=UPSTREAM, endpoint=EndpointConfig(forward_headers=["Authorization"]))
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            call, response = await start_post(kit, request(1, "x"), headers={"authorization": "Bearer good"})
            events, follower = call.open_events(), Follower(await response())
            await follower.prime()
            follower.response.leave()
            await events.send(result(1, content="secret"), "a")
            events.end()

            async def resume(authorization):
                pending = Pending()
                headers = {"last-event-id": follower.cursor, "authorization": authorization}
                kit.nursery.start_soon(pending.run, kit.client.send, "GET", b"", headers)
                ping = await kit.upstream.next_call()
                assert (ping.message["method"], ping.headers["authorization"]) == ("ping", authorization)
                return ping, pending

            ping, pending = await resume("Bearer stolen")
            ping.respond(401, {"www-authenticate": "Bearer"})
            refused = await pending()
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            ping, pending = await resume("Bearer fresh")
            ping.answer(result(ping.message["id"]))
            follower.response = await pending()
            assert await follower.rest() == [result(1, content="secret")]
