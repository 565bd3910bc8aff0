"""A legacy session on a pipe."""

import json

import pytest
import trio
import trio.testing

from shadowcat.errors import RemoteProtocolError, UpstreamBusy, UpstreamDisconnected
from shadowcat.testing import error, notification, request, result

from .piping import open_piped

wait_all_tasks_blocked = trio.testing.wait_all_tasks_blocked
CHANGED = notification("notifications/tools/list_changed")


async def test_answer_that_comes_first_is_a_document(autojump_clock):
    """With its length, and nothing is under way any more."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request("a", "ping"), session)
        await server.answer()
        answer = await call.answer()

        assert (200, "application/json") == (answer.status, answer.type)
        assert result("a") == await answer.json()
        assert 0 == piped.statistics().pending


async def test_anything_else_first_makes_an_event_stream(autojump_clock):
    """Which ends after the answer."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call"), session)
        sent = await server.next_message()
        await server.say(request("s", "sampling/createMessage"))
        await server.say(result(sent["id"]))
        answer = await call.answer()

        assert "text/event-stream" == answer.type
        assert [request("s", "sampling/createMessage"), result(1)] == await answer.rest()


async def test_silence_makes_an_event_stream(autojump_clock):
    """So that whoever waits can be told that it goes on."""
    async with open_piped(stream_after=7) as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call"), session)
        sent = await server.next_message()
        answer = await call.answer()
        assert trio.current_time() == 7
        await server.say(result(sent["id"]))

        assert [result(1)] == await answer.rest()


async def test_message_with_line_breaks_is_one_event(autojump_clock):
    """Between the members of a JSON text they mean nothing."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        await server.say(json.dumps(CHANGED, indent=1).replace("\n", "\r\n").encode())

        assert CHANGED == await listener.next_message()


async def test_early_close_frees_the_place(autojump_clock):
    """What comes later is dropped and counted; the server is not told, for a client that leaves cancels nothing."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call"), session)
        sent = await server.next_message()
        await server.say(request("s", "ping"))
        answer = await call.answer()
        await answer.aclose()
        await answer.aclose()
        await server.say(result(sent["id"]))
        await wait_all_tasks_blocked()

        assert (0, 1) == (piped.statistics().pending, piped.statistics().late)
        listener = await piped.send("GET", session=session)
        assert request("s", "ping") == await listener.next_message()


async def test_slow_reader_slows_the_server_down(autojump_clock):
    """No more is read than fits, or one message."""
    async with open_piped(max_queued=100) as piped:
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        said = []

        async def say():
            for number in range(10):
                await server.say(notification("x", text="." * 100, number=number))
                said.append(number)

        piped.nursery.start_soon(say)
        await wait_all_tasks_blocked()
        assert [0] == said

        assert 0 == (await listener.next_message())["params"]["number"]
        await wait_all_tasks_blocked()
        assert [0, 1] == said
        await listener.aclose()
        await wait_all_tasks_blocked()
        assert 10 == len(said)


async def test_what_the_server_says_by_itself_has_an_order_of_places(autojump_clock):
    """The only call; else the listener; else a call; else it is held."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        calls, sent = [], []
        for number in (1, 2):
            calls.append(piped.soon(piped.post, request(number, "tools/call"), session))
            sent.append(await server.next_message())
        await server.say(notification("to a call"))
        newest = await calls[1].answer()
        assert "to a call" == (await newest.next_message())["method"]

        listener = await piped.send("GET", session=session)
        await server.say(notification("to the listener"))
        assert "to the listener" == (await listener.next_message())["method"]

        await server.say(result(sent[1]["id"]))
        await server.say(notification("to the only call"))
        only = await calls[0].answer()
        assert "to the only call" == (await only.next_message())["method"]

        await server.say(result(sent[0]["id"]))
        await listener.aclose()
        await server.say(notification("held"))
        listener = await piped.send("GET", session=session)
        assert "held" == (await listener.next_message())["method"]


async def test_a_second_listener_is_refused(autojump_clock):
    """Until the first has gone; what that did not read, the next one does."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        first = await piped.send("GET", session=session)
        assert 409 == (await piped.send("GET", session=session)).status
        await server.say(CHANGED)
        await first.aclose()
        second = await piped.send("GET", session=session)

        assert 200 == second.status
        assert CHANGED == await second.next_message()


