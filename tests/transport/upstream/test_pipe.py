"""One stream and its reader."""

import logging
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from shadowcat.abc import Connector
from shadowcat.errors import MessageRefused, UpstreamDisconnected, UpstreamUnavailable
from shadowcat.testing import ScriptedConnector, notification, request, result
from shadowcat.testing.messages import modern_request
from shadowcat.transport.upstream import PipeConfig
from shadowcat.transport.upstream.pipe import Pipe
from shadowcat.transport.upstream.pipe_config import PipeCounters

from .piping import open_piped


async def test_garbage_is_counted_and_seldom_logged(autojump_clock, caplog):
    """Servers that print to their output are common, and may print much."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        for _ in range(100):
            await server.say(b"Listening on port 1\n" * 10)
        await trio.sleep(11)
        await server.say(b"[" + b"x" * 10)
        call = piped.soon(piped.post, request(1, "ping"), session)
        await server.answer()

        assert result(1) == await (await call.answer()).json()
        assert 101 == piped.statistics().garbage
        logged = [record.getMessage() for record in caplog.records if "JSON-RPC" in record.getMessage()]
        assert 2 == len(logged)
        assert "200 bytes" in logged[0]
        assert len(logged[0]) < 300


async def test_unknown_progress_is_dropped(autojump_clock):
    """It is given to nobody else."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        listener = await piped.send("GET", session=session)
        await server.say(notification("notifications/progress", progressToken=99, progress=1))
        await server.say(notification("notifications/progress"))
        await server.say(notification("other"))

        assert "other" == (await listener.next_message())["method"]
        assert 2 == piped.statistics().dropped


async def test_stream_that_cannot_be_written_to_is_broken(autojump_clock):
    """Who sends is told why, if the reader finds out soon."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        server._received.close()
        call = piped.soon(piped.post, request(1, "ping"), session)
        await trio.sleep(0.5)
        server.stop("the server process exited with status 3")
        with pytest.raises(UpstreamDisconnected, match="status 3"):
            await call.answer()

        server, session = await piped.open_session()
        server._received.close()
        with pytest.raises(UpstreamDisconnected, match="nobody reads"):
            await piped.post(request(1, "ping"), session)
        await server.closed.wait()


async def test_server_that_does_not_read_does_not_stop_the_reader(autojump_clock):
    """What the reader has to say waits, within bounds."""
    async with open_piped(max_held=1) as piped:
        server, session = await piped.open_session()
        server.stalled = trio.Event()
        for number in range(1500):
            await server.say(request(number, "roots/list"))
        await trio.testing.wait_all_tasks_blocked()
        assert piped.statistics().dropped > 400
        server.stalled.set()

        assert 1 == (await server.next_message())["id"]


class Faulty(Connector):
    """Has a bug."""

    @asynccontextmanager
    async def open(self, headers):
        await trio.lowlevel.checkpoint()
        yield None


async def test_bug_of_a_connector_costs_one_stream(autojump_clock, caplog):
    """It is logged; who waits is told."""
    pipe = Pipe(PipeConfig(), PipeCounters())
    async with trio.open_nursery() as nursery:
        await nursery.start(pipe.run, Faulty(), ())
    assert pipe.is_ended
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    with pytest.raises(UpstreamUnavailable, match="nothing was sent"):
        await pipe.send(b"{}")


async def test_stream_that_cannot_be_opened_is_said_so(autojump_clock):
    """As it was said to us."""
    connector = ScriptedConnector()
    connector.failure = UpstreamUnavailable("no such program")
    pipe = Pipe(PipeConfig(), PipeCounters())
    with pytest.raises(UpstreamUnavailable, match="no such program"):
        await pipe.run(connector, ())


@pytest.mark.parametrize("step", range(14))
async def test_cancellation_at_each_step_leaves_everything_whole(autojump_clock, step):
    """Whenever a caller goes, nothing of its call is left, and the next one is served."""
    async with open_piped() as piped:
        server, session = await piped.open_session()
        call = piped.soon(piped.post, request(1, "tools/call", _meta={"progressToken": 1}), session)

        async def serve():
            while True:
                sent = await server.next_message()
                await server.say(result(sent["id"]))

        piped.nursery.start_soon(serve)
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        call.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        assert call.is_done
        assert 0 == piped.statistics().pending
        assert result(2) == await (await piped.post(request(2, "ping"), session)).json()


@pytest.mark.parametrize("step", range(20))
async def test_cancellation_at_each_step_of_opening_leaves_nothing(autojump_clock, step):
    """No stream stays open that has no session, and the other way round."""
    async with open_piped() as piped:
        call = piped.soon(piped.post, request(1, "initialize"))

        async def serve():
            await (await piped.connector.next_stream()).answer_initialize()

        piped.nursery.start_soon(serve)
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        call.scope.cancel()
        await trio.sleep(1)

        assert call.is_done
        assert piped.connector.open_now == piped.statistics().sessions
        assert 0 == piped.statistics().pending


async def test_a_message_of_ours_that_is_refused_costs_nothing_else(autojump_clock, monkeypatch):
    """As by a server over HTTP+SSE that answers 503 to one POST."""
    async with open_piped() as piped:
        server = await piped.open_modern()
        waiting = piped.soon(piped.post_modern, modern_request(1, "tools/list"))
        sent = await server.next_message()
        left = piped.soon(piped.post_modern, modern_request(2, "tools/list"))
        await server.next_message()
        send = server.send

        async def refuse(message):
            if b"notifications/cancelled" in message:
                raise MessageRefused("the server answered 503")
            await send(message)

        monkeypatch.setattr(server, "send", refuse)
        left.scope.cancel()
        await trio.sleep(1)
        monkeypatch.undo()
        await server.say(result(sent["id"], tools=[]))
        assert result(1, tools=[]) == await (await waiting.answer()).json()
