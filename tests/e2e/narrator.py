"""An MCP server whose streams can be resumed, and which goes on only when it is told to.

``GET /go`` lets `narrate` send its next part, ``GET /announce`` sends a numbered
message on the listening stream.  It prints its URL, and then a line for each thing
a client cannot see from the other end.
"""

from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage, SetLevelRequestParams, SubscribeRequestParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.e2e.serving import parse_port, quiet_deprecations, serve

LOGGER = "narrator"
RETRY = 100
"""Milliseconds after which a client is to come back."""

server = MCPServer("narrator", version="1", log_level="CRITICAL")
permits = anyio.Semaphore(0)
audience: list[Any] = []
"""The sessions that called `attend`."""


def say(*words: object) -> None:
    print(*words, flush=True)


class EventLog(EventStore):
    """Every event, in order; what comes while others are repeated is repeated too."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        place = int(last_event_id)
        stream_id, _ = self._events[place]
        while (place := place + 1) < len(self._events):
            stream, message = self._events[place]
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream_id


@server.tool()
async def narrate(parts: int, size: int, closes: bool, ctx: Context) -> str:
    """Send *parts* times *size* numbered messages, each as a log message and as progress.

    Args:
        closes: Whether the stream is closed, though not ended, after each part but the last.
    """
    say("started")
    for part in range(parts):
        if part:
            if closes:
                await ctx.close_sse_stream()
            say("waiting", part)
            await permits.acquire()
        for number in range(part * size, (part + 1) * size):
            await ctx.session.send_log_message("info", number, LOGGER, related_request_id=ctx.request_id)
            await ctx.report_progress(number)
        say("told", part)
    return f"told {parts * size}"


@server.tool()
async def attend(ctx: Context) -> str:
    """Be sent what is announced."""
    audience.append(ctx.session)
    return "attending"


@server.tool()
async def interrupt(ctx: Context) -> str:
    """Close the listening stream, though its client is to come back to it."""
    await ctx.close_standalone_sse_stream()
    return "interrupted"


@server.custom_route("/go", methods=["GET"])
async def go(request: Request) -> PlainTextResponse:
    permits.release()
    return PlainTextResponse("gone")


@server.custom_route("/announce", methods=["GET"])
async def announce(request: Request) -> PlainTextResponse:
    number = int(request.query_params["number"])
    await audience[-1].send_log_message("info", number, LOGGER)
    await audience[-1].send_tool_list_changed()
    return PlainTextResponse("announced")


async def subscribe(ctx: Any, params: SubscribeRequestParams) -> dict[str, Any]:
    say("subscribed", params.uri)
    return {}


async def set_level(ctx: Any, params: SetLevelRequestParams) -> dict[str, Any]:
    say("level", params.level)
    return {}


class Reporter:
    """Say that a stream was opened or resumed, as soon as what the tools send goes there.

    The SDK loses what is sent while it turns from what it repeats to what is new, until
    it has sent an event without data.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        resumes = any(name == b"last-event-id" for name, _ in scope.get("headers", ()))

        async def report(message: Message) -> None:
            await send(message)
            if resumes and message["type"] == "http.response.body" and b"data: \r\n" in message.get("body", b""):
                say("resumed")
            elif not resumes and message["type"] == "http.response.start" and scope["path"] == "/mcp":
                say("answering", scope["method"], message["status"])

        await self._app(scope, receive, report if scope["type"] == "http" else send)


def main() -> None:
    port = parse_port(__doc__ or "")
    quiet_deprecations()
    lowlevel = server._lowlevel_server
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    serve(Reporter(server.streamable_http_app(event_store=EventLog(), retry_interval=RETRY)), port)


if __name__ == "__main__":
    main()
