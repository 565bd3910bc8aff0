"""Serve an ASGI app as a child process of a test: a port of its own, one line with its URL, a clean exit."""

import argparse
import signal
import socket
import sys
import warnings

import uvicorn
from mcp import MCPDeprecationWarning
from starlette.types import ASGIApp


def parse_port(description: str) -> int:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    port: int = parser.parse_args().port
    return port


def quiet_deprecations() -> None:
    """Say nothing about what 2026-07-28 deprecates: serving the older revisions is what the fixtures are for."""
    warnings.simplefilter("ignore", MCPDeprecationWarning)


def serve(app: ASGIApp, port: int) -> None:
    """Serve *app* at 127.0.0.1 until SIGTERM or SIGINT, then exit with status 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped.
        signal.signal(number, lambda *_: sys.exit(0))
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    print(f"serving http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    # httptools leaves white space at the end of a header value, which MCP's header checks then refuse; h11 does not.
    config = uvicorn.Config(app, http="h11", log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