async def test_cancellation_of_a_server_goes_where_its_request_went(autojump_clock):
    """Though another place would be chosen now."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        await server.say(request("s", "elicitation/create"))
        assert "s" == (await listener.next_message())["id"]
        piped.soon(piped.post, request(1, "tools/call"), session)
        await server.next_message()
        await server.say(notification("notifications/cancelled", requestId="s"))

        assert "notifications/cancelled" == (await listener.next_message())["method"]


async def test_held_requests_are_answered_when_there_are_too_many(autojump_clock):
    """A notification is just dropped, the oldest first."""
    async with open_piped(max_held=2) as piped:
        server, session = await piped.open_session()
        await server.say(notification("dropped"))
        for number in range(3):
            await server.say(request(number, "roots/list"))
        refusal = await server.next_message()
        assert (2, -32603) == (refusal["id"], refusal["error"]["code"])
        listener = await piped.send("GET", session=session)

        assert [0, 1] == [(await listener.next_message())["id"] for _ in range(2)]
        assert 1 == piped.statistics().dropped


@pytest.mark.parametrize("message", [CHANGED, result("s", roots=[])])
async def test_what_is_owed_no_answer_is_accepted(autojump_clock, message):
    """After it was sent, as it is."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        assert 202 == (await piped.post(message, session)).status
        assert message == await server.next_message()


async def test_cancellation_of_nobody_knows_what_is_dropped(autojump_clock):
    """None in flight has that id, or two have."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        cancel = notification("notifications/cancelled", requestId=1)
        assert 202 == (await piped.post(cancel, session)).status
        for _ in range(2):
            piped.soon(piped.post, request(1, "tools/call"), session)
            await server.next_message()
        assert 202 == (await piped.post(cancel, session)).status
        await piped.post(CHANGED, session)

        assert CHANGED == await server.next_message()
        assert (2, 2) == (piped.statistics().dropped, piped.statistics().pending)


async def test_batch_is_split_and_answered_as_events(autojump_clock):
    """Each answer with its own id, in the order in which they come."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        batch = [request("a", "ping"), CHANGED, request("b", "ping")]
        call = piped.soon(piped.post, batch, session)
        sent = [await server.next_message() for _ in batch]
        assert CHANGED == sent[1]
        await server.say(result(sent[2]["id"]))
        await server.say(result(sent[0]["id"]))
        answer = await call.answer()

        assert "text/event-stream" == answer.type
        assert [result("b"), result("a")] == await answer.rest()


async def test_batch_of_a_server_is_taken_apart(autojump_clock):
    """2025-03-26 lets it send one."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "ping"), session)
        sent = await server.next_message()
        await server.say([CHANGED, result(sent["id"]), 17])

        assert [CHANGED, result(1)] == await (await call.answer()).rest()
        assert 1 == piped.statistics().garbage


@pytest.mark.parametrize("body", [b"{", b"[]", b"[1]", b'{"jsonrpc":"2.0"}'])
async def test_what_is_no_message_is_refused(autojump_clock, body):
    """And not sent."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        answer = await piped.post(body, session)

        assert 400 == answer.status
        assert (await answer.json())["error"]["code"] in (-32700, -32600)


async def test_too_many_requests_are_refused(autojump_clock):
    """Nothing of them is sent; a batch counts as what is in it."""
    async with open_piped(max_pending=2) as piped:
        server, session = await piped.open_session()
        piped.soon(piped.post, request(1, "tools/call"), session)
        sent = await server.next_message()
        with pytest.raises(UpstreamBusy, match="nothing was sent"):
            await piped.post([request(2, "ping"), request(3, "ping")], session)
        await server.say(result(sent["id"]))
        call = piped.soon(piped.post, request(4, "ping"), session)
        await server.answer()

        assert result(4) == await (await call.answer()).json()


