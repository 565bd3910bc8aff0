"""One HTTP/1.1 request on a connection of its own, its answer read as it comes, and events cut from bytes.

Nothing here is shared with the proxy under test.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping

import attrs
import trio

SILENCE = 25.0
"""Seconds without a byte after which a connection counts as broken; the proxy says something every 15."""


class Unreachable(Exception):
    """No connection could be made: nothing was sent."""


class Broken(Exception):
    """The connection ended before the answer did."""


class Body:
    """Takes the framing from the body of an answer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._is_chunked = headers.get("transfer-encoding") == "chunked"
        self._left: int | None = None if self._is_chunked else int(headers.get("content-length", 0))
        self._buffer = bytearray()
        self.is_over = self._left == 0

    def feed(self, data: bytes) -> bytes:
        """Return what *data* holds of the body."""
        self._buffer += data
        pieces = []
        while not self.is_over and (piece := self._take()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    def _take(self) -> bytes | None:
        """Take one step; None if there is not enough for it."""
        if self._left is None:
            size, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return None
            self._left = int(size, 16)
            self._buffer = rest
            self.is_over = self._left == 0
        if self._left:
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._left -= len(piece)
            self.is_over = not self._is_chunked and self._left == 0
            return piece or None
        if len(self._buffer) < 2:
            return None
        del self._buffer[:2]
        self._left = None
        return b""


class Reply:
    """The answer to one request."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._first = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._body = Body({})

    async def begin(self, request: bytes) -> None:
        """Send the request and read the head of its answer."""
        try:
            await self._stream.send_all(request)
        except trio.BrokenResourceError as exc:
            raise Broken from exc
        received = b""
        while b"\r\n\r\n" not in received:
            received += await self._receive()
        head, _, rest = received.partition(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(start.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._body = Body(self.headers)
        self._first = self._body.feed(rest)

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def receive(self) -> bytes:
        """Return some of the body; nothing once it has ended.

        Raises:
            Broken: It will not come to its end.
        """
        piece, self._first = self._first, b""
        while not piece and not self._body.is_over:
            piece = self._body.feed(await self._receive())
        return piece

    async def text(self) -> bytes:
        """Return the rest of the body."""
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    async def json(self):
        return json.loads(await self.text())

    async def _receive(self) -> bytes:
        try:
            with trio.fail_after(SILENCE):
                data = await self._stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            raise Broken from exc
        if not data:
            raise Broken
        return bytes(data)


@contextlib.asynccontextmanager
async def ask(method: str, url: str, message=None, **headers: str | None) -> AsyncGenerator[Reply, None]:
    """Send a request and yield its answer once its head has come; a header that is None is not sent.

    Raises:
        Unreachable: It was not sent.
        Broken: It was, or a part of it, and no answer began.
    """
    authority, _, path = url.removeprefix("http://").partition("/")
    host, port = authority.split(":")
    body = b"" if message is None else json.dumps(message).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    if body:
        fields |= {"content-type": "application/json", "content-length": str(len(body))}
    lines = [f"{method} /{path} HTTP/1.1", f"host: {authority}", *(f"{name}: {fields[name]}" for name in fields)]
    try:
        stream = await trio.open_tcp_stream(host, int(port))
    except OSError as exc:
        raise Unreachable from exc
    async with stream:
        reply = Reply(stream)
        await reply.begin("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        yield reply


@attrs.frozen
class Event:
    id: str | None
    data: bytes
    retry: float | None
    """Seconds."""


class EventCutter:
    """Cuts bytes into events, with lines ended by LF; what is not complete is no event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    event_id, retry, data = None, None, []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"id":
            event_id = value.decode()
        elif name == b"retry":
            retry = int(value) / 1000
    if event_id is None and retry is None and not data:
        return None
    return Event(event_id, b"\n".join(data), retry)
