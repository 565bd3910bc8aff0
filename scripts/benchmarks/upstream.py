"""The server behind the proxies, and the clients of its event streams.

Calls are answered at once.  A call of the tool ``events`` is answered with a
stream, on which an event is sent when the one before has arrived at the client:
every event is one read and one write for what is in between, however fast that
is.  Or, if the window is larger than 1, so many may be under way, and what is in
between can take several at once.  To know when, client and server are one process.

Prints its port.  Each line read after that is ``{"url", "session_id", "streams",
"window", "seconds"}``; it is answered with three lines: when every stream flows, how many
events arrived in how many seconds after that, and when all streams have ended.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import httptools
import trio
from messages import events_call

_ID = re.compile(rb'"id": ?("[^"]*"|[^,}"]+)')
_STREAM = re.compile(rb'"stream": ?([0-9]+)')
_INITIALIZED = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"bench","version":"1"}}'
_RESULT = b'{"content":[],"isError":false}'
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
_SESSION = b"Mcp-Session-Id: bench-session\r\n"
_NOTHING = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":%d}}'


class Flow:
    """One event stream, of which this process holds both ends."""

    def __init__(self, window: int) -> None:
        self.room = trio.Semaphore(window)
        self.is_over = False


class Inbound:
    """The requests on one connection, as httptools reports them."""

    def __init__(self) -> None:
        self.body = b""
        self.complete: list[bytes] = []

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete.append(self.body)


def answer(body: bytes) -> bytes:
    """Return the whole answer to a message."""
    found = _ID.search(body)
    if found is None:
        return _NOTHING
    is_opening = b'"initialize"' in body
    result = _INITIALIZED if is_opening else _RESULT
    text = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (found[1], result)
    return _JSON % (_SESSION if is_opening else b"", len(text), text)


class Server:
    """What the proxies have as their upstream."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer one connection until it ends."""
        inbound = Inbound()
        parser = httptools.HttpRequestParser(inbound)
        async with stream:
            try:
                while data := await stream.receive_some(65536):
                    parser.feed_data(data)
                    while inbound.complete:
                        body = inbound.complete.pop(0)
                        if b'"events"' in body:
                            await self._send_events(stream, body)
                        else:
                            await stream.send_all(answer(body))
            except trio.BrokenResourceError:
                return

    async def _send_events(self, stream: trio.SocketStream, body: bytes) -> None:
        found, wanted = _ID.search(body), _STREAM.search(body)
        assert found
        assert wanted
        flow = self.flows[int(wanted[1])]
        await stream.send_all(_EVENTS)
        sent = 0
        while True:
            await flow.room.acquire()
            if flow.is_over:
                break
            sent += 1
            await stream.send_all(_chunk(_PROGRESS % sent, sent))
        last = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (found[1], _RESULT)
        await stream.send_all(_chunk(last, sent + 1) + b"0\r\n\r\n")

    async def measure(self, url: str, session_id: str, streams: int, window: int, seconds: float) -> None:
        """Open streams through *url* and count what arrives for *seconds*."""
        self.flows = [Flow(window) for _ in range(streams)]
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            readers = []
            for number, flow in enumerate(self.flows):
                stream = await stack.enter_async_context(await trio.open_tcp_stream(parts.hostname, parts.port))
                await stream.send_all(_request(parts.path, *events_call(session_id, number)))
                readers.append(Reader(stream, flow))
                await readers[-1].read()
                nursery.start_soon(readers[-1].run)
            _report(flowing=True)
            before, start = sum(reader.events for reader in readers), trio.current_time()
            await trio.sleep(seconds)
            events = sum(reader.events for reader in readers) - before
            _report(events=events, seconds=trio.current_time() - start)
            for flow in self.flows:
                flow.is_over = True
        _report(ended=True)


class Reader:
    """The client of one stream."""

    def __init__(self, stream: trio.SocketStream, flow: Flow) -> None:
        self.events = 0
        self._stream = stream
        self._flow = flow
        self._tail = b""

    async def run(self) -> None:
        """Read to the end of the stream."""
        while not self._tail.endswith(b"0\r\n\r\n"):
            await self.read()

    async def read(self) -> None:
        """Read until something of an event has come; let the server send the next."""
        arrived = 0
        while not arrived and not self._tail.endswith(b"0\r\n\r\n"):
            data = await self._stream.receive_some(65536)
            if not data:
                raise SystemExit("an event stream was cut")
            arrived = (self._tail[-2:] + data).count(b"}\n\n")  # not an event without data
            if self._tail == b"" and not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"no event stream: {data[:400]!r}")
            self._tail = (self._tail + data)[-5:]
        self.events += arrived
        for _ in range(arrived):
            self._flow.room.release()


def _chunk(data: bytes, number: int) -> bytes:
    event = b"event: message\nid: bench-%d\ndata: %b\n\n" % (number, data)
    return b"%x\r\n%b\r\n" % (len(event), event)


def _request(path: str, headers: dict[str, str], body: str) -> bytes:
    fields = {"Host": "localhost", **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


def _report(**values: object) -> None:
    print(json.dumps(values), flush=True)


async def main() -> None:
    """Serve, and measure when told to, until standard input ends."""
    server = Server()
    async with trio.open_nursery() as nursery:
        serve = trio.serve_tcp
        listeners = await nursery.start(serve, server.handle, 0)
        _report(port=listeners[0].socket.getsockname()[1])
        async with trio.lowlevel.FdStream(os.dup(0)) as orders:
            async for line in orders:
                await server.measure(**json.loads(line))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
