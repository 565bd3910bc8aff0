"""A server in the same process, which answers as the test tells it to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import trio

from ..errors import ShadowcatError
from ..protocol import SSEEvent, encode_event
from ..transport import Upstream, UpstreamRequest, UpstreamResponse
from .messages import result


class ScriptedUpstream(Upstream):
    """Hands each request to the test, which answers it when it likes.

    Requests wait until the test takes them, `hits` counts them at once.
    """

    def __init__(self) -> None:
        self.hits = 0
        self._sender, self._receiver = trio.open_memory_channel[UpstreamCall](1000)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Wait for the test to answer *request*."""
        self.hits += 1
        call = UpstreamCall(request)
        if request.on_sent is not None:
            request.on_sent()
        await self._sender.send(call)
        return await call.wait_answer()

    async def next_call(self) -> UpstreamCall:
        """Return the next request that arrives."""
        return await self._receiver.receive()

    async def answer_initialize(self, session_id: str = "upstream-1", version: str = "2025-11-25") -> UpstreamCall:
        """Answer the next request, which should be ``initialize``, and return it."""
        call = await self.next_call()
        call.answer(
            result(call.message["id"], protocolVersion=version, capabilities={}, serverInfo={"name": "scripted"}),
            headers={"mcp-session-id": session_id},
        )
        return call


class UpstreamCall:
    """One request that arrived at a `ScriptedUpstream`."""

    def __init__(self, request: UpstreamRequest) -> None:
        self.request = request
        self.cancelled = trio.Event()
        """Set when nobody waits for the answer, or for the rest of it, any more."""
        self._answered = trio.Event()
        self._response: UpstreamResponse | None = None
        self._error: ShadowcatError | None = None

    @property
    def message(self) -> Any:
        """The body as a JSON value."""
        return json.loads(self.request.body)

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name."""
        return {name.decode(): value.decode("latin-1") for name, value in self.request.headers}

    def answer(self, message: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with one JSON document."""
        self.respond(status, {"content-type": "application/json", **(headers or {})}, [json.dumps(message).encode()])

    def respond(self, status: int, headers: Mapping[str, str] | None = None, body: Sequence[bytes] = ()) -> None:
        """Answer with *body*, piece by piece."""
        self._respond(status, headers or {}, _Pieces(body))

    def fail(self, error: ShadowcatError) -> None:
        """Let the request fail, as a transport does."""
        self._error = error
        self._answered.set()

    def open_events(self, headers: Mapping[str, str] | None = None) -> EventSender:
        """Answer with an event stream, and return what sends the events."""
        sender, receiver = trio.open_memory_channel[bytes | ShadowcatError](0)
        self._respond(200, {"content-type": "text/event-stream", **(headers or {})}, _Received(receiver))
        return EventSender(sender)

    async def wait_answer(self) -> UpstreamResponse:
        """Wait for one of the above; for the upstream's own use."""
        try:
            await self._answered.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response

    def _respond(self, status: int, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> None:
        async def close() -> None:
            self.cancelled.set()
            if isinstance(body, _Received):
                body.close()
            await trio.lowlevel.cancel_shielded_checkpoint()

        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._response = UpstreamResponse(status, fields, body, close)
        self._answered.set()


class EventSender:
    """The server's end of an event stream.  Each send waits until it is read."""

    def __init__(self, sender: trio.MemorySendChannel[bytes | ShadowcatError]) -> None:
        self._sender = sender

    async def send(self, message: Any, id: str | None = None) -> None:
        """Send one JSON-RPC message as an event."""
        event = SSEEvent(json.dumps(message).encode(), b"message", None if id is None else id.encode())
        await self.send_bytes(encode_event(event))

    async def send_bytes(self, data: bytes) -> None:
        """Send *data* as it is.

        Raises:
            trio.BrokenResourceError: Nobody reads the stream any more.
        """
        await self._sender.send(data)

    async def cut(self, error: ShadowcatError) -> None:
        """Break the connection off."""
        await self._sender.send(error)
        self._sender.close()

    def end(self) -> None:
        """End the stream properly."""
        self._sender.close()


class _Pieces(AsyncIterator[bytes]):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = iter(pieces)

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class _Received(AsyncIterator[bytes]):
    def __init__(self, receiver: trio.MemoryReceiveChannel[bytes | ShadowcatError]) -> None:
        self._receiver = receiver

    async def __anext__(self) -> bytes:
        try:
            item = await self._receiver.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(item, ShadowcatError):
            raise item
        return item

    def close(self) -> None:
        self._receiver.close()
