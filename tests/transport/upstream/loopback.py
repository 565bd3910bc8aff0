"""A server on the loopback interface, and requests to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import trio
import trio.testing

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = 64 * 2**20


class Server:
    """Answers by path; remembers on which connection each request came."""

    def __init__(self):
        self.seen = []
        self.connections = 0
        self.bytes_sent = 0
        self.open = 0
        self.alpn = []
        self.port = 0

    @property
    def hits(self):
        return len(self.seen)

    async def serve(self, stream):
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            async with stream:
                while request := await self.receive(stream):
                    self.seen.append((number, request))
                    if isinstance(stream, trio.SSLStream):
                        self.alpn.append(stream.selected_alpn_protocol())
                    path = request.split(b" ")[1]
                    if not await self.answer(stream, path):
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1

    async def receive(self, stream):
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := await stream.receive_some()):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if b"/refuse" in head or b"/slam" in head:
            return data
        while lengths and len(body) < int(lengths[0].split(b":")[1]):
            body += await stream.receive_some()
        while b"chunked" in head.lower() and not body.endswith(b"0\r\n\r\n"):
            body += await stream.receive_some()
        return head + b"\r\n\r\n" + body

    async def answer(self, stream, path):
        match path:
            case b"/events":
                await stream.send_all(EVENTS)
                return not await stream.receive_some()
            case b"/hang":
                return not await stream.receive_some()
            case b"/half":
                await stream.send_all(OK + b"h")
                return not await stream.receive_some()
            case b"/parts":
                for part in (OK[:20], OK[20:], b"h", b"i"):
                    await stream.send_all(part)
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
            case b"/slow":
                await stream.send_all(OK.replace(b": 2", b": 4"))
                for part in (b"s", b"l", b"o", b"w"):
                    await trio.sleep(3)
                    await stream.send_all(part)
            case b"/to-the-end":
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhi")
                return False
            case b"/bye" | b"/slam":
                return False
            case b"/once":
                await stream.send_all(OK + b"hi")
                return False
            case b"/surplus":
                await stream.send_all(OK + b"hi")
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(OK + b"no")
            case b"/refuse":
                await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                return False
            case b"/big":
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
                for _ in range(BIG // 65536):
                    await stream.send_all(b"x" * 65536)
                    self.bytes_sent += 65536
            case _:
                await stream.send_all(OK + b"hi")
        return True


@asynccontextmanager
async def run_server(ssl_context=None, server=None):
    server = server or Server()
    async with trio.open_nursery() as nursery:
        serve: partial[Any] = partial(trio.serve_tcp, server.serve)
        if ssl_context:
            serve = partial(trio.serve_ssl_over_tcp, server.serve, ssl_context=ssl_context, https_compatible=True)
        listeners = await nursery.start(partial(serve, port=0, host="127.0.0.1"))
        listener = listeners[0].transport_listener if ssl_context else listeners[0]
        server.port = listener.socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def request(server, path="/", method="POST", scheme="http", content=b"{}", timeout=None, **kwargs):
    extensions = {"timeout": timeout} if timeout else {}
    url = f"{scheme}://127.0.0.1:{server.port}{path}"
    return httpx.Request(method, url, content=content, extensions=extensions, **kwargs)


async def call(transport, *args, **kwargs):
    response = await transport.handle_async_request(request(*args, **kwargs))
    try:
        return await response.aread()
    finally:
        await response.aclose()
