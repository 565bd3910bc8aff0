"""Clients on real sockets, as plain as can be."""

import json
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from shadowcat.testing import request


class Wire:
    """A client on a real socket, as plain as can be."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def send(self, method, message=None, headers=()):
        body = b"" if message is None else json.dumps(message).encode()
        fields = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        fields |= dict(headers) | {"Content-Length": len(body)}
        head = f"{method} /mcp HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        await self.stream.send_all(head.encode() + b"\r\n" + body)

    async def read_until(self, mark):
        while mark not in self.buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def answer(self):
        """Return status, headers and the body, if it has a length."""
        status, *lines = (await self.read_until(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            self.buffer += await self.stream.receive_some(65536)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(status.split()[1]), headers, body

    async def open_session(self, upstream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.answer_initialize)
            await self.send("POST", request(0, "initialize", protocolVersion="2025-11-25"))
            _, headers, _ = await self.answer()
        return {"Mcp-Session-Id": headers["mcp-session-id"]}


@asynccontextmanager
async def open_wires():
    """Yield what connects to a URL; all connections are closed at the end of the block."""
    async with AsyncExitStack() as stack:

        async def connect(url):
            host, port = url.removeprefix("http://").partition("/")[0].rsplit(":", 1)
            return Wire(await stack.enter_async_context(await trio.open_tcp_stream(host, int(port))))

        yield connect
