"""What the conversations in this folder begin with."""

import contextlib
import json

import trio

from shadowcat.testing import ProxyClient


async def open_session(kit, version="2025-11-25"):
    kit.nursery.start_soon(kit.upstream.answer_initialize, "upstream-1", version)
    response = await kit.client.initialize(version)
    assert response.status == 200
    await response.read()
    return response


async def start_post(kit, message, client=None, headers=None):
    """Send *message* and return the upstream's side and a function that waits for the client's."""
    pending = Pending()
    kit.nursery.start_soon(pending.run, (client or kit.client).post, message, headers)
    return await kit.upstream.next_call(), pending


class Pending:
    """The result of a call under way; awaited as often as one likes."""

    def __init__(self):
        self._done = trio.Event()

    async def run(self, fn, *args):
        self._value = await fn(*args)
        self._done.set()

    async def __call__(self):
        await self._done.wait()
        return self._value


class Follower:
    """A client that receives one stream after another, and keeps what came."""

    def __init__(self, response):
        self.response = response
        self.cursor = None
        self.messages = []

    async def next(self):
        """Return the next message, and remember where it stood."""
        while True:
            event = await self.response.next_event()
            if event.id is not None:
                self.cursor = event.id.decode()
            if event.data:
                self.messages.append(json.loads(event.data))
                return self.messages[-1]

    async def rest(self):
        """Return all messages up to the end of the stream."""
        found = []
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                found.append(await self.next())
        return found

    async def prime(self):
        """Take the first event, which has an id and no data."""
        event = await self.response.next_event()
        assert event.data == b""
        self.cursor = event.id.decode()

    async def resume(self, client):
        """Leave, and come back with what was seen last."""
        self.response.leave()
        self.response = await client.listen(self.cursor)
        return self.response


async def start_listen(kit, client=None):
    """Open a listening stream; return the upstream's side and the client's."""
    pending = Pending()
    kit.nursery.start_soon(pending.run, (client or kit.client).listen)
    call = await kit.upstream.next_call()
    assert call.request.method == "GET"
    return call, pending


async def start_stream(kit, request_id=1, client=None):
    """Make a call that is answered by an event stream; return the upstream's side and the client's."""
    message = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": {"name": "slow"}}
    call, response = await start_post(kit, message, client)
    events = call.open_events()
    follower = Follower(await response())
    await follower.prime()
    return events, follower


def move(client, kit, app=None):
    """Return a client of the proxy of *kit* in the session of *client*."""
    moved = ProxyClient(app or kit.app, kit.nursery)
    moved.session_id, moved.protocol_version = client.session_id, client.protocol_version
    return moved
