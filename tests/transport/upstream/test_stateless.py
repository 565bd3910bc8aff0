"""Modern requests on shared streams."""

import pytest
import trio
import trio.testing

from shadowcat.errors import UpstreamDisconnected, UpstreamTimeout, UpstreamUnavailable
from shadowcat.testing import ScriptedConnector, error, modern_request, notification, request, result

from .piping import open_piped

LOG = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def call_of(request_id, **meta):
    message = modern_request(request_id, "tools/call", name="x", arguments={})
    message["params"]["_meta"].update(meta)
    return message


async def begin(piped, message, server=None):
    """Begin a call; return it, the server it reached, and what that got."""
    call = piped.soon(piped.post_modern, message)
    if server is None:
        server = await piped.connector.next_stream()
    return call, server, await server.next_message()


async def test_era_is_asked_once(autojump_clock):
    """However many come at first; each is answered with its own id."""
    async with open_piped(pool_size=1) as piped:
        calls = [piped.soon(piped.post_modern, call_of("same")) for _ in range(3)]
        server = await piped.connector.next_stream()
        probe = await server.answer(supportedVersions=["2026-07-28"])
        assert "server/discover" == probe["method"]
        for _ in calls:
            assert "tools/call" == (await server.answer())["method"]

        for call in calls:
            assert result("same") == await (await call.answer()).json()
        assert 1 == piped.connector.opened


async def test_modern_error_means_a_modern_server(autojump_clock):
    """Spec 2026-07-28, stdio: do not fall back to initialize.  It is for the client to choose a version."""
    async with open_piped() as piped:
        call, server, probe = await begin(piped, call_of(1))
        await server.say(error(probe["id"], -32022, "Unsupported protocol version"))
        sent = await server.next_message()
        await server.say(error(sent["id"], -32022, "Unsupported protocol version"))
        answer = await call.answer()

        assert 400 == answer.status
        assert -32022 == (await answer.json())["error"]["code"]


@pytest.mark.parametrize("reply", ["error", "nothing", "break"])
async def test_anything_else_means_a_legacy_server(autojump_clock, reply):
    """The client is told which versions are left; the stream that was asked is used for nothing else."""
    async with open_piped(spares=0) as piped:
        call, server, probe = await begin(piped, call_of(1))
        if reply == "error":
            await server.say(error(probe["id"], -32601, "what?"))
        elif reply == "break":
            server.stop()
        answer = await call.answer()
        assert 400 == answer.status
        assert "2025-11-25" in (await answer.json())["error"]["data"]["supported"]
        await server.closed.wait()
        assert trio.current_time() == (10 if reply == "nothing" else 0)
        assert 400 == (await piped.post_modern(notification("x"))).status
        await trio.sleep(61)
        opened = piped.connector.opened
        piped.soon(piped.post_modern, call_of(2))
        await trio.testing.wait_all_tasks_blocked()

        # An answer is believed for ever, silence for a minute.
        assert opened + (reply != "error") == piped.connector.opened


async def test_failed_opening_is_not_remembered(autojump_clock):
    """All who waited for it are told; the next one tries again."""
    async with open_piped() as piped:
        piped.connector.open_delay = 1
        piped.connector.failure = UpstreamUnavailable("no such program")
        calls = [piped.soon(piped.post_modern, call_of(n)) for n in range(3)]
        for call in calls:
            with pytest.raises(UpstreamUnavailable, match="no such program"):
                await call.answer()
        assert 1 == piped.connector.opened
        piped.connector.failure = None

        await piped.open_modern()


async def test_cancelled_prober_is_replaced(autojump_clock):
    """By the next who waits."""
    async with open_piped() as piped:
        first, server, _ = await begin(piped, call_of(1))
        second = piped.soon(piped.post_modern, call_of(2))
        await trio.testing.wait_all_tasks_blocked()
        first.scope.cancel()
        assert "notifications/cancelled" == (await server.next_message())["method"]
        await server.answer(supportedVersions=[])
        await server.answer()

        assert result(2) == await (await second.answer()).json()


async def test_calls_share_few_streams(autojump_clock):
    """An idle one before another is opened, and then the one with the least to do."""
    async with open_piped(pool_size=2) as piped:
        first = await piped.open_modern()
        _, _, one = await begin(piped, call_of(1), first)
        _, second, two = await begin(piped, call_of(2))
        third, _, _ = await begin(piped, call_of(3), first)
        await begin(piped, call_of(4), second)
        await second.say(result(two["id"]))
        await trio.testing.wait_all_tasks_blocked()
        await begin(piped, call_of(5), second)
        third.scope.cancel()

        assert "notifications/cancelled" == (await first.next_message())["method"]
        assert 2 == piped.connector.opened
        await begin(piped, call_of(6), first)


