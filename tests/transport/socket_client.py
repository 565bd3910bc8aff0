"""A client on a WebSocket, played as an ASGI server shows it."""

from __future__ import annotations

from math import inf

import trio

REFUSABLE = {"websocket.http.response": {}}


class SocketClient:
    """What the app receives is told by the test; what it sends is kept."""

    def __init__(self, path="/ws", headers=(), subprotocols=("mcp",), extensions=REFUSABLE):
        self.scope = {
            "type": "websocket",
            "path": path,
            "headers": [(b"host", b"localhost"), *headers],
            "subprotocols": list(subprotocols),
            "extensions": extensions,
        }
        self.sent: list = []
        self.is_stalled = False
        self._to_app, self._events = trio.open_memory_channel[dict](inf)
        self._from_app, self._sent = trio.open_memory_channel[dict](inf)
        self._to_app.send_nowait({"type": "websocket.connect"})

    async def receive(self):
        return await self._events.receive()

    async def send(self, event):
        await trio.lowlevel.checkpoint()
        if self.is_stalled:
            await trio.sleep_forever()
        self.sent.append(event)
        self._from_app.send_nowait(event)

    async def next(self):
        """Return the next event that the app sends."""
        return await self._sent.receive()

    async def next_text(self):
        return (await self.next())["text"]

    def text(self, text):
        self._to_app.send_nowait({"type": "websocket.receive", "text": text, "bytes": None})

    def binary(self, data):
        self._to_app.send_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self, **end):
        self._to_app.send_nowait({"type": "websocket.disconnect", **end})

    @property
    def closed(self):
        """Code and reason of the one close."""
        (event,) = [event for event in self.sent if event["type"] == "websocket.close"]
        return event["code"], event["reason"]
