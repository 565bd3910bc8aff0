"""Events kept in memory, so that a client can resume an SSE stream of the fixture."""

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage


class EventLog(EventStore):
    """Every event of every stream, in order; the id of an event is its place in the log."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        seen = int(last_event_id)
        stream_id, _ = self._events[seen]
        for place, (stream, message) in enumerate(list(self._events)):
            # A priming event has no message, and there is nothing in it to repeat.
            if place > seen and stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream_id
