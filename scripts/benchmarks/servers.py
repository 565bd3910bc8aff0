"""The programs that are measured, other than nginx and the installed proxy itself.

Each prints its URL when it can be called, and runs until it is killed.
"""

from __future__ import annotations

import socket
import sys
from functools import partial

import httpx  # noqa: TID251 - the comparison with its own transport
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from shadowcat.proxy import ReverseProxyConfig, serve_reverse_proxy
from shadowcat.transport import Receive, Scope, Send
from shadowcat.transport.downstream import ListenerConfig, open_listening_socket, serve_asgi
from shadowcat.transport.upstream import HttpUpstream, HttpUpstreamConfig

BIND = "127.0.0.1:0"
ANSWER = b'{"jsonrpc": "2.0", "id": 1, "result": {"content": [], "isError": false}}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request, answer with a small document."""
    if scope["type"] == "lifespan":
        await send({"type": (await receive())["type"] + ".complete"})
        await send({"type": (await receive())["type"] + ".complete"})
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def serve_bare() -> None:
    """Serve `echo` on hypercorn as it comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        config = Config()
        config.bind = [f"fd://{sock.fileno()}"]
        config.errorlog = None
        print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
        await serve(echo, config)  # type: ignore[arg-type]


async def serve_listener() -> None:
    """Serve `echo` on the proxy's own listener."""
    config = ListenerConfig(bind=BIND)
    run = partial(serve_asgi, echo, open_listening_socket(config), config, shutdown=trio.Event(), graceful_timeout=1.0)
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        print(url, flush=True)


async def serve_with_httpx(upstream_url: str) -> None:
    """Serve the proxy with httpx's own transport to the upstream."""
    upstream = HttpUpstreamConfig(url=upstream_url)
    config = ReverseProxyConfig(listener=ListenerConfig(bind=BIND), upstream=upstream)
    async with httpx.AsyncHTTPTransport() as transport, trio.open_nursery() as nursery:
        injected = HttpUpstream(upstream, transport)
        (url,) = await nursery.start(partial(serve_reverse_proxy, config, upstream=injected))
        print(url, flush=True)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    match name:
        case "bare":
            trio.run(serve_bare)
        case "listener":
            trio.run(serve_listener)
        case "httpx":
            trio.run(serve_with_httpx, arguments[0])
