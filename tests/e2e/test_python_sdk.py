"""The official Python SDK's client, in both eras, through the proxy: by HTTP, and on its standard streams."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client, MCPError, StdioServerParameters
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from tests.e2e.child import Child, module

pytestmark = [
    pytest.mark.e2e,
    # The legacy era is made of what 2026-07-28 deprecates.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    # The SDK's HTTP client leaves the generators of its event streams to the collector.
    pytest.mark.filterwarnings(r"ignore:Async generator 'http(x|core)2\.:ResourceWarning"),
]

MODES = {"legacy": "legacy", "modern": "auto"}
"""What `Client` calls the eras: ``auto`` asks with ``server/discover`` first."""

Connect = Callable[..., AbstractAsyncContextManager[Client]]
keys = count(1)


@pytest.fixture(params=list(MODES))
def era(request: pytest.FixtureRequest) -> str:
    era: str = request.param
    return era


@pytest.fixture
def key(era: str) -> str:
    """A word no other call uses."""
    return f"{era}-{next(keys)}"


@pytest.fixture(params=["http", "stdio"])
def place(request: pytest.FixtureRequest, upstream: Child, url: str) -> str | StdioServerParameters:
    """The proxy, as a client names it."""
    if request.param == "http":
        return url
    command, *arguments = module("shadowcat", "forward", "--upstream", upstream.wait_for_url())
    return StdioServerParameters(command=command, args=arguments)


@pytest.fixture
def connect(place: str | StdioServerParameters, era: str) -> Connect:
    @asynccontextmanager
    async def connect(**options: Any) -> AsyncIterator[Client]:
        with trio.fail_after(20):
            async with Client(place, mode=MODES[era], **options) as client:
                yield client

    return connect


class Inbox:
    """The notifications a client was handed, and a way to wait for one."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self._news = trio.Event()

    async def __call__(self, message: Any) -> None:
        self.received.append(message)
        self._news.set()
        self._news = trio.Event()

    async def provoke(self, kind: type[Any], cause: Callable[[], Awaitable[object]]) -> Any:
        """Repeat *cause* until a notification of this *kind* comes.

        The SDK opens its listening stream when it likes and says nothing of
        it, and what is sent before then is lost.
        """
        while True:
            await cause()
            with trio.move_on_after(0.5):
                while (found := next((m for m in self.received if isinstance(m, kind)), None)) is None:
                    await self._news.wait()
                return found


def text_of(result: types.CallToolResult) -> str:
    assert not result.is_error, result
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


async def test_client_and_server_agree_on_the_era(connect: Connect, era: str) -> None:
    async with connect() as client:
        expected = "2026-07-28" if era == "modern" else "2025-11-25"
        assert client.protocol_version == expected
        assert client.server_info is not None
        assert client.server_info.name == "shadowcat-e2e"


async def test_tools_are_listed_and_called(connect: Connect) -> None:
    async with connect() as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo", "add", "count"} <= names
        assert text_of(await client.call_tool("echo", {"message": "grüße ☃"})) == "grüße ☃"


