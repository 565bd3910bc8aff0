"""An upstream that has lost its sessions, or is away for a moment."""

import attrs
import pytest
import trio

from shadowcat import EndpointConfig, HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig
from shadowcat.errors import UpstreamDisconnected, UpstreamUnavailable
from shadowcat.proxy.recovery import RecoveryConfig
from shadowcat.testing import error, notification, open_proxy_kit, request, result

from .conversation import Follower, open_session, start_listen, start_post, start_stream

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
CAPABILITIES = {"tools": {"listChanged": True}}
SAID = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": {"name": "s", "version": "1"}}


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        await open_with(kit)
        yield kit


async def open_with(kit, **said):
    async def answer():
        call = await kit.upstream.next_call()
        call.answer(result(0, **(SAID | said)), headers={"mcp-session-id": "old"})

    kit.nursery.start_soon(answer)
    await (await kit.client.initialize(capabilities={"sampling": {}})).read()


async def reinitialized(kit, session_id="new", **said):
    """Answer a new handshake, and return its ``initialize``."""
    call = await kit.upstream.next_call()
    assert call.message["method"] == "initialize"
    assert "mcp-session-id" not in call.headers
    call.answer(result(call.message["id"], **(SAID | said)), headers={"mcp-session-id": session_id})
    if not said:
        told = await kit.upstream.next_call()
        assert told.message["method"] == "notifications/initialized"
        assert told.headers["mcp-session-id"] == session_id
        assert told.headers["mcp-protocol-version"] == "2025-11-25"
        told.respond(202)
    return call


