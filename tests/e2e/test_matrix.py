"""Every conversation over every pair of transports: real sockets, real processes."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

from tests.e2e.child import ROOT, module, running
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


def method(name):
    return lambda message: message.get("method") == name


@pytest.fixture
async def client(servers, downstream, upstream):
    async with connected(servers, downstream, upstream) as client:
        yield client


@pytest.fixture
async def session(client):
    await client.initialize()
    return client


@pytest.fixture
def modern(client, downstream, upstream):
    if "sse" in (downstream, upstream):
        pytest.skip("HTTP+SSE belongs to the legacy era")
    client.is_modern = True
    return client


class TestLegacy:
    async def test_calls(self, session):
        assert await session.call("echo", {"text": "hällo\n\u2028"}) == "hällo\n\u2028"
        answer = await session.answer(await session.ask("no/such/method"))
        assert answer["error"]["code"] == -32602
        tools = await session.answer(await session.ask("tools/list"))
        assert len(tools["result"]["tools"]) == 10

    async def test_progress(self, session):
        text = await session.call("count", {"steps": 5}, _meta={"progressToken": "mine"})
        assert text == "5"
        steps = [(await session.hear(method("notifications/progress")))["params"] for _ in range(5)]
        assert steps == [{"progressToken": "mine", "progress": n} for n in range(5)]

    async def test_calls_at_once_with_one_progress_token(self, session):
        ids = [
            await session.ask(
                "tools/call", {"name": "count", "arguments": {"steps": 3}, "_meta": {"progressToken": "same"}}
            )
            for _ in range(10)
        ]
        for request_id in ids:
            assert (await session.answer(request_id))["result"]["content"][0]["text"] == "3"
        for _ in range(30):
            assert (await session.hear(method("notifications/progress")))["params"]["progressToken"] == "same"

    async def test_cancel(self, session):
        before = int(await session.call("cancelled"))
        request_id = await session.ask("tools/call", {"name": "wait"})
        await session.call("echo", {"text": "the other has arrived"})
        await session.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})
        with trio.fail_after(10):
            while int(await session.call("cancelled")) == before:
                pass

    @pytest.mark.parametrize(("tool", "asked"), [("ask", "sampling/createMessage"), ("elicit", "elicitation/create")])
    async def test_the_server_asks_during_a_call(self, session, tool, asked):
        request_id = await session.ask("tools/call", {"name": tool})
        question = await session.hear(method(asked))
        await session.say({"jsonrpc": "2.0", "id": question["id"], "result": {"said": "yes"}})
        answer = await session.answer(request_id)
        assert json.loads(answer["result"]["content"][0]["text"]) == {"said": "yes"}

    async def test_list_changed(self, session):
        await trio.sleep(0.1)  # for the listening stream of those who have one
        await session.call("changed")
        await session.hear(method("notifications/tools/list_changed"))

    async def test_big_messages(self, session):
        size = 3_000_000
        assert await session.call("big", {"size": size}) == "x" * size
        assert await session.call("echo", {"text": "y" * size}) == "y" * size

    async def test_bad_bytes(self, session, downstream):
        await session.put(b'{"jsonrpc": "2.0", ')
        refusal = await session.hear(lambda told: "error" in told)
        assert refusal["error"]["code"] == -32700
        assert await session.call("echo", {"text": "still here"}) == "still here"

    async def test_noise_of_the_server(self, session):
        assert await session.call("noise") == "noise"
        assert await session.call("echo", {"text": "still here"}) == "still here"

    @pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18"])
    async def test_older_versions(self, client, version):
        assert (await client.initialize(version))["protocolVersion"] == version
        assert await client.call("echo", {"text": version}) == version

    async def test_strangers_with_one_id(self, servers, downstream, upstream):
        """Two sessions, and in each of them calls at once that all have the id 1."""

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


class TestModern:
    async def test_calls(self, modern):
        found = await modern.answer(await modern.ask("server/discover"))
        assert found["result"]["supportedVersions"] == ["2026-07-28"]
        assert await modern.call("echo", {"text": "hällo"}) == "hällo"

    async def test_progress(self, modern):
        assert await modern.call("count", {"steps": 3}, _meta={"progressToken": 7}) == "3"
        steps = [(await modern.hear(method("notifications/progress")))["params"] for _ in range(3)]
        assert [(step["progressToken"], step["progress"]) for step in steps] == [(7, 0), (7, 1), (7, 2)]

    async def test_cancel(self, modern):
        before = int(await modern.call("cancelled"))
        request_id = await modern.ask("tools/call", {"name": "wait"})
        await trio.sleep(0.2)
        await modern.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})
        with trio.fail_after(10):
            while int(await modern.call("cancelled")) == before:
                pass

    async def test_listen(self, modern, upstream):
        listening = await modern.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "mine")
        started = await modern.hear(method("notifications/subscriptions/acknowledged"))
        assert started["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening
        with trio.fail_after(10):
            while True:  # pooled servers do not know of one another: ask until the same one is met
                await modern.call("changed")
                with trio.move_on_after(0.2):
                    told = await modern.hear(
                        lambda message: (
                            method("notifications/tools/list_changed")(message)
                            and "io.modelcontextprotocol/subscriptionId" in (message["params"].get("_meta") or {})
                        )
                    )
                    break
        assert told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening

    async def test_big_messages(self, modern):
        assert await modern.call("big", {"size": 3_000_000}) == "x" * 3_000_000
