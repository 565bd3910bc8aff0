"""Official clients and servers of HTTP+SSE (2024-11-05), with both of our ends between them."""

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.client.sse import sse_client

from tests.e2e import npm
from tests.e2e.child import Child, module
from tests.e2e.conftest import Run, Start

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:Async generator 'http(x|core)2\.:ResourceWarning"),
]

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="module")
def sse_server(start: Start) -> Child:
    return start(module("tests.e2e.sse_server"))


@pytest.fixture(scope="module")
def bridge(start: Start, sse_server: Child) -> Child:
    child = start(module("tests.e2e.sse_bridge", re.sub("/mcp$", "/sse", sse_server.wait_for_url())))
    child.wait_for_url()
    return child


@pytest.fixture
def connect(bridge: Child) -> Connect:
    @asynccontextmanager
    async def connect(**options: Any) -> AsyncIterator[Client]:
        with trio.fail_after(20):
            async with Client(sse_client(bridge.wait_for_url()), mode="legacy", **options) as client:
                yield client

    return connect


def text_of(result: types.CallToolResult) -> str:
    assert not result.is_error, result
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


async def gather(*calls: Callable[[], Awaitable[str]]) -> list[str]:
    answers = [""] * len(calls)

    async def call(number: int) -> None:
        answers[number] = await calls[number]()

    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(call, number)
    return answers


async def test_the_python_client_calls_the_python_server(connect: Connect) -> None:
    async with connect() as client:
        assert client.server_info is not None
        assert client.server_info.name == "shadowcat-e2e"
        assert {"echo", "add"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert text_of(await client.call_tool("echo", {"message": "grüße ☃\n" * 1000})) == "grüße ☃\n" * 1000


async def test_many_calls_at_once_each_get_their_own_answer(connect: Connect) -> None:
    async with connect() as client:

        def echo(number: int) -> Callable[[], Awaitable[str]]:
            async def call() -> str:
                return text_of(await client.call_tool("echo", {"message": f"message {number}"}))

            return call

        assert await gather(*map(echo, range(30))) == [f"message {number}" for number in range(30)]


async def test_the_server_reports_and_asks_while_a_call_is_under_way(connect: Connect) -> None:
    seen: list[float] = []

    async def record(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async def answer(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async with connect(elicitation_callback=answer) as client:
        assert text_of(await client.call_tool("count", {"steps": 3}, progress_callback=record)) == "counted to 3"
        assert text_of(await client.call_tool("greet", {})) == "Hello, Ada!"
    assert seen == [1, 2, 3]


async def test_a_call_outlasts_heartbeats_and_can_be_given_up(connect: Connect, sse_server: Child) -> None:
    async with connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call_tool, "hold", {"key": "sse"})
        await trio.to_thread.run_sync(sse_server.wait_for, "started sse$")
        await trio.sleep(1.2)
        assert text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(sse_server.wait_for, "cancelled sse$")


async def test_a_client_that_leaves_is_noticed(connect: Connect, bridge: Child) -> None:
    before = sum("ended:" in line for line in bridge.lines)
    async with connect() as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    await trio.to_thread.run_sync(bridge.wait_for, f"^ended: {before + 1}$")


def test_the_typescript_client_does_all_it_can_with_a_python_server(run: Run, bridge: Child, sse_server: Child) -> None:
    checks = run("sdk1.mjs", "@modelcontextprotocol/sdk", bridge.wait_for_url(), "ours", "sse")
    assert {"connect", "the server asks the user", "list_changed is heard", "end"} <= set(checks)
    sse_server.wait_for("^cancelled typescript-sdk1-sse$")


def test_the_typescript_client_does_all_it_can_with_a_typescript_server(run: Run, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = npm.script("@modelcontextprotocol/server-everything", "mcp-server-everything")
    start([*command, "sse"], {"PORT": str(port)}).wait_for("running on port")
    bridge = start(module("tests.e2e.sse_bridge", f"http://127.0.0.1:{port}/sse"))
    checks = run("sdk1.mjs", "@modelcontextprotocol/sdk", bridge.wait_for_url(), "everything", "sse")
    assert {"connect", "the era is legacy", "the server asks for roots, on the listening stream"} <= set(checks)
