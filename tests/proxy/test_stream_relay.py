"""What a client finds that comes back after a restart, or to another proxy."""

import json

import pytest
import trio
import trio.testing

from shadowcat import HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig, SessionConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.session import LogLimits, StreamConfig
from shadowcat.testing import notification, open_proxy_kit, result

from .conversation import Follower, Pending, move, open_session, start_listen, start_post, start_stream

CUT = UpstreamDisconnected("gone")
UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


def step(number):
    return notification("notifications/progress", progress=number)


def config_of(**streams):
    return ReverseProxyConfig(upstream=UPSTREAM, sessions=SessionConfig(streams=StreamConfig(**streams)))


class Replica(InMemoryStore):
    """One proxy's way to a store that others share; it can be blocked, as if the process were stopped."""

    def __init__(self, shared):
        super().__init__()
        self._entries, self._due, self._alive_until = shared._entries, shared._due, shared._alive_until
        self.thawed = trio.Event()
        self.thawed.set()

    def freeze(self):
        self.thawed = trio.Event()

    async def append_events(self, appends, limits):
        await self.thawed.wait()
        return await super().append_events(appends, limits)

    async def renew_owner(self, owner, ttl):
        await self.thawed.wait()
        await super().renew_owner(owner, ttl)


async def listen_ahead_of_the_store(kit, ahead):
    """Listen without ids of the upstream, and see *ahead* events after the proxy has last stored one.

    Returns the client, and the ids that it has seen.
    """
    call, response = await start_listen(kit)
    events = call.open_events()
    follower, seen = Follower(await response()), []
    for number in range(ahead + 1):
        await events.send(step(number))
        assert await follower.next() == step(number)
        seen.append(follower.cursor)
        if number == 0:
            await trio.sleep(1)
            kit.store.freeze()
    return follower, seen


@pytest.fixture
async def replicas():
    """Two proxies at the same store.  The first does not wait long for its clients."""
    shared = InMemoryStore()
    async with (
        open_proxy_kit(config_of(linger=20), store=Replica(shared)) as one,
        open_proxy_kit(store=Replica(shared)) as other,
    ):
        await open_session(one)
        yield one, other


class TestRestart:
    async def test_stream_goes_on_at_the_next_process(self, autojump_clock):
        store = InMemoryStore()
        async with open_proxy_kit(store=store) as old:
            await open_session(old)
            events, follower = await start_stream(old)
            await events.send(step(1), "a")
            assert await follower.next() == step(1)
            await events.send(step(2), "b")
        async with open_proxy_kit(store=store) as new:
            client = move(old.client, new)

            async def go_on():
                call = await new.upstream.next_call()
                assert (call.request.method, call.headers["last-event-id"]) == ("GET", "b")
                again = call.open_events()
                await again.send(step(3), "c")
                await again.send(result(1), "d")
                again.end()

            new.nursery.start_soon(go_on)
            follower.response = await client.listen(follower.cursor)
            assert await follower.rest() == [step(2), step(3), result(1)]

    async def test_answer_without_ids_is_told_to_be_lost(self, autojump_clock):
        store = InMemoryStore()
        async with open_proxy_kit(store=store) as old:
            await open_session(old)
            events, follower = await start_stream(old, 7)
            await events.send(step(1))
            await trio.sleep(1)
        async with open_proxy_kit(store=store) as new:
            follower.response = await move(old.client, new).listen(follower.cursor)
            assert await follower.next() == step(1)
            (answer,) = await follower.rest()
            assert (answer["id"], answer["error"]["code"]) == (7, -32603)

    async def test_finished_answer_is_there(self, autojump_clock):
        store = InMemoryStore()
        async with open_proxy_kit(store=store) as old:
            await open_session(old)
            events, follower = await start_stream(old)
            follower.response.leave()
            await events.send(result(1))
            events.end()
            await trio.sleep(1)
        async with open_proxy_kit(store=store) as new:
            follower.response = await move(old.client, new).listen(follower.cursor)
            assert await follower.rest() == [result(1)]
            assert new.upstream.hits == 0


