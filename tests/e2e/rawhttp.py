"""HTTP/1.1 by hand: what a test needs when it must see every byte."""

import json
from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.frozen
class RawMessage:
    """The head of a request or an answer, and its body if it has a length."""

    start: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class RawConnection:
    """A stream on which messages are read and written."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def read_message(self) -> RawMessage | None:
        """Return the next message; None if the peer has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._receive():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            assert await self._receive(), "the peer closed within a body"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return RawMessage(start, headers, body)

    async def _receive(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._buffer += data
        return bool(data)

    async def request(self, method: str, path: str, message=None, **headers: str) -> RawMessage:
        """Send a request and return its answer."""
        await self.send_request(method, path, message, **headers)
        answer = await self.read_message()
        assert answer is not None
        return answer

    async def send_request(self, method: str, path: str, message=None, **headers: str) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        fields = {
            "host": "localhost",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **{name.replace("_", "-"): value for name, value in headers.items()},
            "content-length": str(len(body)),
        }
        await self._send(f"{method} {path} HTTP/1.1", fields, body)

    async def answer(self, message, status: str = "200 OK", **headers: str) -> None:
        """Answer with a JSON document; without a body if *message* is None."""
        body = b"" if message is None else json.dumps(message).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields |= {"content-type": "application/json", "content-length": str(len(body))}
        await self._send(f"HTTP/1.1 {status}", fields, body)

    async def _send(self, start: str, fields: dict[str, str], body: bytes) -> None:
        head = start + "\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        await self.stream.send_all(head.encode("latin-1") + body)


async def serve_raw(nursery: trio.Nursery, handler: Callable[[RawConnection], Awaitable[None]]) -> str:
    """Serve *handler* on a free port and return the URL of /mcp there."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await handler(RawConnection(stream))
            except trio.BrokenResourceError:
                return

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handle, listeners)
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp"


async def open_raw(url: str) -> RawConnection:
    """Connect to the server of *url*."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    return RawConnection(await trio.open_tcp_stream(host, int(port)))