async def test_broken_stream_fails_all_calls_at_once(autojump_clock):
    """With what is known of the reason, although closing what is left takes long; the session is forgotten."""
    async with open_piped() as piped:
        piped.connector.close_delay = 5
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        calls = [piped.soon(piped.post, request(n, "tools/call"), session) for n in range(3)]
        sent = [await server.next_message() for _ in calls]
        token_less = notification("notifications/progress", progressToken=sent[0]["id"], progress=1)
        await server.say(token_less)
        server.stop("the server process exited with status 7")
        for call in calls:
            with pytest.raises(UpstreamDisconnected, match=r"status 7.*check before sending it again"):
                await call.answer()
        with pytest.raises(UpstreamDisconnected, match="status 7"):
            await listener.next_message()

        assert trio.current_time() == 0
        for method in ("POST", "GET", "DELETE"):
            assert 404 == (await piped.send(method, request(1, "ping"), session)).status
        assert (0, 0, 1) == (piped.statistics().sessions, piped.statistics().pending, piped.statistics().broken)


async def test_what_came_before_the_break_is_read_before_it(autojump_clock):
    """Then the body says that the stream broke."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call"), session)
        await server.next_message()
        await server.say(request("s", "ping"))
        server.stop()
        answer = await call.answer()

        assert request("s", "ping") == await answer.next_message()
        for _ in range(2):
            with pytest.raises(UpstreamDisconnected):
                await answer.next_message()


async def test_message_that_is_too_long_fails_the_calls_and_no_more(autojump_clock):
    """Whose it was nobody can tell, but what is allowed is said; the session goes on."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call"), session)
        await server.next_message()
        await server.overflow("a message was longer than 10 bytes")
        with pytest.raises(RemoteProtocolError, match="longer than 10 bytes"):
            await call.answer()
        call = piped.soon(piped.post, request(2, "ping"), session)
        await server.answer()

        assert result(2) == await (await call.answer()).json()


@pytest.mark.parametrize("answer", ["error", "cancel", "break"])
async def test_session_that_is_not_granted_leaves_nothing(autojump_clock, answer):
    """Its stream is closed."""
    async with open_piped() as piped:
        call = piped.soon(piped.post, request(0, "initialize"))
        server = await piped.connector.next_stream()
        await server.next_message()
        if answer == "error":
            await server.say(error(1, -32602, "no"))
            response = await call.answer()
            assert error(0, -32602, "no") == await response.json()
            assert response.response.header(b"mcp-session-id") is None
        elif answer == "cancel":
            call.scope.cancel()
        else:
            server.stop()
            with pytest.raises(UpstreamDisconnected):
                await call.answer()
        await server.closed.wait()
        await wait_all_tasks_blocked()

        assert (0, 0) == (piped.statistics().sessions, piped.statistics().pending)


@pytest.mark.parametrize("is_granted", [True, False])
async def test_initialize_may_be_answered_by_a_stream(autojump_clock, is_granted):
    """The session is there when the answer is, unless that is an error."""
    async with open_piped() as piped:
        call = piped.soon(piped.post, request(0, "initialize"))
        server = await piped.connector.next_stream()
        sent = await server.next_message()
        await server.say(notification("notifications/message", level="info"))
        await server.say(result(sent["id"]) if is_granted else error(sent["id"], -1, "no"))
        answer = await call.answer()
        assert 2 == len(await answer.rest())
        await answer.aclose()

        assert int(is_granted) == piped.statistics().sessions
        session = answer.response.header(b"mcp-session-id")
        assert (202 if is_granted else 404) == (await piped.post(CHANGED, session)).status


async def test_idle_session_ends(autojump_clock):
    """Not while somebody listens or waits."""
    async with open_piped(idle_timeout=100, stream_after=1000) as piped:
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        await trio.sleep(300)
        assert 1 == piped.statistics().sessions
        await listener.aclose()
        await trio.sleep(99)
        assert 1 == piped.statistics().sessions
        await trio.sleep(30)

        assert 0 == piped.statistics().sessions
        await server.closed.wait()


async def test_session_has_two_tasks(autojump_clock):
    """Whatever is under way in it."""
    async with open_piped() as piped:
        before = trio.lowlevel.current_statistics().tasks_living
        server, session = await piped.open_session()
        await wait_all_tasks_blocked()

        assert 2 == trio.lowlevel.current_statistics().tasks_living - before


async def test_requests_of_a_client_keep_their_order(autojump_clock):
    """Though the server does not read for a while."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        sent = [request(number, "ping") for number in range(5)]
        for message in sent:
            piped.soon(piped.post, message, session)
            await wait_all_tasks_blocked()

        ids = [(await server.next_message())["id"] for _ in sent]
        assert sorted(ids) == ids
