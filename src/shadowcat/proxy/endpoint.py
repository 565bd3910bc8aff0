"""The MCP endpoint: streamable HTTP in, streamable HTTP out, in both eras."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import attrs
import trio

from ..errors import (
    ConfigError,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    RemoteProtocolError,
    SessionNotFound,
    SessionRequired,
    UnsupportedMediaType,
    UpstreamError,
    UpstreamTimeout,
)
from ..protocol import (
    BATCH_VERSION,
    CANCELLED,
    LAST_EVENT_ID,
    LEGACY_VERSIONS,
    SESSION_ID,
    SUBSCRIPTIONS_LISTEN,
    TOOLS_CALL,
    TOOLS_LIST,
    Batch,
    Initialize,
    LegacyMessage,
    Message,
    ModernMessage,
    Notification,
    Request,
    Response,
    cancelled_id,
    classify,
    decode,
    is_modern,
    media_type,
    read_value,
    replace_cancelled_id,
    replace_id,
    upstream_headers,
)
from ..session import Session, SessionManager, UpstreamSessionId, parse_session_id
from ..transport import Exchange, Upstream, UpstreamRequest, UpstreamResponse
from .drain import Drain, abandoned_error
from .mirror import MirroredTools
from .opening import hold_opening
from .relay import AnswerRelay
from .restore import IdRestorer

log = logging.getLogger(__name__)

_NO_SUCH_SESSION = "no such session; send initialize, without Mcp-Session-Id, to open another"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_NEVER_FORWARDED = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        LAST_EVENT_ID,
        SESSION_ID,
    }
)

_END_UPSTREAM_TIMEOUT = 5.0
"""Seconds the upstream has to end a session that is already ended here."""


def _field_names(names: Iterable[str]) -> frozenset[bytes]:
    if isinstance(names, str):
        raise ConfigError(f"{names!r} is one header where several are meant; write [{names!r}]")
    if wrong := [name for name in names if not _TOKEN.fullmatch(name.strip())]:
        raise ConfigError(f"{wrong[0]!r} is no header name; write for example Authorization")
    fields = frozenset(name.strip().lower().encode("latin-1") for name in names)
    if refused := fields & _NEVER_FORWARDED:
        raise ConfigError(f"{min(refused).decode()} cannot be forwarded; it belongs to one connection or session")
    return fields


@attrs.frozen(kw_only=True)
class EndpointConfig:
    """How requests to the MCP endpoint are treated."""

    max_body_size: int = attrs.field(default=4 * 1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of a request body; a longer one is answered with 413."""

    max_json_depth: int = attrs.field(default=128, validator=attrs.validators.ge(1))
    """How deep arrays and objects of a request body may be nested."""

    body_timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds a client has to send its request body."""

    initialize_timeout: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Seconds the upstream has to finish its answer to ``initialize`` once it has begun it."""

    heartbeat_interval: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """Seconds of silence on an event stream after which a comment is sent."""

    forward_headers: frozenset[bytes] = attrs.field(default=(), converter=_field_names)
    """Request headers that go upstream beside the usual: the only way for credentials."""