async def test_nothing_waits_while_a_second_stream_is_opened(autojump_clock):
    """What comes meanwhile goes to the first."""
    async with open_piped() as piped:
        first = await piped.open_modern()
        await begin(piped, call_of(1), first)
        piped.connector.open_delay = 100
        piped.soon(piped.post_modern, call_of(2))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await begin(piped, call_of(3), first)

        assert trio.current_time() == began


async def test_second_stream_that_cannot_be_opened_is_done_without(autojump_clock):
    """As long as there is a first."""
    async with open_piped() as piped:
        first = await piped.open_modern()
        await begin(piped, call_of(1), first)
        piped.connector.failure = UpstreamUnavailable("no")

        await begin(piped, call_of(2), first)


async def test_idle_streams_beyond_the_first_are_closed(autojump_clock):
    """After a minute."""
    async with open_piped(pool_size=2) as piped:
        first = await piped.open_modern()
        await begin(piped, call_of(1), first)
        call, second, sent = await begin(piped, call_of(2))
        await trio.sleep(200)
        await second.say(result(sent["id"]))
        assert [result(2)] == await (await call.answer()).rest()
        await (await call.answer()).aclose()
        await trio.sleep(50)
        assert 2 == piped.connector.open_now
        await trio.sleep(50)

        assert 1 == piped.connector.open_now


async def test_log_messages_reach_their_caller_only(autojump_clock):
    """A request that wants them has a stream to itself while it lasts."""
    async with open_piped(pool_size=1) as piped:
        first = await piped.open_modern()
        logging, _, one = await begin(piped, call_of(1, **{LOG: "info"}), first)
        plain, second, two = await begin(piped, call_of(2))
        await first.say(notification("notifications/message", level="info", data="mine"))
        await second.say(notification("notifications/message", level="info", data="nobody's"))
        await first.say(result(one["id"]))
        await second.say(result(two["id"]))

        assert [notification("notifications/message", level="info", data="mine"), result(1)] == await (
            await logging.answer()
        ).rest()
        assert result(2) == await (await plain.answer()).json()
        assert 1 == piped.statistics().dropped


async def test_stream_of_a_caller_who_left_logs_to_nobody_else(autojump_clock):
    """What it may still say must not be taken for the next caller's."""
    async with open_piped() as piped:
        first = await piped.open_modern()
        logging, _, _ = await begin(piped, call_of(1, **{LOG: "info"}), first)
        logging.scope.cancel()
        await first.closed.wait()

        await begin(piped, call_of(2, **{LOG: "info"}))


async def test_stream_stays_its_caller_s_when_a_subscription_on_it_ends(autojump_clock):
    """It was there before, and takes nothing along."""
    async with open_piped() as piped:
        first = await piped.open_modern()
        subscription, _ = await subscribe(piped, "s", first)
        await begin(piped, call_of(1, **{LOG: "info"}), first)
        await subscription.aclose()
        _, second, _ = await begin(piped, call_of(2))

        assert second is not first


async def test_what_belongs_to_no_request_is_dropped(autojump_clock):
    """Never given to a caller, though it be the only one."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        call, _, sent = await begin(piped, call_of(1), server)
        await server.say(notification("notifications/tools/list_changed"))
        await server.say(request("s", "roots/list"))
        await server.say(notification("notifications/cancelled", requestId=77))
        await server.say(result(sent["id"]))

        assert result(1) == await (await call.answer()).json()
        assert 3 == piped.statistics().dropped


async def subscribe(piped, request_id, server):
    call, _, sent = await begin(piped, modern_request(request_id, "subscriptions/listen", notifications={}), server)
    meta = {SUBSCRIPTION: sent["id"]}
    await server.say(notification("notifications/subscriptions/acknowledged", _meta=meta))
    answer = await call.answer()
    assert {SUBSCRIPTION: request_id} == (await answer.next_message())["params"]["_meta"]
    return answer, sent["id"]


async def test_subscriptions_are_told_apart(autojump_clock):
    """Though their ids are the same; and they do not count as work."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        one, first = await subscribe(piped, "s", server)
        two, second = await subscribe(piped, "s", server)
        await server.say(notification("a", _meta={SUBSCRIPTION: second}))
        await server.say(notification("b", _meta={SUBSCRIPTION: first}))
        assert notification("b", _meta={SUBSCRIPTION: "s"}) == await one.next_message()
        assert notification("a", _meta={SUBSCRIPTION: "s"}) == await two.next_message()
        await server.say(result(first, _meta={SUBSCRIPTION: first}))

        assert [result("s", _meta={SUBSCRIPTION: "s"})] == await one.rest()
        assert 1 == piped.connector.opened


