"""Calls and listening streams go on through whatever breaks, for both SDKs' clients and servers.

A call sends its numbered messages in parts, and the next part only when the test says
so: what is sent before, during and after an interruption does not depend on time.

The SDKs' clients give up after two attempts to come back, which are 100 ms apart if the
server asks for that.  So where something is away for longer, it is behind a relay that
lets connections wait, as a load balancer does.  The Python SDK's client also gives its
listening stream up when it is cut for the second time in its life.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from mcp import MCPError

from tests.e2e import npm
from tests.e2e.child import PATIENCE, module
from tests.e2e.resuming import Narrator, Peer, PythonPeer, TypeScriptPeer, Wire, scripts_beside
from tests.e2e.storing import Proxy, bind_of, running_proxy, sqlite_place, until, url_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    # The legacy era is made of what 2026-07-28 deprecates.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    # The SDK's HTTP client leaves the generators of its event streams to the collector.
    pytest.mark.filterwarnings(r"ignore:Async generator 'http(x|core)2\.:ResourceWarning"),
]

SIZE = 5
"""Messages in a part."""

LANGUAGES = ["python", "typescript"]


class Stage:
    """A client, the proxy, a server, and the wires between them."""

    def __init__(self, peer: Peer, server: Narrator, options: Sequence[str]) -> None:
        self.peer = peer
        self.server = server
        self.client_wire = Wire()
        self.upstream_wire = Wire()
        self._options = options
        self._proxies = ExitStack()
        self._proxy: Proxy | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["Stage", None]:
        with trio.fail_after(PATIENCE), self.server.running(), self._proxies:
            async with trio.open_nursery() as nursery:
                upstream = await self.upstream_wire.start(nursery, self.server.url)
                proxy = self._proxies.enter_context(running_proxy(upstream, self._options))
                url = await url_of(proxy)
                self._upstream, self._proxy, self._bind = upstream, proxy, bind_of(url)
                async with self.peer.connected(await self.client_wire.start(nursery, url)):
                    yield self
                nursery.cancel_scope.cancel()

    def kill_proxy(self) -> None:
        assert self._proxy is not None
        self._proxy.kill()
        self._proxy.wait(PATIENCE)

    async def start_proxy(self) -> None:
        """Start another where the last one was."""
        proxy = running_proxy(self._upstream, [*self._options, *self._bind])
        await url_of(self._proxies.enter_context(proxy))

    async def narrate(self, parts: int = 3, *, closes: bool = False) -> None:
        """Have a call of so many parts answered; fail if anything of it is not exact."""
        answer = await self.peer.call("narrate", {"parts": parts, "size": SIZE, "closes": closes})
        assert answer == f"told {parts * SIZE}"
        await self.peer.received(parts * SIZE)
        assert self.peer.messages == list(range(parts * SIZE))
        assert self.peer.progress == list(range(parts * SIZE))
        assert self.server.count("started") == 1


@pytest.fixture
def scripts(_npm: None, tmp_path: Path) -> Path:
    return scripts_beside(npm.install("@modelcontextprotocol/sdk"), tmp_path)


@pytest.fixture(params=LANGUAGES, ids=[f"{language}-server" for language in LANGUAGES])
def server(request, scripts: Path) -> Narrator:
    if request.param == "python":
        return Narrator(lambda port: module("tests.e2e.narrator", "--port", str(port)))
    return Narrator(lambda port: [npm.node(), str(scripts / "narrator.mjs"), str(port)])


@pytest.fixture(params=LANGUAGES, ids=[f"{language}-client" for language in LANGUAGES])
def stage(request, server: Narrator, scripts: Path, tmp_path: Path) -> Stage:
    peer = PythonPeer() if request.param == "python" else TypeScriptPeer([npm.node(), str(scripts / "resumer.mjs")])
    return Stage(peer, server, sqlite_place(tmp_path / "sessions.db").options)


async def test_client_that_is_cut_off_goes_on_with_its_call(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(stage.narrate)
        await stage.peer.received(SIZE)
        stage.client_wire.cut()
        await stage.server.go()
        await stage.server.said("told 1")
        stage.client_wire.release()
        await stage.peer.received(2 * SIZE)
        assert stage.client_wire.resumptions > 0
        assert stage.upstream_wire.resumptions == 0
        await stage.server.go()


async def test_client_notices_nothing_of_a_cut_behind_the_proxy(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(stage.narrate)
        await stage.peer.received(SIZE)
        stage.upstream_wire.cut()
        await stage.server.go()
        await stage.server.said("told 1")
        stage.upstream_wire.release()
        await stage.peer.received(2 * SIZE)
        await stage.server.said("resumed")
        await stage.server.go()
    assert stage.client_wire.resumptions == 0


async def test_both_sides_can_be_cut_at_once(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(stage.narrate)
        await stage.peer.received(SIZE)
        stage.client_wire.cut()
        stage.upstream_wire.cut()
        await stage.server.go()
        await stage.server.said("told 1")
        stage.client_wire.release()
        stage.upstream_wire.release()
        await stage.peer.received(2 * SIZE)
        await stage.server.said("resumed")
        await stage.server.go()


async def test_server_that_wants_to_be_asked_again_is_asked_by_the_proxy(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(partial(stage.narrate, closes=True))
        for part in (1, 2):
            await stage.server.said(f"waiting {part}")
            await stage.server.said("resumed", part)
            await stage.server.go()
    assert stage.upstream_wire.resumptions >= 2
    assert stage.client_wire.resumptions == 0


async def test_killed_proxy_goes_on_with_the_call_when_it_is_back(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(stage.narrate)
        await stage.peer.received(SIZE)
        stage.kill_proxy()
        await stage.server.go()
        await stage.server.said("told 1")
        await stage.start_proxy()
        await stage.peer.received(2 * SIZE)
        await stage.server.said("resumed")
        await stage.server.go()


async def test_client_that_is_cut_off_before_anything_new_came_still_knows_its_place(stage: Stage):
    async with stage.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(stage.narrate)
        await stage.peer.received(SIZE)
        for _ in range(2):
            known = len(stage.peer.tokens)
            stage.client_wire.cut()
            stage.client_wire.release()
            await stage.peer.told_places(known + 1)
        await stage.server.go()
        await stage.peer.received(2 * SIZE)
        await stage.server.go()


async def test_client_that_has_given_up_goes_on_with_its_token(stage: Stage):
    """The SDKs make two attempts to come back; how to do so later is for the application to know."""
    arguments = {"parts": 3, "size": SIZE, "closes": False}
    async with stage.opened():

        async def call_in_vain() -> None:
            with pytest.raises((MCPError, RuntimeError)):
                await stage.peer.call("narrate", arguments, patience=3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_in_vain)
            await stage.peer.received(SIZE)
            stage.client_wire.refuse()
            stage.kill_proxy()
        assert stage.client_wire.refusals >= 2
        await stage.server.go()
        await stage.server.go()
        await stage.server.said("told 2")
        await stage.start_proxy()
        stage.client_wire.release()
        assert await stage.peer.call("narrate", arguments, stage.peer.tokens[-1]) == f"told {3 * SIZE}"
        assert stage.peer.messages == list(range(3 * SIZE))
        assert stage.server.count("started") == 1


async def test_client_that_was_told_an_error_does_not_come_back_for_ever(stage: Stage):
    """The TypeScript SDK's client does come back, once, to hear that there is nothing."""
    async with stage.opened():
        await stage.server.said("answering GET 200")
        for times in (1, 2, 3):
            with pytest.raises((MCPError, RuntimeError), match="nothing"):
                await stage.peer.read("memo://nothing")
            if isinstance(stage.peer, TypeScriptPeer):
                await stage.client_wire.passed_resumptions(times)
        assert stage.server.count("answering GET 409") == 0
        assert stage.client_wire.resumptions == (3 if isinstance(stage.peer, TypeScriptPeer) else 0)


