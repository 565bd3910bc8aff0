"""The whole proxy before several endpoints behind one name."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat import CheckConfig, CircuitConfig, ConcurrencyConfig, EndpointConfig, InMemoryStore, RecoveryConfig
from shadowcat.errors import UpstreamDisconnected, UpstreamUnavailable
from shadowcat.testing import modern_headers, modern_request, notification, request, result

from .conversation import Follower, Pending
from .serving_several import serving, several
from .test_servers import call

REFUSED = UpstreamUnavailable("nobody listens")
CUT = UpstreamDisconnected("cut")


async def start(world, client, message, headers=None):
    """Send *message*; return what waits for the answer."""
    pending = Pending()
    world.kit.nursery.start_soon(pending.run, client.post, message, headers)
    await wait_all_tasks_blocked()
    return pending


async def refuse(server):
    """Refuse all connections to *server*, until cancelled."""
    while True:
        (await server.next_call()).fail(REFUSED)


async def reopen(server, session_id):
    """Take the two messages that open a lost session again."""
    await server.answer_initialize(session_id)
    opened = await server.next_call()
    assert opened.message["method"] == "notifications/initialized"
    opened.respond(202)


def endpoint(world, name):
    return next(each for each in world.kit.app.upstream_sets["default"].endpoints if each.name == name)


def kill(world, name):
    for _ in range(3):
        endpoint(world, name).note_check(is_good=False)


async def test_sessions_are_spread_and_each_stays_where_it_is(autojump_clock):
    async with serving("abc", upstream=several("a", "b", "c")) as world:
        clients = [await world.open(name) for name in "abcabc"]
        for client, name in zip(clients, "abcabc", strict=True):
            for _ in range(3):
                assert await call(world, client, name) == result(1, from_=name)
        seen = world.kit.app.statistics().upstreams["default"].endpoints
        assert [(each.name, each.requests) for each in seen] == [("a", 8), ("b", 8), ("c", 8)]
        assert "~" not in clients[0].session_id


async def test_every_replica_knows_where_a_session_is(autojump_clock):
    store = InMemoryStore()
    async with (
        serving("ab", store, upstream=several("a", "b")) as one,
        serving("ab", store, upstream=several("a", "b")) as other,
    ):
        await one.open("a")
        client = await one.open("b")
        moved = other.client()
        moved.session_id, moved.protocol_version = client.session_id, client.protocol_version
        pending = await start(other, moved, request(1, "tools/call"))
        sent = await other.servers["b"].next_call()
        assert sent.headers["mcp-session-id"] == "b-1"
        sent.answer(result(1))
        assert await (await pending()).json() == result(1)


async def test_modern_requests_are_spread(autojump_clock):
    message = modern_request(1, "tools/call", name="t")
    async with serving("ab", upstream=several("a", "b")) as world:
        for name in "abab":
            assert await call(world, world.client(), name, modern_headers(message), message)


@pytest.mark.parametrize("message", [request(0, "initialize"), modern_request(0, "tools/call", name="t")])
async def test_what_an_endpoint_never_saw_is_sent_to_another(autojump_clock, message):
    headers = modern_headers(message) if "_meta" in message["params"] else None
    async with serving("ab", upstream=several("a", "b")) as world:
        pending = await start(world, world.client(), message, headers)
        (await world.servers["a"].next_call()).fail(REFUSED)
        (await world.servers["b"].next_call()).answer(result(0))
        assert await (await pending()).json() == result(0)
        assert world.kit.app.statistics().upstreams["default"].retries == 1


async def test_what_an_endpoint_may_have_seen_is_not_sent_again(autojump_clock):
    message = modern_request(1, "tools/call", name="t")
    async with serving("ab", upstream=several("a", "b")) as world:
        pending = await start(world, world.client(), message, modern_headers(message))
        (await world.servers["a"].next_call()).fail(CUT)
        assert (await pending()).status == 502
        assert world.servers["b"].hits == 0


async def test_an_open_circuit_answers_at_once_and_says_when_to_come_again(autojump_clock):
    circuit = CircuitConfig(max_failures=2, open_time=20)
    message = modern_request(1, "tools/call", name="t")
    async with serving("a", upstream=several("a", circuit=circuit)) as world:
        for _ in range(2):
            pending = await start(world, world.client(), message, modern_headers(message))
            (await world.servers["a"].next_call()).respond(500)
            assert (await pending()).status == 500
        await trio.sleep(2.5)
        response = await world.client().post(message, modern_headers(message))
        assert (response.status, response.headers["retry-after"]) == (503, "18")
        error = (await response.json())["error"]
        assert error["message"].endswith("nothing was sent; send it again later, in 18 s")
        assert world.servers["a"].hits == 2
        await trio.sleep(17.5)
        assert await call(world, world.client(), "a", modern_headers(message), message)


async def test_a_session_of_a_resting_endpoint_is_answered_at_once_too(autojump_clock):
    async with serving("ab", upstream=several("a", "b", circuit=CircuitConfig(max_failures=1))) as world:
        client = await world.open("a")
        pending = await start(world, client, request(1, "tools/call"))
        (await world.servers["a"].next_call()).respond(500)
        await pending()
        began = trio.current_time()
        response = await client.post(request(2, "tools/call"))
        assert (response.status, response.headers["retry-after"]) == (503, "30")
        assert trio.current_time() == began


async def test_a_tool_that_fails_is_not_a_server_that_fails(autojump_clock):
    async with serving("a", upstream=several("a", circuit=CircuitConfig(max_failures=1))) as world:
        client = await world.open("a")
        for answer in (result(1, isError=True, content=[]), {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603}}):
            pending = await start(world, client, request(1, "tools/call"))
            (await world.servers["a"].next_call()).answer(answer)
            assert (await pending()).status == 200
        assert endpoint(world, "a").failures == 0


async def test_a_session_of_a_dead_endpoint_is_opened_at_another_without_delay(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        kill(world, "a")
        began = trio.current_time()
        pending = await start(world, client, request(1, "tools/call"))
        await reopen(world.servers["b"], "b-1")
        (await world.servers["b"].next_call()).answer(result(1))
        assert await (await pending()).json() == result(1)
        assert trio.current_time() == began
        assert await call(world, client, "b")
        seen = world.kit.app.statistics()
        assert (seen.recoveries, seen.upstreams["default"].homeless) == (1, 1)


async def test_refused_connections_are_not_waited_out_where_another_could_serve(autojump_clock):
    """Without any check: nobody listens there, so nothing is lost by going elsewhere."""
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        world.kit.nursery.start_soon(refuse, world.servers["a"])
        began = trio.current_time()
        pending = await start(world, client, request(1, "tools/call"))
        await reopen(world.servers["b"], "b-1")
        (await world.servers["b"].next_call()).answer(result(1))
        assert await (await pending()).json() == result(1)
        assert trio.current_time() - began < 3
        assert world.servers["a"].hits == 1 + 5
        # The next session of it does not even try.
        assert endpoint(world, "a").is_dead


async def test_without_recovery_the_client_is_told(autojump_clock):
    """It opens another session itself."""
    async with serving("ab", upstream=several("a", "b"), recovery=RecoveryConfig(is_enabled=False)) as world:
        client = await world.open("a")
        kill(world, "a")
        assert (await client.post(request(1, "tools/call"))).status == 404
        assert await call(world, await world.open("b"), "b")


async def test_requests_to_servers_that_keep_no_sessions_are_spread(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = world.client()
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, client.initialize)
        opened = await world.servers["a"].next_call()
        opened.answer(result(0, protocolVersion="2025-11-25", capabilities={}))
        await pending()
        for name in "baba":
            assert await call(world, client, name)


async def test_checks_take_an_endpoint_out_and_put_it_back(autojump_clock):
    well = {"a": 200, "b": 200}

    async def serve(world, name):
        while True:
            sent = await world.servers[name].next_call()
            if sent.message["method"] == "server/discover":
                sent.respond(well[name])
            else:
                sent.answer(result(1, from_=name))

    message = modern_request(1, "tools/call", name="t")

    async def ask(world):
        response = await world.client().post(message, modern_headers(message))
        return (await response.json())["result"]["from_"]

    async with serving("ab", upstream=several("a", "b", check=CheckConfig(interval=10))) as world:
        for name in "ab":
            world.kit.nursery.start_soon(serve, world, name)
        await trio.sleep(1)
        assert sorted([await ask(world) for _ in range(4)]) == ["a", "a", "b", "b"]
        well["a"] = 500
        await trio.sleep(40)
        assert [await ask(world) for _ in range(4)] == ["b"] * 4
        well["a"] = 200
        await trio.sleep(30)
        assert sorted([await ask(world) for _ in range(4)]) == ["a", "a", "b", "b"]


async def test_a_stream_is_resumed_at_the_endpoint_that_has_it(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        pending = await start(world, client, request(1, "tools/call"))
        events = (await world.servers["a"].next_call()).open_events()
        follower = Follower(await pending())
        await follower.prime()
        await events.send(notification("notifications/message", n=1), id="e1")
        await follower.next()
        await events.cut(CUT)
        again = await world.servers["a"].next_call()
        assert again.request.method == "GET"
        assert (again.headers["last-event-id"], again.headers["mcp-session-id"]) == ("e1", "a-1")
        events = again.open_events()
        # The client comes back in between, too.
        await follower.resume(client)
        await events.send(result(1, done=True), id="e2")
        assert (await follower.rest())[-1] == result(1, done=True)
        assert world.servers["b"].hits == 0


async def test_the_caller_of_a_stream_that_died_with_its_endpoint_is_told(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        pending = await start(world, client, request(1, "tools/call"))
        events = (await world.servers["a"].next_call()).open_events()
        follower = Follower(await pending())
        await follower.prime()
        await events.send(notification("notifications/message", n=1), id="e1")
        kill(world, "a")
        await events.cut(CUT)
        found = await follower.rest()
        assert found[-1]["id"] == 1
        assert "may have acted on the request; check before sending it again" in found[-1]["error"]["message"]
        assert world.servers["b"].hits == 0


async def test_a_listening_stream_goes_on_at_another_endpoint(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, client.listen)
        events = (await world.servers["a"].next_call()).open_events()
        follower = Follower(await pending())
        await follower.prime()
        await events.send(notification("notifications/message", n=1))
        assert (await follower.next())["params"] == {"n": 1}
        kill(world, "a")
        await events.cut(CUT)
        await reopen(world.servers["b"], "b-1")
        again = await world.servers["b"].next_call()
        assert (again.request.method, again.headers["mcp-session-id"]) == ("GET", "b-1")
        await again.open_events().send(notification("notifications/message", n=2))
        assert (await follower.next())["params"] == {"n": 2}


async def test_the_end_of_a_session_is_told_to_its_endpoint(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        await world.open("a")
        client = await world.open("b")
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, client.delete)
        farewell = await world.servers["b"].next_call()
        assert (farewell.request.method, farewell.headers["mcp-session-id"]) == ("DELETE", "b-1")
        farewell.respond(200)
        assert (await pending()).status == 200


async def test_limits_answer_with_503_and_when_to_come_again(autojump_clock):
    limits = ConcurrencyConfig(max_in_flight=1, max_queue=1)
    async with serving("a", upstream=several("a", concurrency=limits)) as world:
        client = await world.open("a")
        first = await start(world, client, request(1, "tools/call"))
        second = await start(world, client, request(2, "tools/call"))
        response = await client.post(request(3, "tools/call"))
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert (await response.json())["id"] == 3
        (await world.servers["a"].next_call()).answer(result(1))
        await (await first()).read()
        (await world.servers["a"].next_call()).answer(result(2))
        assert await (await second()).json() == result(2)


async def test_what_a_call_waits_for_does_not_wait_for_the_call(autojump_clock):
    """Streams that listen, and a client's answers, pass by the limit in both eras."""
    limits = ConcurrencyConfig(max_in_flight=1, max_queue=0)
    async with serving("a", upstream=several("a", concurrency=limits)) as world:
        client = await world.open("a")
        server = world.servers["a"]
        pending = await start(world, client, request(1, "tools/call"))
        events = (await server.next_call()).open_events()
        follower = Follower(await pending())
        await follower.prime()
        listening = Pending()
        world.kit.nursery.start_soon(listening.run, client.listen)
        (await server.next_call()).open_events()
        assert (await listening()).status == 200
        message = modern_request("s", "subscriptions/listen")
        subscribed = await start(world, world.client(), message, modern_headers(message))
        (await server.next_call()).open_events()
        assert (await subscribed()).status == 200
        await events.send(request("ask", "elicitation/create"))
        assert (await follower.next())["id"] == "ask"
        answered = await start(world, client, result("ask"))
        (await server.next_call()).respond(202)
        assert (await answered()).status == 202
        assert (await client.post(request(2, "tools/call"))).status == 503
        await events.send(result(1))
        await follower.rest()
        assert await call(world, client, "a")


