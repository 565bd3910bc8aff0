"""The tools the official conformance suite calls by name, for every revision it knows.

Results are in wire form: what matters is what arrives at the other end.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import attrs
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

from tests.conformance import samples

Context = ServerRequestContext[Any, Any]
Wire = dict[str, Any]
ToolFunction = Callable[[Context, CallToolRequestParams], Awaitable[Wire]]

CHANGES = InMemorySubscriptionBus()
"""Where ``test_trigger_*_change`` publishes and ``subscriptions/listen`` listens."""


@attrs.frozen
class Tool:
    name: str
    description: str
    input_schema: Mapping[str, Any]
    run: ToolFunction

    def as_wire(self) -> Wire:
        return {"name": self.name, "description": self.description, "inputSchema": self.input_schema}


TOOLS: dict[str, Tool] = {}


def tool(description: str, schema: Mapping[str, Any] | None = None, **properties: Any) -> Callable[..., ToolFunction]:
    """Register a function under its own name; every one of *properties* is a required argument."""

    def register(function: ToolFunction) -> ToolFunction:
        default = {"type": "object", "properties": properties, "required": list(properties)}
        TOOLS[function.__name__] = Tool(function.__name__, description, schema or default, function)
        return function

    return register


def content(*items: Wire) -> Wire:
    return {"content": list(items)}


def text(value: str) -> Wire:
    return {"type": "text", "text": value}


STRING = {"type": "string"}


@tool("Return text")
async def test_simple_text(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(text("This is a simple text response for testing."))


@tool("Return an image")
async def test_image_content(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(samples.IMAGE)


@tool("Return a sound")
async def test_audio_content(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(samples.AUDIO)


@tool("Return an embedded resource")
async def test_embedded_resource(ctx: Context, params: CallToolRequestParams) -> Wire:
    body = "This is an embedded resource content."
    return content(samples.embedded("test://embedded-resource", "text/plain", body))


@tool("Return text, an image and a resource")
async def test_multiple_content_types(ctx: Context, params: CallToolRequestParams) -> Wire:
    body = json.dumps({"test": "data", "value": 123})
    resource = samples.embedded("test://mixed-content-resource", "application/json", body)
    return content(text("Multiple content types test:"), samples.IMAGE, resource)


@tool("Fail")
async def test_error_handling(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(text("This tool intentionally returns an error for testing")) | {"isError": True}


@tool("Advertise JSON Schema 2020-12", schema=samples.SCHEMA_2020_12)
async def json_schema_2020_12_tool(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(text(json.dumps(params.arguments)))


@tool("Take an argument that clients repeat in a header", region=STRING | {"x-mcp-header": "Region"})
async def test_mirrored_argument(ctx: Context, params: CallToolRequestParams) -> Wire:
    return content(text(f"region={(params.arguments or {}).get('region')}"))


async def log(ctx: Context, message: str) -> None:
    await ctx.session.send_log_message("info", message, related_request_id=ctx.request_id)


@tool("Send three log messages")
async def test_tool_with_logging(ctx: Context, params: CallToolRequestParams) -> Wire:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await log(ctx, message)
        await anyio.sleep(0.02)
    return content(text("logged three messages"))


@tool("Log, where the request asked for it")
async def test_logging_tool(ctx: Context, params: CallToolRequestParams) -> Wire:
    await log(ctx, "a message the request must have asked for")
    return content(text("logged if asked to"))


@tool("Report progress three times")
async def test_tool_with_progress(ctx: Context, params: CallToolRequestParams) -> Wire:
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100, f"{progress} of 100")
        await anyio.sleep(0.02)
    return content(text("reported progress"))


@tool("Close the stream in the middle of the call, and answer on the one that resumes it")
async def test_reconnection(ctx: Context, params: CallToolRequestParams) -> Wire:
    await log(ctx, "before the stream closes")
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(0.2)  # the client comes back meanwhile; the SDK does not say when it has
    await log(ctx, "after the stream was resumed")
    return content(text("Reconnection test completed"))


@tool("Ask the client's model (legacy era)", prompt=STRING)
async def test_sampling(ctx: Context, params: CallToolRequestParams) -> Wire:
    prompt = TextContent(type="text", text=(params.arguments or {})["prompt"])
    answer = await ctx.session.create_message(
        [SamplingMessage(role="user", content=prompt)], max_tokens=100, related_request_id=ctx.request_id
    )
    said = answer.content.text if isinstance(answer.content, TextContent) else "something other than text"
    return content(text(f"LLM response: {said}"))


async def elicit(ctx: Context, message: str, properties: Mapping[str, Any], required: list[str]) -> Wire:
    schema = {"type": "object", "properties": dict(properties), "required": required}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return content(text(f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}"))


@tool("Ask the user (legacy era)", message=STRING)
async def test_elicitation(ctx: Context, params: CallToolRequestParams) -> Wire:
    fields = {"username": STRING, "email": STRING}
    return await elicit(ctx, (params.arguments or {})["message"], fields, ["username", "email"])


@tool("Ask the user, with a default for every type (legacy era)")
async def test_elicitation_sep1034_defaults(ctx: Context, params: CallToolRequestParams) -> Wire:
    return await elicit(ctx, "Please check these", samples.FIELDS_WITH_DEFAULTS, [])


@tool("Ask the user to choose, in every way a schema can say it (legacy era)")
async def test_elicitation_sep1330_enums(ctx: Context, params: CallToolRequestParams) -> Wire:
    return await elicit(ctx, "Please choose", samples.FIELDS_TO_CHOOSE, [])


@tool("Need sampling, and say so to a client that has none (modern era)")
async def test_missing_capability(ctx: Context, params: CallToolRequestParams) -> Wire:
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        missing: Wire = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool samples", missing)
    return content(text("the client can sample"))


@tool("Change the list of tools (modern era)")
async def test_trigger_tool_change(ctx: Context, params: CallToolRequestParams) -> Wire:
    await CHANGES.publish(ToolsListChanged())
    return content(text("told every listener"))


@tool("Change the list of prompts (modern era)")
async def test_trigger_prompt_change(ctx: Context, params: CallToolRequestParams) -> Wire:
    await CHANGES.publish(PromptsListChanged())
    return content(text("told every listener"))


def input_required(requests: Mapping[str, Wire], state: str | None = None) -> Wire:
    result: Wire = {"resultType": "input_required", "inputRequests": dict(requests)}
    return result if state is None else result | {"requestState": state}


def answers(params: CallToolRequestParams, kind: type[Any]) -> list[Any]:
    """The client's answers of this *kind*, whatever their keys."""
    return [answer for answer in (params.input_responses or {}).values() if isinstance(answer, kind)]


