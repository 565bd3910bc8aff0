"""Streams within a limit, and some in advance."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from shadowcat.errors import UpstreamBusy, UpstreamDisconnected, UpstreamUnavailable
from shadowcat.testing import ScriptedConnector, modern_request, request

from .piping import open_piped


async def test_spare_serves_a_session_at_once_and_is_replaced(autojump_clock):
    """It was opened before anybody asked."""
    connector = ScriptedConnector()
    connector.open_delay = 30
    async with open_piped(connector, spares=2) as piped:
        await trio.sleep(100)
        assert (2, 2) == (piped.statistics().spares, piped.statistics().opened)
        began = trio.current_time()
        await piped.open_session()
        assert trio.current_time() == began
        await trio.sleep(100)

        assert (2, 3, 1) == (piped.statistics().spares, piped.statistics().opened, piped.statistics().sessions)


async def test_no_spares_where_headers_matter(autojump_clock):
    """Nobody's credentials are known in advance."""
    async with open_piped(ScriptedConnector(takes_headers=True), spares=3) as piped:
        await trio.sleep(100)
        assert 0 == piped.connector.opened
        server, _ = await piped.open_session([(b"authorization", b"a"), (b"traceparent", b"b")])

        assert ((b"authorization", b"a"),) == server.headers


async def test_spares_that_fail_are_opened_ever_less_often(autojump_clock):
    """Once a minute in the end."""
    connector = ScriptedConnector()
    connector.failure = UpstreamUnavailable("no")
    async with open_piped(connector, spares=1) as piped:
        await trio.sleep(0.5)
        assert 1 == connector.opened
        await trio.sleep(127)
        assert 8 == connector.opened
        await trio.sleep(600)
        assert 18 == connector.opened
        connector.failure = None
        await trio.sleep(61)

        assert 1 == piped.statistics().spares


async def test_spares_that_end_are_opened_ever_less_often(autojump_clock):
    """A server that cannot live is not started in a circle."""
    async with open_piped(spares=1) as piped:

        async def serve():
            while True:
                (await piped.connector.next_stream()).stop()

        piped.nursery.start_soon(serve)
        await trio.sleep(300)

        assert piped.connector.opened < 12
        assert 0 == piped.statistics().spares


async def test_limit_counts_what_is_still_ending(autojump_clock):
    """DELETE is answered at once; the place is free when the server is gone."""
    async with open_piped(max_sessions=1) as piped:
        piped.connector.close_delay = 5
        _, session = await piped.open_session()
        with pytest.raises(UpstreamBusy):
            await piped.post(request(1, "initialize"))
        began = trio.current_time()
        assert 200 == (await piped.send("DELETE", session=session)).status
        assert trio.current_time() == began
        assert 404 == (await piped.send("DELETE", session=session)).status
        with pytest.raises(UpstreamBusy):
            await piped.post(request(1, "initialize"))
        await trio.sleep(6)

        await piped.open_session()


async def test_failed_opening_gives_its_place_back(autojump_clock):
    """However often."""
    async with open_piped(max_sessions=1) as piped:
        piped.connector.failure = UpstreamUnavailable("no")
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match="no"):
                await piped.post(request(1, "initialize"))
        piped.connector.failure = None

        await piped.open_session()


class ShortLived(ScriptedConnector):
    """Opens streams that have ended already."""

    @asynccontextmanager
    async def open(self, headers):
        async with super().open(headers) as stream:
            stream.stop("the server process exited with status 2")
            yield stream


@pytest.mark.parametrize("is_modern", [False, True])
async def test_stream_that_ends_while_it_is_opened_serves_nobody(autojump_clock, is_modern):
    """Whoever asked for it is told, and nothing is kept of it."""
    async with open_piped(ShortLived(), max_sessions=1) as piped:
        for _ in range(5):
            send = piped.post_modern if is_modern else piped.post
            with pytest.raises((UpstreamUnavailable, UpstreamDisconnected), match="status 2"):
                await send(modern_request(1, "tools/list") if is_modern else request(1, "initialize"))
            await trio.sleep(2)
            assert 0 == piped.connector.open_now == piped.statistics().sessions