class TestLostSession:
    async def test_call_is_sent_in_a_new_one_and_the_client_notices_nothing(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "tools/list"))
        assert call.headers["mcp-session-id"] == "old"
        call.respond(404)
        handshake = await reinitialized(kit)
        assert handshake.message["params"]["capabilities"] == {"sampling": {}}
        assert handshake.message["params"]["clientInfo"]["name"] == "shadowcat.testing"
        again = await kit.upstream.next_call()
        assert (again.message, again.headers["mcp-session-id"]) == (call.message, "new")
        again.answer(result(1, tools=[]))

        assert await (await response()).json() == result(1, tools=[])
        call, _ = await start_post(kit, request(2, "tools/list"))
        assert call.headers["mcp-session-id"] == "new"

    async def test_calls_at_once_open_one_session(self, autojump_clock, kit):
        calls = [await start_post(kit, request(number, "x")) for number in range(1, 6)]
        for call, _ in calls:
            call.respond(404)
        await reinitialized(kit)
        for _ in calls:
            again = await kit.upstream.next_call()
            assert again.headers["mcp-session-id"] == "new"
            again.answer(result(again.message["id"]))
        for number, (_, response) in enumerate(calls, 1):
            assert await (await response()).json() == result(number)
        assert kit.upstream.hits == 1 + 5 + 2 + 5

    async def test_session_lost_again_is_given_up(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        for name in ("new", "newer"):
            await reinitialized(kit, name)
            (await kit.upstream.next_call()).respond(404)
        assert (await response()).status == 404
        assert await kit.store.count_sessions() == 0

    @pytest.mark.parametrize(
        "said", [{"capabilities": {}}, {"protocolVersion": "2025-06-18"}, {"capabilities": {"tools": {}}}]
    )
    async def test_server_that_is_another_ends_the_session(self, autojump_clock, kit, said):
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        await reinitialized(kit, **said)
        ended = await kit.upstream.next_call()
        assert (ended.request.method, ended.headers["mcp-session-id"]) == ("DELETE", "new")
        ended.respond(200)
        assert (await response()).status == 404
        assert await kit.store.count_sessions() == 0

    async def test_server_that_refuses_ends_the_session(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        again = await kit.upstream.next_call()
        again.answer(error(again.message["id"], -32602, "no"))
        assert (await response()).status == 404
        assert await kit.store.count_sessions() == 0

    async def test_server_that_does_not_answer_keeps_it(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        await kit.upstream.next_call()
        assert (await response()).status == 502
        assert trio.current_time() == pytest.approx(30)
        assert await kit.store.count_sessions() == 1

    @pytest.mark.parametrize("status", [202, 401, 403, 408, 429, 500, 503])
    async def test_server_that_refuses_for_now_keeps_it(self, autojump_clock, kit, status):
        """Whatever the status, it says nothing of what the server is; the caller is told what to do."""
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        (await kit.upstream.next_call()).respond(status)
        answer = await response()
        assert answer.status == 502
        told = (await answer.json())["error"]["message"]
        assert f"(HTTP {status})" in told
        assert "try again" in told

        call, response = await start_post(kit, request(2, "x"))
        call.respond(404)
        await reinitialized(kit)
        (await kit.upstream.next_call()).answer(result(2))
        assert await (await response()).json() == result(2)

    async def test_page_in_its_place_keeps_it(self, autojump_clock, kit):
        """Of a load balancer, say: it is no answer to what was asked."""
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        (await kit.upstream.next_call()).respond(200, {"content-type": "text/html"}, [b"<p>back soon"])
        assert (await response()).status == 502
        assert await kit.store.count_sessions() == 1

    async def test_upstream_that_is_not_told_keeps_nobody(self, autojump_clock, kit):
        """Telling it that it is over has an end."""
        call, response = await start_post(kit, request(1, "x"))
        call.respond(404)
        (await kit.upstream.next_call()).open_events({"mcp-session-id": "new"})
        await kit.upstream.next_call()  # DELETE, which is never answered
        assert (await response()).status == 502
        assert trio.current_time() == pytest.approx(35)

    async def test_log_level_and_subscriptions_are_told_again(self, autojump_clock, kit):
        granted = [
            request(1, "logging/setLevel", level="debug"),
            request(2, "resources/subscribe", uri="file:///a"),
            request(3, "resources/subscribe", uri="file:///b"),
            request(4, "resources/unsubscribe", uri="file:///a"),
        ]
        for message in granted:
            call, response = await start_post(kit, message)
            call.answer(result(message["id"]))
            await (await response()).read()
        call, response = await start_post(kit, request(5, "resources/subscribe", uri="file:///refused"))
        call.answer(error(5, -32602, "no"))
        await (await response()).read()
        events, follower = await start_answered(kit, request(6, "resources/subscribe", uri="file:///c"))
        await events.send(result(6))
        events.end()
        await follower.rest()
        await trio.testing.wait_all_tasks_blocked()

        call, response = await start_post(kit, request(7, "x"))
        call.respond(404)
        await reinitialized(kit)
        told = []
        for _ in range(3):
            again = await kit.upstream.next_call()
            told.append((again.message["method"], again.message["params"]))
            again.answer(result(again.message["id"]))
        assert told == [
            ("logging/setLevel", {"level": "debug"}),
            ("resources/subscribe", {"uri": "file:///b"}),
            ("resources/subscribe", {"uri": "file:///c"}),
        ]
        again = await kit.upstream.next_call()
        again.answer(result(7))
        assert await (await response()).json() == result(7)

    async def test_stream_under_way_is_told(self, autojump_clock, kit):
        events, follower = await start_stream(kit)
        await events.send(notification("n"), "a")
        call, response = await start_post(kit, request(2, "x"))
        call.respond(404)
        await reinitialized(kit)
        (await kit.upstream.next_call()).answer(result(2))
        await (await response()).read()
        await events.cut(UpstreamDisconnected("gone"))

        assert await follower.next() == notification("n")
        (answer,) = await follower.rest()
        assert "has lost the session" in answer["error"]["message"]

    async def test_listening_goes_on_in_the_new_one(self, autojump_clock, kit):
        call, response = await start_listen(kit)
        events, follower = call.open_events(), Follower(await response())
        await events.send(notification("n", number=1), "1")
        await events.cut(UpstreamDisconnected("gone"))
        lost = await kit.upstream.next_call()
        assert lost.headers["last-event-id"] == "1"
        lost.respond(404)
        await reinitialized(kit)
        again = await kit.upstream.next_call()
        assert "last-event-id" not in again.headers
        assert again.headers["mcp-session-id"] == "new"
        # Ids begin anew, so this is another event.
        await again.open_events().send(notification("n", number=2), "1")
        assert [await follower.next(), await follower.next()] == [
            notification("n", number=1),
            notification("n", number=2),
        ]

    async def test_session_without_an_upstream_id_is_not_lost(self, autojump_clock):
        async with open_proxy_kit() as kit:
            call, response = await start_post(kit, request(0, "initialize"))
            call.answer(result(0, protocolVersion="2025-11-25"))
            kit.client.session_id = (await response()).headers["mcp-session-id"]
            call, response = await start_post(kit, request(1, "x"))
            call.respond(404, body=[b"no"])
            assert (await response()).status == 404
            assert await kit.store.count_sessions() == 1

    async def test_credentials_of_the_request_are_used(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, endpoint=EndpointConfig(forward_headers=["Authorization"]))
        async with open_proxy_kit(config) as kit:
            await open_with(kit)
            call, _ = await start_post(kit, request(1, "x"), headers={"authorization": "Bearer t"})
            call.respond(404)
            assert (await reinitialized(kit)).headers["authorization"] == "Bearer t"


class TestTurnedOff:
    async def test_404_passes_and_ends_the_session(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, recovery=RecoveryConfig(is_enabled=False))
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            call, response = await start_post(kit, request(1, "x"))
            call.respond(404, body=[b"gone"])
            assert (await response()).status == 404
            assert await kit.store.count_sessions() == 0

    async def test_refused_connection_is_told_at_once(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, recovery=RecoveryConfig(is_enabled=False))
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            call, response = await start_post(kit, request(1, "x"))
            call.fail(UpstreamUnavailable("refused"))
            assert (await response()).status == 502


class TestRefusedConnection:
    async def test_call_waits_until_the_upstream_is_there_again(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        for _ in range(5):
            call.fail(UpstreamUnavailable("refused"))
            call = await kit.upstream.next_call()
            assert call.message == request(1, "x")
        call.answer(result(1))
        assert await (await response()).json() == result(1)

    async def test_not_for_ever(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))

        async def refuse(call):
            while True:
                call.fail(UpstreamUnavailable("the upstream cannot be reached"))
                call = await kit.upstream.next_call()

        kit.nursery.start_soon(refuse, call)
        answer = await response()
        assert (answer.status, (await answer.json())["id"]) == (502, 1)
        assert 8 <= trio.current_time() <= 12

    async def test_what_was_sent_is_not_sent_again(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "x"))
        call.fail(UpstreamDisconnected("gone"))
        assert (await response()).status == 502
        assert kit.upstream.hits == 2


class TestReplicas:
    async def test_the_first_to_recover_wins(self, autojump_clock):
        """Two proxies notice at once; the session that is not used is ended again."""
        store = InMemoryStore()
        async with open_proxy_kit(store=store) as one, open_proxy_kit(store=store) as other:
            await open_with(one)
            moved = other.new_client()
            moved.session_id, moved.protocol_version = one.client.session_id, one.client.protocol_version
            calls = [await start_post(one, request(1, "x")), await start_post(other, request(2, "x"), moved)]
            for call, _ in calls:
                call.respond(404)
            first = await one.upstream.next_call()
            await reinitialized(other, "winner")
            (await other.upstream.next_call()).answer(result(2))
            first.answer(result(first.message["id"], **SAID), headers={"mcp-session-id": "loser"})
            (await one.upstream.next_call()).respond(202)
            ended = await one.upstream.next_call()
            assert (ended.request.method, ended.headers["mcp-session-id"]) == ("DELETE", "loser")
            ended.respond(200)
            again = await one.upstream.next_call()
            assert again.headers["mcp-session-id"] == "winner"
            again.answer(result(1))
            assert await (await calls[0][1]()).json() == result(1)
            assert await (await calls[1][1]()).json() == result(2)


class TestMany:
    async def test_those_who_wait_share_a_failure(self, autojump_clock, kit):
        """One timeout for all of them, not one after the other; who comes later tries anew."""
        calls = [await start_post(kit, request(number, "x")) for number in range(20)]
        for call, _ in calls:
            call.respond(404)
        hung = await kit.upstream.next_call()
        for number, (_, response) in enumerate(calls):
            answer = await response()
            assert answer.status == 502
            body = await answer.json()
            assert body["id"] == number
            assert "try again later" in body["error"]["message"]
        assert trio.current_time() == pytest.approx(30)
        assert hung.cancelled.is_set()

        call, _ = await start_post(kit, request(20, "x"))
        call.respond(404)
        assert (await kit.upstream.next_call()).message["method"] == "initialize"

    async def test_credentials_that_are_refused_are_those_of_one_request(self, autojump_clock):
        """Another that waits has others, and tries with them."""
        config = ReverseProxyConfig(upstream=UPSTREAM, endpoint=EndpointConfig(forward_headers=["Authorization"]))
        async with open_proxy_kit(config) as kit:
            await open_with(kit)
            call, refused = await start_post(kit, request(1, "x"), headers={"authorization": "Bearer bad"})
            call.respond(404)
            handshake = await kit.upstream.next_call()
            call, response = await start_post(kit, request(2, "x"), headers={"authorization": "Bearer good"})
            call.respond(404)
            await trio.testing.wait_all_tasks_blocked()
            handshake.respond(401)
            assert (await reinitialized(kit)).headers["authorization"] == "Bearer good"
            (await kit.upstream.next_call()).answer(result(2))
            assert await (await response()).json() == result(2)
            assert (await refused()).status == 502

    async def test_sessions_recover_a_few_at_a_time(self, autojump_clock):
        """Each gets its turn; what waits for one waits no longer than the timeout."""
        config = ReverseProxyConfig(upstream=UPSTREAM, recovery=RecoveryConfig(max_concurrent=2))
        async with open_proxy_kit(config) as kit:
            responses = await lose_sessions(kit, 5)
            handshakes = await calls_within(kit, 10)
            assert len(handshakes) == 2
            handshakes[0].respond(503)
            assert len(await calls_within(kit, 10)) == 1
            assert [(await response()).status for response in responses] == [502] * 5
            assert trio.current_time() == pytest.approx(30)

            await calls_within(kit, 0)
            (again,) = await lose_sessions(kit, 1)
            await reinitialized(kit)
            (await kit.upstream.next_call()).answer(result(1))
            assert await (await again()).json() == result(1)


async def test_proxy_that_stops_ends_what_it_opened(autojump_clock, kit):
    """Nobody will ever use it."""
    call, _ = await start_post(kit, request(1, "x"))
    call.respond(404)
    handshake = await kit.upstream.next_call()
    handshake.answer(result(handshake.message["id"], **SAID), headers={"mcp-session-id": "new"})
    await kit.upstream.next_call()  # notifications/initialized, which is never answered
    kit.app.finish_drain()
    ended = await kit.upstream.next_call()
    assert (ended.request.method, ended.headers["mcp-session-id"]) == ("DELETE", "new")


async def lose_sessions(kit, number):
    """Open sessions that the upstream then forgets; return functions that wait for a response in each."""
    calls = []
    for _ in range(number):
        other = attrs.evolve(kit, client=kit.new_client())
        await open_with(other)
        calls.append(await start_post(other, request(1, "x")))
    for call, _ in calls:
        call.respond(404)
    return [response for _, response in calls]


async def calls_within(kit, seconds):
    calls = []
    with trio.move_on_after(seconds):
        while True:
            calls.append(await kit.upstream.next_call())
    return calls


async def start_answered(kit, message):
    call, response = await start_post(kit, message)
    events = call.open_events()
    return events, Follower(await response())
