"""Serving clients whose messages share a pipe, as if each message came by HTTP.

The endpoint sees streamable HTTP, and nothing of the pipe; so whatever holds for
clients over HTTP holds for these.  What a client over HTTP does by itself is done
for it here: the session id is kept, a listening stream is opened, and an answer that was cut
is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs
import trio

from ..transport import MessageStream
from .config import EndpointConfig
from .drain import Drain
from .endpoint import McpEndpoint
from .limits import Limits
from .observers import Observers
from .pipe_call import PipeEndpointConfig, PipeRoom
from .pipe_client import PipeClient

_OF_EVERY_REQUEST = {
    b"accept": b"application/json, text/event-stream",
    b"content-type": b"application/json",
}

_KEPT = frozenset({b"accept-language", b"user-agent"})
"""Headers that a client on a pipe sends once, and that go upstream beside those that are named."""


class PipeEndpoint:
    """Serves clients on message streams."""

    def __init__(
        self,
        config: PipeEndpointConfig,
        endpoint_config: EndpointConfig,
        endpoint: McpEndpoint,
        drain: Drain,
        limits: Limits,
        observers: Observers,
    ) -> None:
        self._room = PipeRoom(config, endpoint, drain, observers)
        self._limits = limits
        self._config = endpoint_config

    async def serve(
        self,
        stream: MessageStream,
        headers: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        grace: float = 0.0,
    ) -> None:
        """Serve one client on *stream* until either side ends it, or the proxy shuts down.

        Whether the client may connect at all has been checked.  The stream stays the caller's to close.

        Args:
            headers: Those of the HTTP request that opened the stream, if there was one.
                Credentials among them go upstream if they may.
            grace: Seconds that calls have to finish after the client has sent its last message,
                on streams that still take answers then.

        Cancel safe; its session is ended in any case, which takes a few seconds at most.
        """
        forwarded = self._config.forward_headers | _KEPT
        fields = {name: value for name, value in headers.items() if name in forwarded} | _OF_EVERY_REQUEST
        room = attrs.evolve(self._room, peer=self._limits.client_of(stream.peer, headers))
        client: PipeClient | None = None
        try:
            async with trio.open_nursery() as nursery:
                client = PipeClient(room, stream, fields, nursery, self._config.max_json_depth, grace)
                nursery.start_soon(client.end_at_shutdown)
                await client.run()
        finally:
            if client is not None:
                await client.aclose()
