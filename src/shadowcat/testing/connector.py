"""A server on a pipe in the same process, which says what the test tells it to."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..errors import MessageTooLong, ShadowcatError, StreamBroken, UpstreamUnavailable
from ..transport import Connector, MessageStream, RawHeaders
from .messages import result


class ScriptedStream(MessageStream):
    """A message stream of which the test is the server."""

    def __init__(self, headers: RawHeaders = ()) -> None:
        self.headers = headers
        """With which it was opened."""
        self.closed = trio.Event()
        """Set when its block has been left."""
        self.stalled: trio.Event | None = None
        """If set to an event, the server does not read before that is set."""
        self._reason = ""
        self._to_server, self._received = trio.open_memory_channel[bytes](10_000)
        self._to_client, self._sent = trio.open_memory_channel[bytes | ShadowcatError](0)

    async def send(self, message: bytes) -> None:
        """Take a message for the test; see `MessageStream.send`."""
        await trio.lowlevel.checkpoint()
        if self.stalled is not None:
            await self.stalled.wait()
        try:
            await self._to_server.send(message)
        except trio.BrokenResourceError:
            raise StreamBroken("nobody reads at the other end any more") from None

    async def receive(self) -> bytes:
        """Return what the test says next; see `MessageStream.receive`."""
        try:
            item = await self._sent.receive()
        except trio.EndOfChannel:
            raise StreamBroken(self._reason) from None
        if isinstance(item, ShadowcatError):
            raise item
        return item

    async def next_text(self) -> bytes:
        """Return the next message that was sent to the server, as it was sent."""
        return await self._received.receive()

    async def next_message(self) -> Any:
        """Return the next message that was sent to the server."""
        return json.loads(await self.next_text())

    async def say(self, message: Any) -> None:
        """Say *message*, bytes as they are, anything else as JSON; return when it has been read."""
        await self._to_client.send(message if isinstance(message, bytes) else json.dumps(message).encode())

    async def answer(self, **members: Any) -> Any:
        """Answer the next request with a result that has these members, and return the request."""
        message = await self.next_message()
        await self.say(result(message["id"], **members))
        return message

    async def answer_initialize(self, version: str = "2025-11-25", **capabilities: Any) -> Any:
        """Answer the next message, which should be ``initialize``, and return it."""
        return await self.answer(
            protocolVersion=version, capabilities=capabilities, serverInfo={"name": "scripted", "version": "1"}
        )

    async def overflow(self, text: str = "a message was longer than 10 bytes") -> None:
        """Say something that is too long."""
        await self._to_client.send(MessageTooLong(text))

    def stop(self, reason: str = "the server process exited with status 1") -> None:
        """Break the stream, for *reason*."""
        self._reason = reason
        self._received.close()
        self._to_client.close()


class ScriptedConnector(Connector):
    """Hands each stream that is opened to the test, which plays the server.

    Streams wait until the test takes them.

    Args:
        takes_headers: As `Connector.takes_headers`.
    """

    def __init__(self, *, takes_headers: bool = False) -> None:
        self.takes_headers = takes_headers
        self.opened = 0
        """How often it was tried."""
        self.open_now = 0
        """Streams whose block has not been left."""
        self.failure: UpstreamUnavailable | None = None
        """If set, nothing can be opened, for this reason."""
        self.open_delay = 0.0
        """Seconds that it takes to open a stream."""
        self.close_delay = 0.0
        """Seconds that it takes to leave the block, also when cancelled."""
        self._sender, self._receiver = trio.open_memory_channel[ScriptedStream](10_000)

    @asynccontextmanager
    async def open(self, headers: RawHeaders) -> AsyncGenerator[ScriptedStream, None]:
        """Open a stream; see `Connector.open`."""
        self.opened += 1
        await trio.sleep(self.open_delay)
        if self.failure is not None:
            raise self.failure
        stream = ScriptedStream(headers)
        self._sender.send_nowait(stream)
        self.open_now += 1
        try:
            yield stream
        finally:
            with trio.CancelScope(deadline=trio.current_time() + self.close_delay + 1, shield=True):
                await trio.sleep(self.close_delay)
            self.open_now -= 1
            stream.closed.set()

    async def next_stream(self) -> ScriptedStream:
        """Return the next stream that is opened."""
        return await self._receiver.receive()
