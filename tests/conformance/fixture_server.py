"""The MCP server the official conformance suite is run against, on the `mcp` package.

The suite calls tools, prompts and resources by fixed names; this server has them
all, for the revisions 2025-06-18, 2025-11-25 and 2026-07-28.  Run it with
``python -m tests.conformance.fixture_server``; it prints its URL, or speaks over
its standard streams if it is given ``--stdio``.
"""

import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import ListenHandler
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance import samples
from tests.conformance.event_store import EventLog
from tests.conformance.fixture_tools import CHANGES, TOOLS, Context, Wire, input_required, text
from tests.e2e.serving import parse_port, quiet_deprecations, serve

NAME = "shadowcat-conformance-fixture"

RESOURCES: Mapping[str, Wire] = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": samples.PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}
TEMPLATE = "test://template/{id}/data"


def user(content: Wire) -> Wire:
    return {"role": "user", "content": content}


def simple_prompt(arguments: Mapping[str, str]) -> list[Wire]:
    return [user(text("This is a simple prompt for testing."))]


def prompt_with_arguments(arguments: Mapping[str, str]) -> list[Wire]:
    return [user(text(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"))]


def prompt_with_resource(arguments: Mapping[str, str]) -> list[Wire]:
    resource = samples.embedded(arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return [user(resource), user(text("Please process the embedded resource above."))]


def prompt_with_image(arguments: Mapping[str, str]) -> list[Wire]:
    return [user(samples.IMAGE), user(text("Please analyze the image above."))]


ASKING_PROMPT = "test_input_required_result_prompt"
PROMPTS: Mapping[str, tuple[Callable[[Mapping[str, str]], list[Wire]], tuple[str, ...]]] = {
    "test_simple_prompt": (simple_prompt, ()),
    "test_prompt_with_arguments": (prompt_with_arguments, ("arg1", "arg2")),
    "test_prompt_with_embedded_resource": (prompt_with_resource, ("resourceUri",)),
    "test_prompt_with_image": (prompt_with_image, ()),
    ASKING_PROMPT: (simple_prompt, ()),
}


async def list_tools(ctx: Context, params: types.PaginatedRequestParams) -> Wire:
    return {"tools": [tool.as_wire() for tool in TOOLS.values()]}


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Wire:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await TOOLS[params.name].run(ctx, params)


async def list_prompts(ctx: Context, params: types.PaginatedRequestParams) -> Wire:
    def as_wire(name: str, arguments: tuple[str, ...]) -> Wire:
        named = [{"name": argument, "description": argument, "required": True} for argument in arguments]
        return {"name": name, "description": f"The prompt {name}", "arguments": named}

    return {"prompts": [as_wire(name, arguments) for name, (_, arguments) in PROMPTS.items()]}


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Wire:
    if params.name not in PROMPTS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    if params.name == ASKING_PROMPT and not params.input_responses:
        question = samples.ask("What context should the prompt use?", context={"type": "string"})
        return input_required({"user_context": question})
    render, _ = PROMPTS[params.name]
    return {"messages": render(params.arguments or {})}


async def list_resources(ctx: Context, params: types.PaginatedRequestParams) -> Wire:
    def as_wire(uri: str, content: Wire) -> Wire:
        name = uri.removeprefix("test://")
        return {"uri": uri, "name": name, "description": f"The resource {name}", "mimeType": content["mimeType"]}

    return {"resources": [as_wire(uri, content) for uri, content in RESOURCES.items()]}


async def list_templates(ctx: Context, params: types.PaginatedRequestParams) -> Wire:
    template = {"uriTemplate": TEMPLATE, "name": "template", "mimeType": "application/json"}
    return {"resourceTemplates": [template | {"description": "A resource with its id in the URI"}]}


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> Wire:
    uri = str(params.uri)
    if uri in RESOURCES:
        return {"contents": [{"uri": uri} | RESOURCES[uri]]}
    match = re.fullmatch(TEMPLATE.replace("{id}", "([^/]+)"), uri)
    if match is None:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    body = {"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"}
    return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(body)}]}


def with_result_type(handler: Callable[[Context, Any], Awaitable[Wire]]) -> Callable[[Context, Any], Awaitable[Wire]]:
    """Say of a result that it is complete, where the revision wants it said."""

    async def handle(ctx: Context, params: Any) -> Wire:
        result = await handler(ctx, params)
        return {"resultType": "complete"} | result if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else result

    return handle


async def accept(ctx: Context, params: Any) -> Wire:
    return {}


async def complete(ctx: Context, params: types.CompleteRequestParams) -> Wire:
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def build_server() -> Server[Any]:
    server: Server[Any] = Server(
        NAME,
        version="1",
        cache_hints={method: CacheHint(ttl_ms=1000, scope="public") for method in get_args(CacheableMethod)},
        on_subscriptions_listen=ListenHandler(CHANGES),
    )
    for method, params_type, handler in (
        ("tools/list", types.PaginatedRequestParams, list_tools),
        ("tools/call", types.CallToolRequestParams, call_tool),
        ("prompts/list", types.PaginatedRequestParams, list_prompts),
        ("prompts/get", types.GetPromptRequestParams, get_prompt),
        ("resources/list", types.PaginatedRequestParams, list_resources),
        ("resources/templates/list", types.PaginatedRequestParams, list_templates),
        ("resources/read", types.ReadResourceRequestParams, read_resource),
        ("resources/subscribe", types.SubscribeRequestParams, accept),
        ("resources/unsubscribe", types.UnsubscribeRequestParams, accept),
        ("logging/setLevel", types.SetLevelRequestParams, accept),
        ("completion/complete", types.CompleteRequestParams, complete),
    ):
        server.add_request_handler(method, params_type, with_result_type(handler))
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


async def serve_stdio() -> None:
    server = build_server()
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


def main() -> None:
    if sys.argv[1:] == ["--stdio"]:
        quiet_deprecations()
        anyio.run(serve_stdio, backend="trio")
        return
    port = parse_port(__doc__ or "")
    quiet_deprecations()
    # A retry interval is what makes a client come back to a stream the server closed.
    serve(build_server().streamable_http_app(event_store=EventLog(), retry_interval=100), port)


if __name__ == "__main__":
    main()
