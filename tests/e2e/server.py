"""An MCP server of both eras for real clients to meet through the proxy.

It prints its URL, and then a line for each thing a client cannot see from the
other end: that a call started, was cancelled, or finished.
"""

from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp_types import (
    Completion,
    CreateMessageResult,
    ListRootsResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
)
from pydantic import BaseModel

from tests.e2e.serving import parse_port, quiet_deprecations, serve

server = MCPServer("shadowcat-e2e", version="1", log_level="CRITICAL")
held: dict[str, anyio.Event] = {}


def say(*words: str) -> None:
    print(*words, flush=True)


@server.tool()
def echo(message: str) -> str:
    """Return the message."""
    return message


@server.tool()
def add(a: int, b: int) -> int:
    """Return the sum, as text and as structured content."""
    return a + b


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress at every step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"counted to {steps}"


@server.tool()
async def complain(message: str, ctx: Context) -> str:
    """Send a log message at level warning."""
    await ctx.warning(message)
    return "complained"


@server.tool()
async def hold(key: str, ctx: Context) -> str:
    """Wait until `release` is called with the same key."""
    released = held.setdefault(key, anyio.Event())
    say("started", key)
    await ctx.report_progress(0)
    try:
        await released.wait()
    except anyio.get_cancelled_exc_class():
        say("cancelled", key)
        raise
    say("finished", key)
    return f"released {key}"


@server.tool()
def release(key: str) -> str:
    """Let `hold` return."""
    held.setdefault(key, anyio.Event()).set()
    return "released"


class Person(BaseModel):
    name: str


async def ask_person() -> Elicit[Person]:
    return Elicit("Who are you?", Person)


async def ask_model() -> Sample:
    question = TextContent(type="text", text="What is the capital of France?")
    return Sample([SamplingMessage(role="user", content=question)], max_tokens=100)


async def ask_roots() -> ListRoots:
    return ListRoots()


@server.tool()
def greet(person: Annotated[Person, Resolve(ask_person)]) -> str:
    """Ask the user for a name."""
    return f"Hello, {person.name}!"


@server.tool()
def think(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Ask the client's model."""
    return f"{answer.model}: {answer.content.text if isinstance(answer.content, TextContent) else '?'}"


@server.tool()
def look(roots: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
    """Ask for the client's roots."""
    return ", ".join(str(root.uri) for root in roots.roots)


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    """Add a tool of this name, and tell clients of both eras."""
    if name not in {tool.name for tool in await server.list_tools()}:
        server.add_tool(echo, name=name)
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return "grown"


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    """Say that a resource has changed, to clients of both eras."""
    await ctx.session.send_resource_updated(uri)
    await ctx.notify_resource_updated(uri)
    return "touched"


@server.resource("memo://today", description="What there is to do")
def memo() -> str:
    return "write tests"


@server.resource("memo://{day}/items", description="What there was to do")
def items(day: str) -> str:
    return f"items of {day}"


@server.prompt()
def summarize(topic: str) -> str:
    """Ask for a summary."""
    return f"Please summarize {topic}"


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    return Completion(values=[topic for topic in ("tea", "trees", "water") if topic.startswith(argument.value)])


async def subscribe(ctx: Any, params: SubscribeRequestParams) -> dict[str, Any]:
    say("subscribed", str(params.uri))
    return {}


async def set_level(ctx: Any, params: SetLevelRequestParams) -> dict[str, Any]:
    say("level", params.level)
    return {}


def answer_legacy_requests() -> None:
    """Answer the two that only the legacy era knows; `MCPServer` has no way of its own to do so."""
    lowlevel = server._lowlevel_server
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)


def main() -> None:
    port = parse_port(__doc__ or "")
    quiet_deprecations()
    answer_legacy_requests()
    serve(server.streamable_http_app(), port)


if __name__ == "__main__":
    main()
