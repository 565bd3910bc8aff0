"""Every conversation over every pair of transports: real sockets, real processes."""

import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

from tests.e2e.child import ROOT, module, running
from tests.e2e.matrix import conversations
from tests.e2e.matrix.clients import Client, open_http, open_sse, open_stdio, open_ws

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRANSPORTS = ("http", "sse", "ws", "stdio")
OPENERS = {"http": open_http, "sse": open_sse, "ws": open_ws, "stdio": open_stdio}
PATHS = {"http": "/mcp", "sse": "/sse", "ws": "/ws"}
SHADOWCAT = [sys.executable, "-m", "shadowcat"]
URL = r"((?:http|ws)://127\.0\.0\.1:\d+)(/[\w/.-]*)"


class Servers:
    """The server of each transport and a proxy that listens before it, both started when they are first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._upstreams: dict[str, list[str]] = {}
        self._proxies: dict[str, str] = {}

    def upstream(self, transport: str) -> list[str]:
        """Return what names the server on the command line of the proxy."""
        if transport == "stdio":
            return ["--", sys.executable, "-m", "tests.e2e.matrix.server", "stdio"]
        if transport not in self._upstreams:
            child = self._stack.enter_context(running([*module("tests.e2e.matrix.server"), transport]))
            found = child.wait_for(URL)
            extra = ["--upstream-transport", "sse"] if transport == "sse" else []
            self._upstreams[transport] = ["--upstream", found[1] + found[2], *extra]
        return self._upstreams[transport]

    def proxy(self, transport: str) -> str:
        """Return the root of a proxy in front of the server."""
        if transport not in self._proxies:
            options = ["--bind", "127.0.0.1:0", *(["--cwd", str(ROOT)] if transport == "stdio" else [])]
            command = [*SHADOWCAT, "forward", *options, *self.upstream(transport)]
            self._proxies[transport] = self._stack.enter_context(running(command)).wait_for(URL)[1]
        return self._proxies[transport]


@pytest.fixture(scope="module")
def servers():
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=TRANSPORTS)
def downstream(request):
    return request.param


@pytest.fixture(params=TRANSPORTS)
def upstream(request):
    return request.param


@asynccontextmanager
async def connected(servers: Servers, downstream: str, upstream: str) -> AsyncGenerator[Client, None]:
    """Yield a client that reaches the server of *upstream* over *downstream*."""
    if downstream == "stdio":
        place: str | list[str] = [*SHADOWCAT, "forward", *servers.upstream(upstream)]
    else:
        root = servers.proxy(upstream)
        place = (root.replace("http:", "ws:") if downstream == "ws" else root) + PATHS[downstream]
    async with OPENERS[downstream](place) as client:
        yield client


async def test_legacy_conversations(servers, downstream, upstream, subtests):
    async with connected(servers, downstream, upstream) as client:
        await client.initialize()
        for converse in conversations.LEGACY:
            with subtests.test(converse.__name__):
                await converse(client)


async def test_modern_conversations(servers, downstream, upstream, subtests):
    if "sse" in (downstream, upstream):
        pytest.skip("HTTP+SSE belongs to the legacy era")
    async with connected(servers, downstream, upstream) as client:
        client.is_modern = True
        for converse in conversations.MODERN:
            with subtests.test(converse.__name__):
                await converse(client)


async def test_older_versions(servers, downstream, upstream):
    for version in ("2024-11-05", "2025-03-26", "2025-06-18"):
        async with connected(servers, downstream, upstream) as client:
            assert (await client.initialize(version))["protocolVersion"] == version
            assert await client.call("echo", {"text": version}) == version


async def test_strangers_whose_calls_all_have_one_id(servers, downstream, upstream):
    async def converse(name: str) -> None:
        async with connected(servers, downstream, upstream) as client:
            await client.initialize()
            for turn in range(20):
                await client.ask("tools/call", {"name": "echo", "arguments": {"text": f"{name}{turn}"}}, 1)
                answer = await client.answer(1)
                assert answer["result"]["content"][0]["text"] == f"{name}{turn}"

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(converse, name)
