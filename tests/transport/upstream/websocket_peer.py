"""The other end of a WebSocket, event by event."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import trio
import wsproto
from trio.testing import memory_stream_pair
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

from shadowcat.transport.upstream.websocket_link import LinkLimits, open_link

LIMITS = LinkLimits(max_message_size=1000, ping_interval=20.0, ping_timeout=10.0)


class Peer:
    """Speaks wsproto's events over *stream*; does nothing of its own accord."""

    def __init__(self, stream):
        self.stream = stream
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self._events = self.protocol.events()

    async def next(self):
        """Return the next event; None at the end of the stream."""
        while True:
            for event in self._events:
                return event
            data = await self.stream.receive_some()
            if not data:
                return None
            self.protocol.receive_data(bytes(data))
            self._events = self.protocol.events()

    async def expect(self, kind):
        event = await self.next()
        assert isinstance(event, kind), event
        return event

    async def send(self, event):
        await self.stream.send_all(self.protocol.send(event))

    async def accept(self, subprotocol="mcp"):
        """Agree to the handshake and return it."""
        request = await self.expect(Request)
        await self.send(AcceptConnection(subprotocol=subprotocol))
        return request

    async def text(self, text, **kwargs):
        await self.send(TextMessage(data=text, **kwargs))

    async def binary(self, data):
        await self.send(BytesMessage(data=data))

    async def close(self, code=1000, reason=None):
        await self.send(CloseConnection(code=code, reason=reason))

    async def ping(self):
        await self.send(Ping(payload=b"?"))

    async def receive_text(self):
        """Return the next message, put together."""
        parts = []
        while True:
            event = await self.expect(TextMessage)
            parts.append(event.data)
            if event.message_finished:
                return "".join(parts)

    async def part(self):
        """Answer the close that comes next and return it; then hang up."""
        event = await self.expect(CloseConnection)
        await self.send(event.response())
        await self.stream.aclose()
        return event


@attrs.define
class Meeting:
    """A link and its peer, made and ended together."""

    link: object
    peer: Peer
    farewell: object = None
    """What the peer got at the end, if it said goodbye."""


async def play(peer, *acts):
    for act in acts:
        await act()


@asynccontextmanager
async def meet(*, limits=None, pair=memory_stream_pair, headers=(), subprotocol="mcp", parts=True, **changes):
    """Yield a `Meeting`; with *parts*, the peer answers the goodbye."""
    near, far = pair()
    peer = Peer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept, subprotocol)
        link = open_link(
            near, "host:1", "/ws?a=b", headers, attrs.evolve(limits or LIMITS, **changes), trio.current_time() + 5
        )
        meeting = Meeting(None, peer)

        async def say_goodbye():
            meeting.farewell = await peer.part()

        try:
            async with link as meeting.link:
                yield meeting
                if parts:
                    nursery.start_soon(say_goodbye)
        finally:
            await trio.aclose_forcefully(near)
