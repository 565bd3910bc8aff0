"""One recovery and those who wait for it, without the rest of the proxy."""

import pytest
import trio

from shadowcat import HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig
from shadowcat.errors import StoreUnavailable, UpstreamDisconnected, UpstreamUnavailable
from shadowcat.proxy.recovery import RecoveryConfig, SessionUpstream
from shadowcat.session import SessionConfig, open_session_manager
from shadowcat.testing import ScriptedUpstream, open_proxy_kit, request, result

from ..session.managing import create
from .conversation import open_session, start_listen, start_post

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")

SAID = {"protocolVersion": "2025-11-25", "capabilities": {}}


class Attempt:
    """A recovery in a task of its own."""

    def __init__(self, nursery, recovery, session):
        self.outcome = None
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        nursery.start_soon(self._run, recovery, session)

    async def _run(self, recovery, session):
        with self._scope:
            try:
                self.outcome = (await recovery.recover(session, [])).upstream_session_id
            except UpstreamUnavailable as error:
                self.outcome = error
        self._done.set()

    async def cancel(self):
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def __call__(self):
        await self._done.wait()
        return self.outcome


@pytest.fixture
async def sessions():
    async with open_session_manager(SessionConfig(), InMemoryStore()) as sessions:
        yield sessions


@pytest.fixture
def upstream():
    return ScriptedUpstream()


@pytest.fixture
async def start(nursery, sessions, upstream):
    """Returns what begins a recovery, of one and the same session unless told otherwise."""
    recovery = SessionUpstream({"default": upstream}, sessions, RecoveryConfig(max_concurrent=1))
    first = await create(sessions, "old", SAID)

    async def start(session=first):
        attempt = Attempt(nursery, recovery, session)
        await trio.testing.wait_all_tasks_blocked()
        return attempt

    return start


async def opened(upstream, session_id="new"):
    """Answer a handshake."""
    call = await upstream.next_call()
    call.answer(result(call.message["id"], **SAID), headers={"mcp-session-id": session_id})
    told = await upstream.next_call()
    assert told.headers["mcp-session-id"] == session_id
    told.respond(202)


async def ended(upstream, session_id="new"):
    """Wait until the upstream is told that a session is over."""
    call = await upstream.next_call()
    assert (call.request.method, call.headers["mcp-session-id"]) == ("DELETE", session_id)
    call.respond(200)


class TestWaiting:
    async def test_those_who_wait_share_what_was_opened(self, autojump_clock, start, upstream):
        attempts = [await start() for _ in range(5)]
        await opened(upstream)
        assert [await attempt() for attempt in attempts] == ["new"] * 5
        assert upstream.hits == 2

    async def test_failure_is_shared_in_a_copy_for_each(self, autojump_clock, start, upstream):
        """The same words, but the traceback of each is its own."""
        attempts = [await start() for _ in range(5)]
        (await upstream.next_call()).respond(503)
        failures = [await attempt() for attempt in attempts]
        assert len(set(map(id, failures))) == 5
        assert len(set(map(str, failures))) == 1
        assert upstream.hits == 1

    async def test_when_the_first_is_cancelled_the_next_tries(self, autojump_clock, start, upstream):
        """It takes nobody along."""
        first, second, third = await start(), await start(), await start()
        handshake = await upstream.next_call()
        await first.cancel()
        assert handshake.cancelled.is_set()
        await opened(upstream)
        assert [await second(), await third()] == ["new"] * 2

    async def test_who_waits_may_leave(self, autojump_clock, start, upstream):
        first, second = await start(), await start()
        await second.cancel()
        await opened(upstream)
        assert await first() == "new"

    async def test_session_lost_once_more_is_recovered_once_more(self, autojump_clock, start, upstream, sessions):
        """What an attempt brought is of no use to one that has lost just that."""
        first = await start()
        await opened(upstream)
        await first()
        (session,) = await sessions.store.list_sessions()
        attempts = [await start(session), await start(session), await start()]
        await opened(upstream, "newer")
        assert [await attempt() for attempt in attempts] == ["newer"] * 3