class McpEndpoint:
    """Answers POST, GET and DELETE at the MCP endpoint."""

    def __init__(self, config: EndpointConfig, upstream: Upstream, sessions: SessionManager, drain: Drain) -> None:
        self._config = config
        self._upstream = upstream
        self._sessions = sessions
        self._drain = drain
        self._mirrored = MirroredTools(config.forward_headers)

    async def post(self, exchange: Exchange) -> None:
        """Relay one message (or, in 2025-03-26, a batch)."""
        if media_type(exchange.headers.get(b"content-type", b"").decode("latin-1")) != "application/json":
            raise UnsupportedMediaType("send the message with Content-Type: application/json")
        if exchange.headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedMediaType("send the message without Content-Encoding")
        body = await exchange.read_body(self._config.max_body_size, self._config.body_timeout)
        message = decode(body, max_depth=self._config.max_json_depth)
        if isinstance(message, Request):
            exchange.request_id = message.id
        match classify(exchange.headers, message):
            case Initialize(request):
                await self._initialize(exchange, body, request)
            case LegacyMessage(message):
                await self._relay_legacy(exchange, body, message)
            case ModernMessage(message):
                await self._relay_modern(exchange, body, message)

    async def get(self, exchange: Exchange) -> None:
        """Open a listening stream, or resume any stream, in a legacy session."""
        if is_modern(exchange.headers):
            raise MethodNotAllowed("this protocol version has no GET; use subscriptions/listen", "POST")
        accept = exchange.headers.get(b"accept", b"")
        if b"text/event-stream" not in accept and b"*/*" not in accept:
            raise NotAcceptable("send GET with Accept: text/event-stream")
        session = await self._session(exchange)
        self._check_version(exchange, session)
        relay = AnswerRelay(exchange, self._config.heartbeat_interval)
        relay.restorer = IdRestorer(self._sessions.minted_ids(session))
        relay.on_event_id = partial(self._sessions.record_event_id, session)

        async def serve() -> None:
            async with self._send(exchange, "GET", session=session) as answer:
                await relay.relay(answer)

        with self._sessions.use(session), self._sessions.listen(session) as ended, self._drain.listen() as draining:
            await relay.attend(serve)
        if ended.cancelled_caught:
            await relay.part(SessionNotFound(_NO_SUCH_SESSION))
        elif draining.cancelled_caught:
            await relay.part(abandoned_error())

    async def delete(self, exchange: Exchange) -> None:
        """End a legacy session, here and upstream."""
        if is_modern(exchange.headers):
            raise MethodNotAllowed("this protocol version has no sessions to end", "POST")
        session = await self._session(exchange)
        await self._sessions.end(session.id)
        await self.end_upstream(session)
        await exchange.respond(200, [])

    async def end_upstream(self, session: Session) -> None:
        """Tell the upstream that a session is over; what it says to that is only logged.

        Takes a few seconds at most.  Cancel safe: the upstream may not have been told.
        """
        with trio.move_on_after(_END_UPSTREAM_TIMEOUT):
            await self._end_upstream(session.upstream_session_id)

    async def _end_upstream(self, upstream_session_id: UpstreamSessionId | None) -> None:
        if upstream_session_id is None:
            return
        try:
            answer = await self._upstream.send(UpstreamRequest("DELETE", _session_headers(upstream_session_id)))
            await answer.aclose()
            log.debug("upstream answered %d to the end of a session", answer.status)
        except (UpstreamError, RemoteProtocolError) as error:
            log.warning("a session may still be open upstream: %s", error)

    async def _initialize(self, exchange: Exchange, body: bytes, request: Request) -> None:
        """Relay ``initialize``; open a session if the upstream agrees.

        The answer is held back until it is known, because the session id goes
        into the head of ours.
        """
        relay = AnswerRelay(exchange, self._config.heartbeat_interval, request.id)
        left_upstream: UpstreamSessionId | None = None

        async def serve() -> None:
            nonlocal left_upstream
            async with AsyncExitStack() as place, AsyncExitStack() as sent:
                await place.enter_async_context(self._sessions.reserve())
                answer = await sent.enter_async_context(self._send(exchange, "POST", body))
                left_upstream = _upstream_session_id(answer)
                with trio.move_on_after(self._config.initialize_timeout) as waiting:
                    opening = await hold_opening(answer, request.id)
                if waiting.cancelled_caught:
                    raise UpstreamTimeout("the upstream did not finish its answer to initialize; try again")
                headers: list[tuple[bytes, bytes]] = []
                if opening.response is not None and not opening.response.is_error:
                    session = await self._open(request, opening.response, answer, left_upstream)
                    left_upstream = None
                    headers.append((SESSION_ID, session.id.encode("ascii")))
                # It is counted itself now; the rest of the answer may take long.
                await place.aclose()
                await relay.relay(opening.replayed, headers)

        try:
            with self._drain.call() as scope:
                await relay.attend(serve)
        finally:
            # Nobody will ever use a session that the upstream opened and we did not.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_UPSTREAM_TIMEOUT):
                await self._end_upstream(left_upstream)
        if scope.cancelled_caught:
            await relay.part(abandoned_error())

    async def _open(
        self,
        request: Request,
        response: Response,
        answer: UpstreamResponse,
        upstream_session_id: UpstreamSessionId | None,
    ) -> Session:
        params, result = read_value(request.params), read_value(response.result)
        return await self._sessions.create(
            upstream_session_id,
            params if isinstance(params, dict) else {},
            result if isinstance(result, dict) else {},
            answer.mode,
        )

    async def _relay_legacy(self, exchange: Exchange, body: bytes, message: Message | Batch) -> None:
        """Relay a message in a session.  The client's leaving does not cancel it."""
        session = await self._session(exchange)
        self._check_version(exchange, session)
        if isinstance(message, Batch) and session.protocol_version != BATCH_VERSION:
            raise InvalidRequest(f"batches exist in {BATCH_VERSION} only; send one message a request")
        request_id = message.id if isinstance(message, Request) else None
        relay = AnswerRelay(exchange, self._config.heartbeat_interval, request_id)
        relay.on_event_id = partial(self._sessions.record_event_id, session)
        if isinstance(message, Notification) and message.method == CANCELLED:
            body = self._translate_cancelled(session, body, message)
            if not body:
                await exchange.respond(202, [])
                return
        with self._sessions.use(session, request_id) as sent_id, self._drain.call() as scope:
            if request_id is not None and sent_id is not None and sent_id is not request_id:
                relay.restorer = IdRestorer(self._sessions.minted_ids(session))
                body = replace_id(body, sent_id)
            async with self._send(exchange, "POST", body, session) as answer:
                await self._note_status(session, answer)
                if _is_accepted(message, answer):
                    await exchange.respond(202, [])
                else:
                    await relay.relay(answer)
                    await self._sessions.record_mode(session, answer.mode)
        if scope.cancelled_caught:
            await relay.part(abandoned_error())

    def _translate_cancelled(self, session: Session, body: bytes, message: Notification) -> bytes:
        """Return the cancellation to send on; empty if one may not be.

        A client that uses one id for several calls at once does not say which of
        them it cancels, and must not cancel another's: a cancellation may be ignored.
        """
        request_id = cancelled_id(message.params)
        sent_ids = () if request_id is None else self._sessions.ids_in_flight(session, request_id)
        if len(sent_ids) > 1:
            log.debug("a cancellation that several calls could be meant by is dropped")
            return b""
        if sent_ids and sent_ids[0] != request_id:
            return replace_cancelled_id(body, sent_ids[0])
        return body

    async def _relay_modern(self, exchange: Exchange, body: bytes, message: Message) -> None:
        """Relay a message that stands for itself.  The client's leaving cancels it."""
        relay = AnswerRelay(exchange, self._config.heartbeat_interval, can_resume=False)
        is_listening = False
        if isinstance(message, Request):
            is_listening = message.method == SUBSCRIPTIONS_LISTEN
            if is_listening:
                relay.farewell = _subscription_end(message)
            else:
                relay.request_id = message.id
            if message.method == TOOLS_LIST:
                relay.on_response = partial(self._mirrored.learn, exchange.headers)
            elif message.method == TOOLS_CALL:
                self._mirrored.check(exchange.headers, message)

        async def serve() -> None:
            async with self._send(exchange, "POST", body) as answer:
                if _is_accepted(message, answer):
                    await exchange.respond(202, [])
                else:
                    await relay.relay(answer)

        with self._drain.listen() if is_listening else self._drain.call() as scope:
            await relay.attend(serve)
        if scope.cancelled_caught:
            await relay.part(abandoned_error())

    async def _session(self, exchange: Exchange) -> Session:
        value = exchange.headers.get(SESSION_ID)
        if value is None:
            raise SessionRequired("the Mcp-Session-Id header is missing; send initialize first")
        session_id = parse_session_id(value)
        if session_id is None:
            raise SessionNotFound(_NO_SUCH_SESSION)
        return await self._sessions.find(session_id)

    def _check_version(self, exchange: Exchange, session: Session) -> None:
        value = exchange.headers.get(b"mcp-protocol-version")
        if value is None:
            return
        version = value.decode("latin-1")
        if version != session.protocol_version and version not in LEGACY_VERSIONS:
            raise InvalidRequest(f"MCP-Protocol-Version is wrong; this session speaks {session.protocol_version}")

    @asynccontextmanager
    async def _send(
        self, exchange: Exchange, method: str, body: bytes = b"", session: Session | None = None
    ) -> AsyncGenerator[UpstreamResponse, None]:
        """Send a client's request on, once, and give the answer up at the end of the block."""
        headers = upstream_headers(exchange.headers, self._config.forward_headers)
        if session is not None:
            headers.extend(_session_headers(session.upstream_session_id))
            if method == "GET" and (cursor := exchange.headers.get(LAST_EVENT_ID)) is not None:
                headers.append((LAST_EVENT_ID, cursor))
        answer = await self._upstream.send(UpstreamRequest(method, headers, body))
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _note_status(self, session: Session, answer: UpstreamResponse) -> None:
        """End a session that the upstream no longer knows; the client then opens another."""
        if answer.status == 404 and session.upstream_session_id is not None:
            await self._sessions.end(session.id)


def _upstream_session_id(answer: UpstreamResponse) -> UpstreamSessionId | None:
    value = answer.header(SESSION_ID)
    return None if value is None else UpstreamSessionId(value.decode("latin-1"))


def _session_headers(upstream_session_id: UpstreamSessionId | None) -> list[tuple[bytes, bytes]]:
    return [] if upstream_session_id is None else [(SESSION_ID, upstream_session_id.encode("latin-1"))]


def _is_accepted(message: Message | Batch, answer: UpstreamResponse) -> bool:
    """Whether *message* is owed no answer, and the upstream does not refuse it."""
    messages = message.messages if isinstance(message, Batch) else (message,)
    return 200 <= answer.status < 300 and not any(isinstance(entry, Request) for entry in messages)


def _subscription_end(request: Request) -> bytes:
    """Return the result that ends a subscription gracefully (2026-07-28, Subscriptions)."""
    meta = b'{"io.modelcontextprotocol/subscriptionId":%s}' % request.id
    return b'{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","_meta":%s}}' % (request.id, meta)