async def test_structured_content_arrives_whole(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("add", {"a": 2, "b": 3})
        assert result.structured_content == {"result": 5}


async def test_an_error_of_the_upstream_stays_one(connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource("memo://no/such/thing/at/all")
        assert caught.value.error.code == types.INVALID_PARAMS


async def test_many_calls_at_once_each_get_their_own_answer(connect: Connect) -> None:
    answers: dict[int, str] = {}
    async with connect() as client, trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            answers[number] = text_of(await client.call_tool("echo", {"message": f"message {number}"}))

        for number in range(50):
            nursery.start_soon(call, number)
    assert answers == {number: f"message {number}" for number in range(50)}


async def test_resources_are_listed_and_read(connect: Connect) -> None:
    async with connect() as client:
        assert [str(r.uri) for r in (await client.list_resources()).resources] == ["memo://today"]
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == ["memo://{day}/items"]
        (content,) = (await client.read_resource("memo://monday/items")).contents
        assert isinstance(content, types.TextResourceContents)
        assert content.text == "items of monday"


async def test_prompts_are_listed_and_got(connect: Connect) -> None:
    async with connect() as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["summarize"]
        (message,) = (await client.get_prompt("summarize", {"topic": "trees"})).messages
        assert isinstance(message.content, types.TextContent)
        assert message.content.text == "Please summarize trees"


async def test_arguments_are_completed(connect: Connect) -> None:
    async with connect() as client:
        reference = types.PromptReference(name="summarize")
        result = await client.complete(reference, {"name": "topic", "value": "t"})
        assert result.completion.values == ["tea", "trees"]


async def test_progress_arrives_in_order(connect: Connect) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def record(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with connect() as client:
        assert text_of(await client.call_tool("count", {"steps": 3}, progress_callback=record)) == "counted to 3"
    assert seen == [(step, 3, f"step {step}") for step in (1, 2, 3)]


async def test_log_messages_arrive_where_they_were_asked_for(connect: Connect, era: str) -> None:
    logged: list[Any] = []

    async def record(params: types.LoggingMessageNotificationParams) -> None:
        logged.append((params.level, params.data))

    async with connect(logging_callback=record, log_level="info") as client:
        if era == "legacy":
            await client.set_logging_level("info")
        await client.call_tool("complain", {"message": "no tea"})
    assert logged == [("warning", "no tea")]


async def test_the_server_can_ask_the_user(connect: Connect) -> None:
    asked: list[str] = []

    async def answer(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async with connect(elicitation_callback=answer) as client:
        assert text_of(await client.call_tool("greet", {})) == "Hello, Ada!"
    assert asked == ["Who are you?"]


async def test_the_server_can_ask_the_model(connect: Connect) -> None:
    async def answer(context: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        said = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", content=said, model="small")

    async with connect(sampling_callback=answer) as client:
        assert text_of(await client.call_tool("think", {})) == "small: Paris"


async def test_the_server_can_ask_for_roots(connect: Connect) -> None:
    async def answer(context: object) -> types.ListRootsResult:
        return types.ListRootsResult.model_validate({"roots": [{"uri": "file:///home/ada"}]})

    async with connect(list_roots_callback=answer) as client:
        assert text_of(await client.call_tool("look", {})) == "file:///home/ada"


async def test_a_question_can_be_answered_later_with_the_state_that_came_with_it(
    place: str | StdioServerParameters,
) -> None:
    """2026-07-28 basic/patterns/mrtr: the answer may come from another connection altogether."""
    with trio.fail_after(20):

        async def answer(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
            raise AssertionError("the test answers by itself")

        async with Client(place, mode="2026-07-28", elicitation_callback=answer) as client:
            asked = await client.session.call_tool("greet", {}, allow_input_required=True)
        assert isinstance(asked, types.InputRequiredResult)
        assert asked.input_requests is not None
        (name,) = asked.input_requests
        answers: Any = {name: types.ElicitResult(action="accept", content={"name": "Grace"})}
        async with Client(place, mode="2026-07-28", elicitation_callback=answer) as client:
            state = asked.request_state
            result = await client.call_tool("greet", {}, input_responses=answers, request_state=state)
        assert text_of(result) == "Hello, Grace!"


async def test_giving_up_a_call_cancels_it_at_the_server(connect: Connect, upstream: Child, key: str) -> None:
    """Legacy clients say so in a notification, modern ones by closing the stream."""
    async with connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call_tool, "hold", {"key": key})
        await trio.to_thread.run_sync(upstream.wait_for, f"started {key}$")
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(upstream.wait_for, f"cancelled {key}$")


async def test_a_call_can_outlast_others_of_the_same_client(connect: Connect, upstream: Child, key: str) -> None:
    async with connect() as client, trio.open_nursery() as nursery:

        async def hold() -> None:
            assert text_of(await client.call_tool("hold", {"key": key})) == f"released {key}"

        nursery.start_soon(hold)
        await trio.to_thread.run_sync(upstream.wait_for, f"started {key}$")
        await client.call_tool("release", {"key": key})


async def test_a_legacy_client_hears_that_the_tools_have_changed(place: str | StdioServerParameters) -> None:
    inbox = Inbox()
    with trio.fail_after(20):
        async with Client(place, mode="legacy", message_handler=inbox) as client:
            await inbox.provoke(types.ToolListChangedNotification, lambda: client.call_tool("grow", {"name": "twig"}))
            assert "twig" in {tool.name for tool in (await client.list_tools()).tools}


async def test_a_legacy_client_hears_of_the_resource_it_subscribed_to(
    place: str | StdioServerParameters, upstream: Child
) -> None:
    inbox, uri = Inbox(), "memo://today"
    with trio.fail_after(20):
        async with Client(place, mode="legacy", message_handler=inbox) as client:
            await client.subscribe_resource(uri)
            upstream.wait_for(f"subscribed {uri}$")
            kind = types.ResourceUpdatedNotification
            updated = await inbox.provoke(kind, lambda: client.call_tool("touch", {"uri": uri}))
            assert str(updated.params.uri) == uri


async def test_a_modern_client_listens_for_just_what_it_asks_for(place: str | StdioServerParameters) -> None:
    uri = "memo://today"
    with trio.fail_after(20):
        async with (
            Client(place, mode="auto") as client,
            client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as listening,
        ):
            await client.call_tool("touch", {"uri": "memo://somewhere-else"})
            await client.call_tool("touch", {"uri": uri})
            assert await anext(listening) == ResourceUpdated(uri=uri)
            await client.call_tool("grow", {"name": "leaf"})
            assert await anext(listening) == ToolsListChanged()
            assert "leaf" in {tool.name for tool in (await client.list_tools()).tools}
