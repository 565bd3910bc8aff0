"""The MCP endpoint: streamable HTTP in, streamable HTTP out, in both eras."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from ..errors import (
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
)
from ..protocol import (
    SUBSCRIPTIONS_LISTEN,
    TOOLS_CALL,
    TOOLS_LIST,
    Batch,
    Initialize,
    LegacyMessage,
    Message,
    ModernMessage,
    Request,
    classify,
    decode,
    is_modern,
    media_type,
    upstream_headers,
)
from ..transport import Exchange, Upstream, UpstreamRequest, UpstreamResponse
from .admission import admit
from .attendance import Attendance
from .config import EndpointConfig
from .drain import Drain, abandoned_error
from .legacy import LegacyEndpoint
from .limits import Limits
from .mirror import MirroredTools
from .opening import is_accepted
from .relay import AnswerRelay

log = logging.getLogger(__name__)


class McpEndpoint:
    """Answers POST, GET and DELETE at the MCP endpoint."""

    def __init__(
        self,
        name: str,
        config: EndpointConfig,
        upstream: Upstream,
        legacy: LegacyEndpoint,
        drain: Drain,
        attendance: Attendance,
        limits: Limits,
    ) -> None:
        self._name = name
        self._attendance = attendance
        self._limits = limits
        self._config = config
        self._upstream = upstream
        self._legacy = legacy
        self._drain = drain
        self.mirrored = MirroredTools(config.forward_headers)

    async def post(self, exchange: Exchange) -> None:
        """Relay one message (or, in 2025-03-26, a batch)."""
        if media_type(exchange.headers.get(b"content-type", b"").decode("latin-1")) != "application/json":
            raise UnsupportedMediaType("send the message with Content-Type: application/json")
        if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMediaType("send the message without Content-Encoding")
        body = await exchange.read_body(self._config.max_body_size, self._config.body_timeout)
        await self.serve(exchange, body, decode(body, max_depth=self._config.max_json_depth))

    async def serve(self, exchange: Exchange, body: bytes, message: Message | Batch) -> None:
        """Relay *message*, whose text is *body*."""
        if isinstance(message, Request):
            exchange.request_id = message.id
        if exchange.record is not None:
            exchange.headers = exchange.record.note_message(self._name, exchange.headers, message, len(body))
        if self._limits.is_active:
            await admit(self._limits, exchange, body, message, self._legacy.post)
        match classify(exchange.headers, message):
            case Initialize(request):
                await self._legacy.initialize(exchange, body, request)
            case LegacyMessage(message):
                await self._legacy.post(exchange, body, message)
            case ModernMessage(message):
                await self._relay_modern(exchange, body, message)

    async def get(self, exchange: Exchange) -> None:
        """Open a listening stream, or resume any stream, in a legacy session."""
        if is_modern(exchange.headers):
            raise MethodNotAllowed("this protocol version has no GET; use subscriptions/listen", "POST")
        accept = exchange.headers.get(b"accept", b"")
        if b"text/event-stream" not in accept and b"*/*" not in accept:
            raise NotAcceptable("send GET with Accept: text/event-stream")
        await self._legacy.get(exchange)

    async def delete(self, exchange: Exchange) -> None:
        """End a legacy session, here and upstream."""
        if is_modern(exchange.headers):
            raise MethodNotAllowed("this protocol version has no sessions to end", "POST")
        await self._legacy.delete(exchange)

    async def _relay_modern(self, exchange: Exchange, body: bytes, message: Message) -> None:
        """Relay a message that stands for itself.  The client's leaving cancels it."""
        relay = AnswerRelay(exchange, self._attendance, self._config.heartbeat_interval)
        is_listening = False
        if isinstance(message, Request):
            is_listening = message.method == SUBSCRIPTIONS_LISTEN
            if is_listening:
                relay.farewell = _subscription_end(message)
            else:
                relay.request_id = message.id
            if message.method == TOOLS_LIST:
                relay.on_response = partial(self.mirrored.learn, exchange.headers)
            elif message.method == TOOLS_CALL:
                self.mirrored.check(exchange.headers, message)

        async def serve() -> None:
            async with self._send(exchange, body, is_call=isinstance(message, Request) and not is_listening) as answer:
                if is_accepted(message, answer):
                    await exchange.respond(202, [])
                else:
                    await relay.relay(answer)

        with self._drain.listen() if is_listening else self._drain.call() as scope:
            await relay.attend(serve)
        if scope.cancelled_caught:
            await relay.part(abandoned_error())

    @asynccontextmanager
    async def _send(self, exchange: Exchange, body: bytes, *, is_call: bool) -> AsyncGenerator[UpstreamResponse, None]:
        """Send a client's request on, once, and give the answer up at the end of the block."""
        headers = upstream_headers(exchange.headers, self._config.forward_headers)
        exchange.hand_over()
        answer = await self._upstream.send(UpstreamRequest("POST", headers, body, exchange.on_sent, is_call))
        try:
            yield answer
        finally:
            await answer.aclose()


def _subscription_end(request: Request) -> bytes:
    """Return the result that ends a subscription gracefully (2026-07-28, Subscriptions)."""
    meta = b'{"io.modelcontextprotocol/subscriptionId":%s}' % request.id
    return b'{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","_meta":%s}}' % (request.id, meta)