async def test_to_ask_who_may_come_back_to_a_call_does_not_wait_for_the_call(autojump_clock):
    """The one would wait for the other, and its client would not get what the server says meanwhile."""
    limits = ConcurrencyConfig(max_in_flight=1, max_queue=0)
    forwarding = EndpointConfig(forward_headers=["authorization"])
    async with serving("a", upstream=several("a", concurrency=limits), endpoint=forwarding) as world:
        client = await world.open("a")
        server = world.servers["a"]
        pending = await start(world, client, request(1, "tools/call"))
        events = (await server.next_call()).open_events()
        follower = Follower(await pending())
        await follower.prime()
        follower.response.leave()
        resumed = Pending()
        world.kit.nursery.start_soon(resumed.run, client.listen, follower.cursor)
        with trio.fail_after(1):
            asked = await server.next_call()
        assert asked.message["method"] == "ping"
        asked.answer(result(asked.message["id"]))
        follower.response = await resumed()
        await events.send(result(1))
        assert await follower.rest() == [result(1)]


async def test_a_drained_endpoint_keeps_its_sessions_and_gets_no_others(autojump_clock):
    async with serving("ab", upstream=several("a", "b")) as world:
        client = await world.open("a")
        endpoint(world, "a").is_draining = True
        for _ in range(3):
            await world.open("b")
        assert await call(world, client, "a")
        endpoint(world, "b").is_draining = True
        response = await world.client().post(request(0, "initialize"))
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        endpoint(world, "a").is_draining = False
        await world.open("a")