async def test_server_ends_a_subscription(autojump_clock):
    """By cancelling it, as servers without connections do."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        answer, sent_id = await subscribe(piped, "s", server)
        await server.say(notification("notifications/cancelled", requestId=sent_id))

        assert [notification("notifications/cancelled", requestId="s")] == await answer.rest()
        assert 0 == piped.statistics().pending


async def test_client_ends_a_subscription(autojump_clock):
    """By leaving; the server is told, and that does not take any time."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        answer, sent_id = await subscribe(piped, "s", server)
        server.stalled = trio.Event()
        began = trio.current_time()
        await answer.aclose()
        assert trio.current_time() == began
        server.stalled.set()

        assert sent_id == (await server.next_message())["params"]["requestId"]


async def test_break_is_told_to_everybody_and_survived(autojump_clock):
    """A subscription ends with an error; the next call has another stream."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        subscription, _ = await subscribe(piped, "s", server)
        call, _, _ = await begin(piped, call_of(1), server)
        server.stop()
        with pytest.raises(UpstreamDisconnected):
            await call.answer()
        with pytest.raises(UpstreamDisconnected):
            await subscription.next_message()

        call, _, sent = await begin(piped, call_of(2))
        assert "tools/call" == sent["method"]


async def test_overlong_message_leaves_subscriptions_alone(autojump_clock):
    """It was hardly for one of them."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        subscription, sent_id = await subscribe(piped, "s", server)
        await server.overflow()
        await server.say(notification("a", _meta={SUBSCRIPTION: sent_id}))

        assert "a" == (await subscription.next_message())["method"]
        assert 1 == piped.statistics().dropped


async def test_slow_reader_does_not_hold_others_up_for_ever(autojump_clock):
    """After a while its answer is given up, and the server told."""
    async with open_piped(max_queued=100, pool_size=1, patience=5) as piped:
        server = await piped.open_modern()
        slow, sent_id = await subscribe(piped, "s", server)
        call, _, sent = await begin(piped, call_of(1), server)
        await server.say(notification("a", text="." * 100, _meta={SUBSCRIPTION: sent_id}))
        await server.say(result(sent["id"]))
        assert result(1) == await (await call.answer()).json()
        assert trio.current_time() == 5

        assert sent_id == (await server.next_message())["params"]["requestId"]
        assert "a" == (await slow.next_message())["method"]
        with pytest.raises(UpstreamTimeout, match="check before"):
            await slow.next_message()


async def test_streams_with_credentials_are_not_shared(autojump_clock):
    """Those of one caller are never used for another, and none is kept when idle."""
    async with open_piped(ScriptedConnector(takes_headers=True)) as piped:
        ann, bob = [(b"authorization", b"ann")], [(b"authorization", b"bob")]
        call = piped.soon(piped.post_modern, call_of(1), ann)
        first = await piped.connector.next_stream()
        await first.answer(supportedVersions=[])
        await first.answer()
        await call.answer()
        call = piped.soon(piped.post_modern, call_of(2), bob)
        second = await piped.connector.next_stream()
        await second.answer()
        await call.answer()
        call = piped.soon(piped.post_modern, call_of(3), [*ann, (b"traceparent", b"x")])
        await first.answer()
        await call.answer()
        assert [tuple(ann), tuple(bob)] == [first.headers, second.headers]
        assert 2 == piped.connector.opened
        await trio.sleep(100)

        assert 0 == piped.connector.open_now
        assert {} == piped.upstream._stateless._groups


async def test_notification_goes_to_any_stream(autojump_clock):
    """And is accepted."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        assert 202 == (await piped.post_modern(notification("x"))).status
        assert notification("x") == await server.next_message()


async def test_sessions_and_modern_requests_never_share_a_stream(autojump_clock):
    """A server chooses the era by what it is told first."""
    async with open_piped() as piped:
        modern = await piped.open_modern()
        legacy, session = await piped.open_session()
        assert modern is not legacy
        await begin(piped, call_of(1), modern)


@pytest.mark.parametrize("wants_logs", [False, True])
@pytest.mark.parametrize("step", range(30))
async def test_cancellation_at_each_step_leaves_everything_whole(autojump_clock, step, wants_logs):
    """From the first request on."""
    async with open_piped(pool_size=1) as piped:
        meta = {LOG: "info"} if wants_logs else {}
        call = piped.soon(piped.post_modern, call_of(1, **meta))

        async def serve(server):
            while True:
                sent = await server.next_message()
                if "id" in sent:
                    await server.say(result(sent["id"], supportedVersions=[]))

        async def serve_all():
            while True:
                piped.nursery.start_soon(serve, await piped.connector.next_stream())

        piped.nursery.start_soon(serve_all)
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        call.scope.cancel()
        await trio.sleep(1)

        assert call.is_done
        assert 0 == piped.statistics().pending
        assert result(2, supportedVersions=[]) == await (await piped.post_modern(call_of(2, **meta))).json()
        await trio.sleep(200)
        assert 1 == piped.connector.open_now