class TestReplica:
    async def test_another_proxy_serves_while_the_first_reads(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1))
        assert await follower.next() == step(1)
        client = move(one.client, other)
        await events.send(step(2))
        await trio.sleep(0.2)
        await follower.resume(client)
        assert await follower.next() == step(2)
        await events.send(step(3))
        assert await follower.next() == step(3)
        await events.send(result(1))
        events.end()
        assert await follower.rest() == [result(1)]
        assert other.upstream.hits == 0

    async def test_client_is_told_its_own_place_first(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        await follower.next()
        await trio.sleep(0.2)
        cursor = follower.cursor
        with trio.fail_after(5):
            await follower.resume(move(one.client, other))
            await follower.prime()
        assert follower.cursor == cursor
        await events.send(result(1), "b")
        events.end()
        assert await follower.rest() == [result(1)]

    async def test_after_the_answer_there_is_no_stream_at_the_other_either(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        client = move(one.client, other)
        await trio.sleep(0.2)
        await follower.resume(client)
        await events.send(result(1))
        events.end()
        assert await follower.rest() == [result(1)]
        assert (await client.listen(follower.cursor)).status == 405

    async def test_it_takes_over_when_the_first_is_dead(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        assert await follower.next() == step(1)
        await trio.sleep(1)
        one.store.freeze()
        died = trio.current_time()

        async def go_on():
            call = await other.upstream.next_call()
            assert 2 <= trio.current_time() - died <= 4
            assert call.headers["last-event-id"] == "a"
            again = call.open_events()
            await again.send(result(1), "b")
            again.end()

        other.nursery.start_soon(go_on)
        await follower.resume(move(one.client, other))
        assert await follower.rest() == [result(1)]

    async def test_zombie_appends_nothing(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        assert await follower.next() == step(1)
        await trio.sleep(1)
        one.store.freeze()
        await follower.resume(move(one.client, other))
        await follower.prime()
        again = (await other.upstream.next_call()).open_events()
        one.store.thawed.set()
        await events.send(step(66), "z")
        await again.send(step(2), "b")
        await trio.sleep(1)
        await again.send(result(1), "c")
        again.end()
        assert await follower.rest() == [step(2), result(1)]
        await trio.sleep(1)
        late = Follower(await move(one.client, one).listen(follower.cursor))
        assert await late.rest() == []

    async def test_parked_stream_is_taken_over_at_once(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        assert await follower.next() == step(1)
        follower.response.leave()
        await trio.sleep(25)
        began = trio.current_time()

        async def go_on():
            again = (await other.upstream.next_call()).open_events()
            await again.send(result(1), "b")
            again.end()

        other.nursery.start_soon(go_on)
        await follower.resume(move(one.client, other))
        assert await follower.rest() == [result(1)]
        assert trio.current_time() - began < 1

    async def test_event_has_the_same_id_wherever_its_client_is(self, autojump_clock, replicas):
        """From the memory of the proxy that has taken its stream over, and from the store."""
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        await follower.next()
        place = follower.cursor
        follower.response.leave()
        await trio.sleep(25)
        await follower.resume(move(one.client, other))
        await follower.prime()
        await (await other.upstream.next_call()).open_events().send(step(2), "b")
        assert await follower.next() == step(2)
        await trio.sleep(0.2)
        late = Follower(await move(one.client, one).listen(place))
        assert await late.next() == step(2)
        assert late.cursor == follower.cursor
        assert follower.cursor.startswith(place.partition(".")[0] + ".2-2.")

    async def test_cursor_ahead_of_the_store_goes_on_exactly(self, autojump_clock, replicas):
        one, other = replicas
        events, follower = await start_stream(one)
        await trio.sleep(1)
        one.store.freeze()
        for number in range(1, 4):
            await events.send(step(number), f"e{number}")
            await follower.next()

        async def go_on():
            call = await other.upstream.next_call()
            assert call.headers["last-event-id"] == "e3"
            again = call.open_events()
            await again.send(step(4), "e4")
            await again.send(result(1), "e5")
            again.end()

        other.nursery.start_soon(go_on)
        await follower.resume(move(one.client, other))
        assert await follower.rest() == [step(4), result(1)]

    async def test_session_ended_at_one_ends_streams_at_the_other(self, autojump_clock, replicas):
        one, other = replicas
        call, response = await start_listen(one)
        call.open_events()
        follower = Follower(await response())
        await trio.sleep(1)
        other.nursery.start_soon(move(one.client, other).delete)
        (await other.upstream.next_call()).respond(200)
        began = trio.current_time()
        assert await follower.rest() == []
        assert trio.current_time() - began <= 31


class TestTakenOver:
    async def test_answer_is_never_taken_for_a_repetition(self, autojump_clock, replicas):
        """The client has seen events without ids that the store has not."""
        one, other = replicas
        events, follower = await start_stream(one)
        await events.send(step(0), "a")
        await follower.next()
        await trio.sleep(1)
        one.store.freeze()
        await events.send(step(1))
        await events.send(step(2))
        assert [await follower.next(), await follower.next()] == [step(1), step(2)]

        async def go_on():
            again = (await other.upstream.next_call()).open_events()
            await again.send(result(1), "b")
            again.end()

        other.nursery.start_soon(go_on)
        await follower.resume(move(one.client, other))
        assert await follower.rest() == [result(1)]
        one.store.thawed.set()

    async def test_listening_stream_without_ids_never_gives_one_of_ours_twice(self, autojump_clock, replicas):
        """MCP: ids are unique in the session.  The client has seen some that the store has not."""
        one, other = replicas
        follower, seen = await listen_ahead_of_the_store(one, ahead=3)
        await follower.resume(move(one.client, other))
        await follower.prime()
        again = (await other.upstream.next_call()).open_events()
        for number in range(10, 15):
            await again.send(step(number))
            assert await follower.next() == step(number)
            seen.append(follower.cursor)
        assert len(set(seen)) == len(seen) == 9

    async def test_client_that_comes_back_from_further_back_gets_new_ids_too(self, autojump_clock, replicas):
        """It had more than it says that it has seen: of what it was sent, nothing is known."""
        one, other = replicas
        follower, seen = await listen_ahead_of_the_store(one, ahead=3)
        follower.cursor = seen[1]
        await follower.resume(move(one.client, other))
        await follower.prime()
        again = (await other.upstream.next_call()).open_events()
        await again.send(step(10))
        assert await follower.next() == step(10)
        assert follower.cursor not in seen

    async def test_what_comes_to_a_listening_stream_while_its_client_is_away_again_is_not_missed(
        self, autojump_clock, replicas
    ):
        """It comes back from where it was, which the store has not heard of; no count may pass anything over."""
        one, other = replicas
        follower, _ = await listen_ahead_of_the_store(one, ahead=3)
        client = move(one.client, other)
        await follower.resume(client)
        await follower.prime()
        again = (await other.upstream.next_call()).open_events()
        follower.response.leave()
        for number in range(10, 15):
            await again.send(step(number))
        await follower.resume(client)
        with trio.fail_after(5):
            assert [await follower.next() for _ in range(5)] == [step(number) for number in range(10, 15)]

    async def test_giant_answer_that_is_not_kept_is_lost(self, autojump_clock, replicas):
        """While its owner lives, which could still be asked."""
        one, other = replicas
        call, response = await start_listen(one)
        call.open_events()
        await response()
        events, follower = await start_stream(one)
        await events.send(step(0), "a")
        await follower.next()
        follower.response.leave()
        await events.send_bytes(b"id: b\ndata: " + json.dumps(result(1, text="x" * 2_000_000)).encode())
        await events.send_bytes(b"\n\n")
        events.end()
        await trio.sleep(3)
        assert (await move(one.client, other).listen(follower.cursor)).status == 410

    async def test_stream_that_nobody_can_go_on_with_is_lost_everywhere(self, autojump_clock, replicas):
        """Neither proxy knows the request; what one finds out must not hide it from the other."""
        one, other = replicas
        cursor = "aAAAAAAAAAAAA.3.0.YQ"
        for _ in range(2):
            for kit in (one, other):
                pending = Pending()
                kit.nursery.start_soon(pending.run, move(one.client, kit).listen, cursor)
                with trio.move_on_after(1):
                    (await kit.upstream.next_call()).respond(400)
                assert (await pending()).status == 410
                await trio.sleep(1)

    async def test_claim_that_fails_leaves_the_stream_alone(self, autojump_clock):
        class SlowStore(InMemoryStore):
            async def read_events(self, *args):
                await trio.sleep(1)
                return await super().read_events(*args)

        async with open_proxy_kit(config_of(limits=LogLimits(max_events=10)), store=SlowStore()) as kit:
            await open_session(kit)
            events, follower = await start_stream(kit)
            first = follower.cursor
            for number in range(20):
                await events.send(step(number))
                await follower.next()
            await trio.sleep(1)
            pending = Pending()
            kit.nursery.start_soon(pending.run, kit.client.listen, first)
            await trio.sleep(0.3)
            await events.send(step(20))
            assert await follower.next() == step(20)
            assert (await pending()).status == 410
            await trio.sleep(1)
            await events.send(result(1))
            events.end()
            assert await follower.rest() == [result(1)]

    async def test_newer_connection_takes_over_before_the_older_began(self, autojump_clock, replicas):
        one, _ = replicas
        older, newer = Pending(), Pending()
        for pending in (older, newer):
            one.nursery.start_soon(pending.run, one.client.listen, "aAAAAAAAAAAAA.3.0.YQ")
            await trio.sleep(1)
        assert (await older()).status == 409
        (await one.upstream.next_call()).open_events()
        assert (await newer()).status == 200

    async def test_call_that_was_cancelled_is_not_waited_for(self, autojump_clock, replicas):
        one, _ = replicas
        events, follower = await start_stream(one)
        await events.send(step(1), "a")
        await follower.next()
        cancel, accepted = await start_post(one, notification("notifications/cancelled", requestId=1))
        cancel.respond(202)
        await accepted()
        follower.response.leave()
        await trio.sleep(60)
        hits = one.upstream.hits
        await one.client.listen(follower.cursor)
        assert one.upstream.hits == hits


async def test_client_hears_something_although_its_server_says_nothing_to_it(autojump_clock):
    """An event without data, by which a server only says where it is, is no news."""
    async with open_proxy_kit() as kit:
        await open_session(kit, "2025-06-18")
        call, response = await start_listen(kit)
        events = call.open_events()
        client = await response()

        async def count():
            for number in range(10):
                await trio.sleep(10)
                await events.send_bytes(b"id: %d\ndata:\n\n" % number)

        kit.nursery.start_soon(count)
        for seconds in (15, 30, 45):
            assert await client.read_some() == b": heartbeat\n\n"
            assert trio.current_time() == seconds
