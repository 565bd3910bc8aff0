"""A client on a pipe before the whole proxy, and the scripted server behind it."""

import json
from contextlib import asynccontextmanager

import attrs
import trio

from shadowcat.errors import MessageTooLong, StreamBroken
from shadowcat.proxy import ReverseProxyApp
from shadowcat.testing import ProxyKit, ScriptedUpstream, notification, open_proxy_kit, request
from shadowcat.transport import MessageStream


class MemoryStream(MessageStream):
    """One side of a pipe in memory."""

    def __init__(self, incoming, outgoing):
        self._incoming = incoming
        self._outgoing = outgoing

    async def send(self, message):
        try:
            await self._outgoing.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken("nobody reads any more") from error

    async def receive(self):
        try:
            message = await self._incoming.receive()
        except trio.EndOfChannel:
            raise StreamBroken("the stream has ended") from None
        if message is None:
            raise MessageTooLong("a message was longer than 7 bytes")
        return message


class PipePeer:
    """The client's side.  `None` sent stands for a message that is too long."""

    def __init__(self, room):
        self.sender, incoming = trio.open_memory_channel(1000)
        outgoing, self.receiver = trio.open_memory_channel(room)
        self.stream = MemoryStream(incoming, outgoing)
        self.ended = trio.Event()

    async def send(self, message):
        body = message if message is None or isinstance(message, bytes) else json.dumps(message).encode()
        await self.sender.send(body)

    async def receive(self):
        return json.loads(await self.receiver.receive())

    async def call(self, message):
        await self.send(message)
        return await self.receive()

    async def is_silent(self, seconds=1.0):
        """Whether nothing comes within *seconds*."""
        with trio.move_on_after(seconds):
            await self.receiver.receive()
            return False
        return True


@attrs.frozen
class PipeKit:
    peer: PipePeer
    upstream: ScriptedUpstream
    app: ReverseProxyApp
    nursery: trio.Nursery
    proxy: ProxyKit

    async def initialize(self, version="2025-11-25", session_id="upstream-1", listens=False):
        """Go through the handshake; return the listening request as the server sees it, or refuse it with 405."""
        await self.peer.send(initialize(version))
        call = await self.upstream.answer_initialize(session_id, version)
        assert (await self.peer.receive())["result"]["protocolVersion"] == version
        await self.peer.send(notification("notifications/initialized"))
        (await self.upstream.next_call()).respond(202)
        listening = await self.upstream.next_call()
        assert listening.request.method == "GET"
        if listens:
            return listening
        listening.respond(405)
        return call

    async def start(self, message):
        """Send *message* and return the server's side of it."""
        await self.peer.send(message)
        return await self.upstream.next_call()


def initialize(version="2025-11-25", id=0):
    return request(
        id, "initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "piped", "version": "1"}
    )


@asynccontextmanager
async def open_pipe_kit(config=None, *, headers=None, grace=0.0, room=1000, patience=3600):
    """Serve a client on a pipe for as long as the block lasts."""
    peer = PipePeer(room)
    with trio.fail_after(patience):
        async with open_proxy_kit(config) as proxy:

            async def serve():
                await proxy.app.serve_pipe(peer.stream, headers or {}, grace=grace)
                peer.ended.set()

            proxy.nursery.start_soon(serve)
            yield PipeKit(peer, proxy.upstream, proxy.app, proxy.nursery, proxy)
