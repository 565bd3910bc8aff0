"""An upstream made of streams, as the proxy sees it."""

import pytest
import trio

from shadowcat.errors import UpstreamDisconnected
from shadowcat.testing import ScriptedConnector, notification, request, result
from shadowcat.testing.messages import modern_request

from .piping import open_piped


async def test_sessions_are_kept_apart(autojump_clock):
    """Each has its own stream, and an id nobody can guess."""
    async with open_piped() as piped:
        one, first = await piped.open_session()
        two, second = await piped.open_session()
        assert first != second
        assert len(first) >= 32
        call = piped.soon(piped.post, request(1, "ping"), second)
        await two.answer(n=2)

        assert result(1, n=2) == await (await call.answer()).json()


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_unknown_session_is_not_found(autojump_clock, method):
    """The proxy then opens another."""
    async with open_piped() as piped:
        assert 404 == (await piped.send(method, request(1, "ping"), b"nobody")).status


@pytest.mark.parametrize(
    ("method", "body"),
    [("POST", request(1, "ping")), ("POST", notification("x")), ("POST", b"{"), ("GET", b""), ("DELETE", b"")],
)
async def test_session_is_required(autojump_clock, method, body):
    """Of what is not modern."""
    async with open_piped() as piped:
        answer = await piped.send(method, body)
        assert 400 == answer.status
        assert "send initialize first" in (await answer.json())["error"]["message"]


async def test_leaving_the_block_ends_all_streams_at_once(autojump_clock):
    """In the time of one; who waits is told."""
    connector = ScriptedConnector()
    async with trio.open_nursery() as nursery:
        async with open_piped(connector, spares=1) as piped:
            sessions = [await piped.open_session() for _ in range(5)]
            listener = await piped.send("GET", session=sessions[0][1])
            connector.close_delay = 3
            began = trio.current_time()
        assert trio.current_time() == began + 3
        assert 0 == connector.open_now
        with pytest.raises(UpstreamDisconnected):
            await listener.next_message()
        nursery.cancel_scope.cancel()


async def test_statistics_count(autojump_clock):
    """What is there, and what has been."""
    async with open_piped(spares=1) as piped:
        server, session = await piped.open_session()
        piped.soon(piped.post, request(1, "ping"), session)
        await server.next_message()
        await server.say(result(77))
        await server.say(b"?")
        await server.say(notification("notifications/progress", progressToken=77))
        await trio.sleep(1)
        found = piped.statistics()
        assert (1, 1, 1) == (found.sessions, found.spares, found.pending)
        assert (1, 1, 1) == (found.late, found.dropped, found.garbage)
        assert (2, 0) == (found.opened, found.broken)


async def test_initialize_of_a_modern_client_never_reaches_a_shared_stream(autojump_clock):
    """A server of both eras would take it for the beginning of a session."""
    async with open_piped() as piped:
        await piped.open_modern()
        answer = await piped.post_modern(modern_request(7, "initialize"))
        body = await answer.json()
        assert (answer.status, body["id"], body["error"]["code"]) == (404, 7, -32601)