@tool("Ask for progress and then for input, on one stream (modern era)")
async def test_streaming_elicitation(ctx: Context, params: CallToolRequestParams) -> Wire:
    await log(ctx, "about to ask")
    return input_required({"user_name": samples.ask("What is your name?", name=STRING)})


@tool("Ask for a name (modern era)")
async def test_input_required_result_elicitation(ctx: Context, params: CallToolRequestParams) -> Wire:
    answer = (params.input_responses or {}).get("user_name")
    if not isinstance(answer, ElicitResult) or answer.content is None:
        return input_required({"user_name": samples.ask("What is your name?", name=STRING)})
    return content(text(f"Hello, {answer.content.get('name')}!"))


@tool("Ask the client's model (modern era)")
async def test_input_required_result_sampling(ctx: Context, params: CallToolRequestParams) -> Wire:
    if not answers(params, CreateMessageResult):
        return input_required({"capital_question": samples.sample("What is the capital of France?")})
    return content(text("the model has answered"))


@tool("Ask for the client's roots (modern era)")
async def test_input_required_result_list_roots(ctx: Context, params: CallToolRequestParams) -> Wire:
    found = answers(params, ListRootsResult)
    if not found:
        return input_required({"client_roots": samples.LIST_ROOTS})
    return content(text(", ".join(str(root.uri) for root in found[0].roots)))


@tool("Ask, and need the state back with the answer (modern era)")
async def test_input_required_result_request_state(ctx: Context, params: CallToolRequestParams) -> Wire:
    if params.request_state != "asked":
        return input_required({"confirm": samples.ask("Please confirm", ok={"type": "boolean"})}, "asked")
    return content(text("state-ok"))


@tool("Refuse a state it did not make (modern era)")
async def test_input_required_result_tampered_state(ctx: Context, params: CallToolRequestParams) -> Wire:
    # `fixture_server` seals the state of every tool on its way out, and checks it on its way in.
    return await test_input_required_result_request_state(ctx, params)


@tool("Ask the user, the model and for roots at once (modern era)")
async def test_input_required_result_multiple_inputs(ctx: Context, params: CallToolRequestParams) -> Wire:
    if params.request_state == "asked" and len(params.input_responses or {}) == 3:
        return content(text("all three have answered"))
    requests = {
        "user_name": samples.ask("What is your name?", name=STRING),
        "greeting": samples.sample("Generate a greeting"),
        "client_roots": samples.LIST_ROOTS,
    }
    return input_required(requests, "asked")


@tool("Ask twice, one after the other (modern era)")
async def test_input_required_result_multi_round(ctx: Context, params: CallToolRequestParams) -> Wire:
    match params.request_state:
        case "two":
            return content(text("both have been answered"))
        case "one":
            return input_required({"step2": samples.ask("Step 2: What is your favorite color?", color=STRING)}, "two")
        case _:
            return input_required({"step1": samples.ask("Step 1: What is your name?", name=STRING)}, "one")


@tool("Ask only what the client says it can answer (modern era)")
async def test_input_required_result_capabilities(ctx: Context, params: CallToolRequestParams) -> Wire:
    capabilities = ctx.session.client_capabilities
    requests = {}
    if capabilities is not None and capabilities.sampling is not None:
        requests["greeting"] = samples.sample("Generate a greeting")
    if capabilities is not None and capabilities.elicitation is not None:
        requests["user_name"] = samples.ask("What is your name?", name=STRING)
    return input_required(requests)
