"""A small MCP server to put behind the proxy: tools, a resource and a prompt, for clients of both eras.

Needs the packages of ``shadowcat[demo]``.  Run it with ``python
examples/demo_server.py --port 8081``; it prints its URL.
"""

import argparse
import logging
import signal
import socket
import sys
import warnings
from typing import Annotated

import anyio
import uvicorn
from mcp import MCPDeprecationWarning
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, MCPServer, Resolve, Sample
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import CreateMessageResult, JSONRPCMessage, SamplingMessage, TextContent
from pydantic import BaseModel, Field

server = MCPServer(
    "shadowcat-demo",
    version="1",
    instructions="A demonstration: try `echo`, `add`, `count`, `order_tea` and `haiku`.",
    log_level="WARNING",
)


class EventLog(EventStore):
    """The newest events of all streams, for clients that come back for what they have missed."""

    def __init__(self, size: int = 10_000) -> None:
        self._events: dict[int, tuple[str, JSONRPCMessage | None]] = {}
        self._next = 0
        self._size = size

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        number, self._next = self._next, self._next + 1
        self._events[number] = stream_id, message
        self._events.pop(number - self._size, None)
        return str(number)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id) if last_event_id.isdecimal() else -1
        if last not in self._events:
            return None
        stream_id, _ = self._events[last]
        # More may come while these are sent.
        while (last := last + 1) < self._next:
            stream, message = self._events.get(last, ("", None))
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(last)))
        return stream_id


@server.tool()
def echo(message: str) -> str:
    """Return the message."""
    return message


@server.tool()
def add(a: float, b: float) -> float:
    """Return the sum of two numbers, as structured content too."""
    return a + b


@server.tool()
async def count(ctx: Context, steps: int = 5, interval: float = 0.5) -> str:
    """Count slowly, with a progress notification at every step; `interval` is in seconds."""
    for step in range(1, steps + 1):
        await anyio.sleep(interval)
        await ctx.report_progress(step, steps, f"step {step} of {steps}")
    return f"counted to {steps}"


class Tea(BaseModel):
    kind: str = Field("assam", description="Which tea would you like?")
    milk: bool = Field(False, description="With milk?")


async def ask_for_tea() -> Elicit[Tea]:
    return Elicit("How do you take your tea?", Tea)


@server.tool()
def order_tea(answer: Annotated[ElicitationResult[Tea], Resolve(ask_for_tea)]) -> str:
    """Ask the user which tea; needs a client that supports elicitation."""
    if not isinstance(answer, AcceptedElicitation):
        return "No tea, then."
    return f"One {answer.data.kind}{' with milk' if answer.data.milk else ''}, coming up."


async def ask_for_haiku(topic: str) -> Sample:
    request = TextContent(type="text", text=f"Write a haiku about {topic}.")
    return Sample([SamplingMessage(role="user", content=request)], max_tokens=100)


@server.tool()
def haiku(topic: str, answer: Annotated[CreateMessageResult, Resolve(ask_for_haiku)]) -> str:
    """Ask the client's model for a haiku; needs a client that supports sampling."""
    return answer.content.text if isinstance(answer.content, TextContent) else "The model did not answer in words."


@server.resource("demo://menu", description="The teas there are", mime_type="text/plain")
def menu() -> str:
    return "assam\ndarjeeling\nsencha\n"


@server.prompt()
def review(tea: str) -> str:
    """Ask for a review of a tea."""
    return f"Please review {tea}: taste, colour and price."


def main() -> None:
    parser = argparse.ArgumentParser(description="A small MCP server to put behind the proxy.")
    parser.add_argument("--port", type=int, default=8081, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--keep-events", action="store_true", help="let clients resume streams that were cut")
    args = parser.parse_args()

    # The SDK warns of what 2026-07-28 deprecates; this server is there for the older revisions too.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped.
        signal.signal(number, lambda *_: sys.exit(0))
    listener = socket.create_server(("127.0.0.1", args.port))
    print(f"demo server at http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    app = server.streamable_http_app(event_store=EventLog() if args.keep_events else None)
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
