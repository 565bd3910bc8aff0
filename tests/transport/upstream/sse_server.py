"""A server of HTTP+SSE in the same process, which does as the test tells it to."""

from __future__ import annotations

from contextlib import asynccontextmanager

import httpx
import trio

from shadowcat.transport.upstream import HttpSseConnector, HttpSseUpstreamConfig

URL = "https://secret-host.internal:8123/a/sse?key=hidden"
SECRETS = ("secret-host", "8123", "hidden")
ENDPOINT = b"event: endpoint\ndata: /messages?session_id=1\n\n"


class Cut:
    """Breaks the connection off when it is sent."""


class Body(httpx.AsyncByteStream):
    """What the server says, as long as somebody reads it."""

    def __init__(self, receiver):
        self._receiver = receiver
        self.reads = 0
        self.closed = trio.Event()

    def __aiter__(self):
        return self

    async def __anext__(self):
        self.reads += 1
        try:
            data = await self._receiver.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(data, Cut):
            raise httpx.ReadError("cut")
        return data

    async def aclose(self):
        await trio.lowlevel.checkpoint_if_cancelled()
        self.closed.set()


class SseServer(httpx.AsyncBaseTransport):
    """The transport by which it is reached, and what it was sent.

    Args:
        begin: What it sends before the test says anything.
    """

    def __init__(self, *begin, status=200, content_type="text/event-stream", **headers):
        self._sender, receiver = trio.open_memory_channel(100)
        for data in begin:
            self._sender.send_nowait(data)
        self.body = Body(receiver)
        self.status = status
        self.headers = {"content-type": content_type, **headers}
        self.gets = []
        self.posts = []
        self.on_post = self.accept

    async def handle_async_request(self, request):
        await trio.lowlevel.checkpoint()
        if request.method == "GET":
            self.gets.append(request)
            return httpx.Response(self.status, headers=self.headers, stream=self.body)
        self.posts.append(request)
        return await self.on_post(b"".join(request.stream))

    async def accept(self, message):
        return httpx.Response(202, content=b"Accepted")

    async def say(self, data):
        await self._sender.send(data)

    def end(self):
        self._sender.close()


@asynccontextmanager
async def open_stream(server, *fields, **config):
    connector = HttpSseConnector(HttpSseUpstreamConfig(url=URL, **config), server)
    async with connector.open(fields) as stream:
        yield stream