class TestPlaces:
    async def test_next_session_has_its_turn(self, autojump_clock, start, upstream, sessions):
        attempts = [await start(), await start(await create(sessions, "old", SAID))]
        assert upstream.hits == 1
        await opened(upstream)
        await opened(upstream, "other")
        assert [await attempt() for attempt in attempts] == ["new", "other"]

    async def test_wait_for_a_place_is_part_of_the_timeout(self, autojump_clock, start, upstream, sessions):
        other = await create(sessions, "old", SAID)
        await start()
        await trio.sleep(10)
        waiting = await start(other)
        await trio.sleep(25)
        assert upstream.hits == 2
        assert isinstance(await waiting(), UpstreamUnavailable)
        assert trio.current_time() == pytest.approx(40)

    async def test_cancelled_while_it_waits_it_takes_none(self, autojump_clock, start, upstream, sessions):
        other = await create(sessions, "old", SAID)
        await start()
        handshake = await upstream.next_call()
        await (await start(other)).cancel()
        again = await start(other)
        handshake.respond(503)
        await opened(upstream)
        assert await again() == "new"


class TestUnused:
    """Nobody will ever use an upstream session that was opened in vain, so it is ended."""

    async def test_cancelled_after_the_handshake(self, autojump_clock, start, upstream):
        attempt = await start()
        handshake = await upstream.next_call()
        handshake.answer(result(handshake.message["id"], **SAID), headers={"mcp-session-id": "new"})
        await upstream.next_call()  # notifications/initialized, which is never answered
        await attempt.cancel()
        await ended(upstream)

    @pytest.mark.parametrize("is_cancelled", [True, False])
    async def test_handshake_without_an_end(self, autojump_clock, start, upstream, sessions, is_cancelled):
        """Its head says what was opened, though the rest of the answer never comes."""
        attempt = await start()
        (await upstream.next_call()).open_events({"mcp-session-id": "new"})
        await trio.testing.wait_all_tasks_blocked()
        if is_cancelled:
            await attempt.cancel()
        await ended(upstream)
        assert trio.current_time() == pytest.approx(0 if is_cancelled else 30)
        assert await sessions.store.count_sessions() == 1

    async def test_handshake_that_ends_without_an_answer(self, autojump_clock, start, upstream):
        attempt = await start()
        (await upstream.next_call()).open_events({"mcp-session-id": "new"}).end()
        await ended(upstream)
        assert isinstance(await attempt(), UpstreamUnavailable)


class Stubborn(InMemoryStore):
    """Does not let sessions be ended."""

    async def delete_session(self, session_id):
        raise StoreUnavailable("not now")


async def test_place_at_a_server_is_given_back_if_the_end_of_a_session_cannot_be_stored(autojump_clock):
    """Or a server that takes one call at once would take none any more."""
    config = ReverseProxyConfig(upstream=NOWHERE, recovery=RecoveryConfig(is_enabled=False))
    async with open_proxy_kit(config, store=Stubborn()) as kit:
        await open_session(kit)
        lost, response = await start_post(kit, request(1, "tools/list"))
        lost.respond(404)
        assert (await response()).status == 503
        (endpoint,) = kit.app.upstream_sets["default"].endpoints
        assert endpoint.in_flight == 0
        assert lost.cancelled.is_set()  # the answer was closed


async def test_answer_to_who_listens_is_given_up_if_it_cannot_be_found_out_why(autojump_clock):
    async with open_proxy_kit() as kit:
        await open_session(kit)
        listening, response = await start_listen(kit)
        listening.respond(404)
        (await kit.upstream.next_call()).fail(UpstreamDisconnected("cut"))
        assert (await response()).status == 502
        (endpoint,) = kit.app.upstream_sets["default"].endpoints
        assert endpoint.listening == 0
        assert listening.cancelled.is_set()
