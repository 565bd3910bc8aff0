"""The two endpoints of HTTP+SSE (2024-11-05): a stream for each client, and where its messages go."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

import attrs
import trio

from ..errors import (
    ConfigError,
    NotAcceptable,
    SessionLimitReached,
    SessionNotFound,
    SessionRequired,
    UnsupportedMediaType,
)
from ..protocol import Request, decode, media_type
from ..transport import Exchange, MessageStream
from ..transport.downstream import HttpSseClientStream, endpoint_uri
from .config import EndpointConfig

ServePipe = Callable[[MessageStream, Mapping[bytes, bytes]], Awaitable[None]]
"""Serves one client on a stream until either side ends it, or the proxy shuts down.

The mapping has the headers of the request that opened the stream."""

_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")


def _check_path(_instance: object, _attribute: object, value: str) -> None:
    if not _PATH.fullmatch(value) or value.startswith("//") or value in {"/health", "/ready"}:
        raise ConfigError(f"{value!r} cannot be a path of HTTP+SSE; choose one like /sse")


@attrs.frozen(kw_only=True)
class HttpSseConfig:
    """How clients are served over HTTP+SSE."""

    sse_path: str = attrs.field(default="/sse", validator=_check_path)
    """Where clients open their event stream."""

    messages_path: str = attrs.field(default="/messages", validator=_check_path)
    """Where clients send their messages, with what their stream tells them behind it."""

    max_sessions: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Streams open at once; 503 for more."""

    accept_timeout: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Seconds that a message may wait for those before it; then 503.

    The Python SDK's client waits for five, and then sends nothing more."""

    @messages_path.validator
    def _check_messages_path(self, _: object, value: str) -> None:
        if value == self.sse_path:
            raise ConfigError(f"{value!r} is where the event stream is; choose another path for messages")


class HttpSseEndpoint:
    """Answers GET at the one path and POST at the other.

    Args:
        config: Where and how many.
        endpoint_config: What holds for messages at the MCP endpoint holds here.
        serve_pipe: Serves each client.
    """

    def __init__(self, config: HttpSseConfig, endpoint_config: EndpointConfig, serve_pipe: ServePipe) -> None:
        self.config = config
        self._endpoint_config = endpoint_config
        self._serve_pipe = serve_pipe
        self._streams: dict[str, HttpSseClientStream] = {}

    @property
    def open_sessions(self) -> int:
        """How many streams are open now."""
        return len(self._streams)

    async def get(self, exchange: Exchange) -> None:
        """Serve one client, until it leaves or is let go.

        Cancel safe; the stream is then cut, and the session ended.
        """
        accept = exchange.headers.get(b"accept", b"*/*")
        if b"text/event-stream" not in accept and b"*/*" not in accept:
            raise NotAcceptable("send GET with Accept: text/event-stream")
        if len(self._streams) >= self.config.max_sessions:
            raise SessionLimitReached(f"{len(self._streams)} event streams are open; try again in a few seconds")
        session_id = secrets.token_urlsafe(24)
        stream = HttpSseClientStream(self._endpoint_config.heartbeat_interval)
        stream.peer = exchange.peer
        self._streams[session_id] = stream
        try:
            async with trio.open_nursery() as nursery:
                uri = endpoint_uri(exchange.root_path, self.config.messages_path, session_id)
                nursery.start_soon(stream.run, exchange, uri)
                await self._serve_pipe(stream, exchange.headers)
                await stream.finish()
                nursery.cancel_scope.cancel()
        finally:
            del self._streams[session_id]
            stream.close()

    async def post(self, exchange: Exchange) -> None:
        """Take one message of a client.  The answer to it comes on the stream."""
        stream = self._find(exchange.query)
        if media_type(exchange.headers.get(b"content-type", b"").decode("latin-1")) != "application/json":
            raise UnsupportedMediaType("send the message with Content-Type: application/json")
        if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMediaType("send the message without Content-Encoding")
        config = self._endpoint_config
        body = await exchange.read_body(config.max_body_size, config.body_timeout)
        message = decode(body, max_depth=config.max_json_depth)
        if isinstance(message, Request):
            exchange.request_id = message.id
        await stream.accept(body, self.config.accept_timeout)
        await exchange.respond(202, [(b"content-type", b"text/plain")], b"Accepted")

    def _find(self, query: bytes) -> HttpSseClientStream:
        ids = parse_qs(query.decode("latin-1")).get("session_id", [])
        where = f"open a stream with GET {self.config.sse_path}, and send messages where its first event says"
        if len(ids) != 1:
            raise SessionRequired(f"the query names no session_id, or several; {where}")
        try:
            return self._streams[ids[0]]
        except KeyError:
            raise SessionNotFound(f"there is no stream with this session_id, or it has ended; {where}") from None
