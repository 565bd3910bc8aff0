"""What is ordinary is answered as hypercorn, as it comes, answers it."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config

from .conftest import Client


@asynccontextmanager
async def connect_to_stock(app) -> AsyncGenerator[Client]:
    """Connect to *app*, served by hypercorn."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.include_server_header = config.include_date_header = False
    config.graceful_timeout = 0
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=shutdown.wait, mode="asgi")
        (url,) = await nursery.start(serve)
        with trio.socket.socket(socket.AF_INET) as sock:
            await sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            yield Client(trio.SocketStream(sock))
        shutdown.set()
        nursery.cancel_scope.cancel()


class Recording:
    """Answers as the path says, and remembers what it was given."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await (receive() if scope["type"] == "lifespan" else send({"type": "websocket.close"}))
            raise RuntimeError("not supported")
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event["more_body"]
        self.scopes.append(scope)
        self.bodies.append(body)
        status, _, how = scope["path"].lstrip("/").partition("/")
        length = [] if "chunked" in how else [(b"content-length", b"%d" % (len(body) if status == "200" else 0))]
        await send({"type": "http.response.start", "status": int(status), "headers": [(b"x-a", b"b"), *length]})
        await send({"type": "http.response.body", "body": body if status == "200" else b""})


async def converse(client: Client, method: bytes, request: bytes) -> tuple[Any, ...]:
    """Send *request* and return status, fields and body of the answer."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    await client.send(request)
    found, body = None, b""
    with trio.fail_after(5):
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                reader.receive_data(await client.read_some())
            elif isinstance(event, h11.Response):
                found = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
    assert found is not None
    return found.status_code, sorted(found.headers), body


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: a", *fields, "", ""]).encode() + body


ORDINARY = {
    "get": request("GET /200/a%20b%C3%A9?c=d&e"),
    "head": request("HEAD /200"),
    "post": request("POST /200", "Content-Length: 5", body=b"hello"),
    "answer in chunks": request("POST /200/chunked", "Content-Length: 5", body=b"hello"),
    "request in chunks": request("PUT /200", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "trailers": request("PUT /200", "Transfer-Encoding: chunked", body=b"5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    "no content": request("DELETE /204/chunked"),
    "not modified": request("GET /304"),
    "many fields": request("GET /200", "Accept: a", "Accept: b", "X-Empty:", "X-Latin: \u00e9", "X-Space:  a b \t"),
    "connection is kept": request("GET /200", "Connection: Keep-Alive"),
    "upgrade that nobody knows": request("GET /200", "Connection: Upgrade", "Upgrade: irc/6.9"),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_same_as_hypercorn(serve, name):
    """In the scope, the body and the answer; twice, because the connection lives on."""
    data = ORDINARY[name]
    method = data.partition(b" ")[0]
    ours, theirs = Recording(), Recording()
    async with serve(ours) as server, server.connect() as client:
        answers = [await converse(client, method, data) for _ in range(2)]
    async with connect_to_stock(theirs) as client:
        assert answers == [await converse(client, method, data) for _ in range(2)]
    assert ours.bodies == theirs.bodies
    differing = {"client", "server", "asgi", "state", "extensions"}
    for mine, other in zip(ours.scopes, theirs.scopes, strict=True):
        assert {k: v for k, v in other.items() if k not in differing} == {
            k: v for k, v in mine.items() if k not in differing
        }