@asynccontextmanager
async def listening(stage: Stage) -> AsyncGenerator[None, None]:
    """Open *stage* with a client that hears what is announced; has heard 0, and hears 4 at the end."""
    async with stage.opened():
        await stage.server.said("answering GET 200")
        assert await stage.peer.call("attend") == "attending"
        await stage.server.announce(0)
        await stage.peer.received(1)
        yield
        await stage.server.announce(4)
        await stage.peer.received(5)
        assert stage.peer.messages == list(range(5))
        await until(lambda: stage.peer.changes == 5, PATIENCE)


async def test_listening_client_that_is_cut_off_misses_nothing(stage: Stage):
    async with listening(stage):
        stage.client_wire.cut()
        for number in (1, 2, 3):
            await stage.server.announce(number)
        stage.client_wire.release()
        await stage.peer.received(4)
        assert stage.upstream_wire.resumptions == 0
    assert stage.client_wire.resumptions > 0


async def test_listening_client_notices_nothing_of_a_cut_behind_the_proxy(stage: Stage):
    async with listening(stage):
        stage.upstream_wire.cut()
        for number in (1, 2, 3):
            await stage.server.announce(number)
        stage.upstream_wire.release()
        await stage.server.said("resumed")
    assert stage.client_wire.resumptions == 0


async def test_listening_stream_that_the_server_closes_is_asked_for_again(stage: Stage):
    async with listening(stage):
        assert await stage.peer.call("interrupt") == "interrupted"
        for number in (1, 2, 3):
            await stage.server.announce(number)
        await stage.server.said("resumed")
    assert stage.client_wire.resumptions == 0


async def test_listening_client_is_served_by_a_proxy_that_was_killed(stage: Stage):
    async with listening(stage):
        stage.kill_proxy()
        for number in (1, 2, 3):
            await stage.server.announce(number)
        await stage.start_proxy()
        await stage.server.said("resumed")


async def test_session_outlives_the_server_and_is_what_it_was(stage: Stage):
    """The server is restarted, and knows neither the session nor what it was told in it."""
    async with stage.opened():
        await stage.server.said("answering GET 200")
        await stage.peer.set_level("warning")
        await stage.peer.subscribe("memo://today")
        assert await stage.peer.call("attend") == "attending"
        stage.server.restart()
        assert await stage.peer.call("attend") == "attending"
        assert (stage.server.count("level warning"), stage.server.count("subscribed memo://today")) == (1, 1)
        await stage.server.said("answering GET 200")
        await stage.server.announce(7)
        await stage.peer.received(1)
        assert stage.peer.messages == [7]
