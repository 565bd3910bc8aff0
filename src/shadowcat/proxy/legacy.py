"""The MCP endpoint in the legacy era: sessions, and streams that outlive connections."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio

from ..errors import InvalidRequest, SessionNotFound, SessionRequired, StreamTaken, UpstreamTimeout
from ..protocol import (
    BATCH_VERSION,
    CANCELLED,
    LAST_EVENT_ID,
    LEGACY_VERSIONS,
    PROTOCOL_VERSION,
    SESSION_ID,
    Batch,
    Message,
    Notification,
    Request,
    Response,
    cancelled_id,
    client_headers,
    read_value,
    replace_cancelled_id,
    replace_id,
    upstream_headers,
)
from ..session import (
    Cursor,
    EndReason,
    EventStream,
    HeldId,
    Session,
    StreamKind,
    UpstreamSessionId,
    parse_cursor,
    parse_session_id,
)
from ..transport import Exchange, UpstreamRequest, UpstreamResponse
from .attendance import Attendance
from .config import EndpointConfig
from .custody import Custody, waiting_ids
from .drain import Drain, abandoned_error
from .opening import hold_opening, is_accepted, is_asking, is_stream
from .pump import PumpRoom, StreamPump
from .recovery import END_TIMEOUT, NO_SUCH_SESSION, upstream_session_id_of
from .relay import AnswerRelay
from .restore import IdRestorer
from .standing import is_standing, with_request
from .stream_relay import StreamRelay

log = logging.getLogger(__name__)

Fields = Sequence[tuple[bytes, bytes]]


class LegacyEndpoint:
    """Answers what belongs to a legacy session of one server, and ``initialize``, which opens one."""

    def __init__(
        self, config: EndpointConfig, server: str, room: PumpRoom, drain: Drain, attendance: Attendance
    ) -> None:
        self._server = server
        self._attendance = attendance
        self._config = config
        self._room = room
        self._upstream = room.recovery
        self._sessions = room.sessions
        self._drain = drain

    async def post(self, exchange: Exchange, body: bytes, message: Message | Batch) -> None:
        """Relay a message in a session.  The client's leaving does not cancel it."""
        session = await self._session(exchange)
        self._check_version(exchange, session)
        if isinstance(message, Batch) and session.protocol_version != BATCH_VERSION:
            raise InvalidRequest(f"batches exist in {BATCH_VERSION} only; send one message a request")
        if isinstance(message, Notification) and message.method == CANCELLED:
            body = self._translate_cancelled(session, body, message)
            if not body:
                await exchange.respond(202, [])
                return
        held = self._sessions.hold(session, message.id) if isinstance(message, Request) else None
        with self._sessions.use(session):
            async with Custody(held) as custody:
                if held is not None and held.sent_id is not held.request_id:
                    body = replace_id(body, held.sent_id)
                await self._post(exchange, session, body, message, custody)

    async def _post(
        self,
        exchange: Exchange,
        session: Session,
        body: bytes,
        message: Message | Batch,
        custody: Custody,
    ) -> None:
        held = custody.held
        relay = AnswerRelay(exchange, self._attendance, self._config.heartbeat_interval)
        events: StreamRelay | None = None
        headers = upstream_headers(exchange.headers, self._config.forward_headers)
        with self._drain.call() as scope:
            exchange.hand_over()
            session, answer = await self._upstream.send(
                session, "POST", headers, body, exchange.on_sent, is_call=is_asking(message)
            )
            custody.answer = answer
            if is_accepted(message, answer):
                await exchange.respond(202, [])
            elif is_stream(answer):
                events = relayed = StreamRelay(exchange, session, self._attendance.silences)
                custody.hand_over()  # to the pump
                stream = self._begin(session, StreamKind.ANSWER, held)
                self._pump(session, stream, headers, answer, message, held)
                with self._sessions.attached(session) as ended:
                    await events.attend(lambda: relayed.begin(stream, client_headers(answer.headers)))
                if ended.cancelled_caught:
                    await events.part(SessionNotFound(NO_SUCH_SESSION))
                await self._sessions.record_mode(session, answer.mode)
            else:
                granted: list[bool] = []
                if isinstance(message, Request) and is_standing(message):
                    relay.on_response = lambda response: granted.append(not response.is_error)
                if held is not None and held.sent_id is not held.request_id:
                    relay.restorer = IdRestorer(self._sessions.minted_ids(session))
                await relay.relay(answer)
                await self._sessions.record_mode(session, answer.mode)
                if granted == [True]:
                    await self._note_granted(session, message)
        if scope.cancelled_caught:
            await (relay if events is None else events).part(abandoned_error())

    async def _note_granted(self, session: Session, message: Message | Batch | None) -> None:
        """Keep what a new upstream session would have to be told."""
        if isinstance(message, Request) and is_standing(message):
            await self._sessions.change(session, lambda current: with_request(current, message))

    async def get(self, exchange: Exchange) -> None:
        """Open a listening stream, or resume any stream."""
        session = await self._session(exchange)
        self._check_version(exchange, session)
        events = StreamRelay(exchange, session, self._attendance.silences)
        last_event_id = exchange.headers.get(LAST_EVENT_ID)
        cursor = None if last_event_id is None else parse_cursor(last_event_id)
        with self._sessions.use(session), self._sessions.attached(session) as ended, self._drain.listen() as draining:
            if cursor is None:
                await self._listen(exchange, session, events)
            elif await self._is_let_in(exchange, session):
                await events.attend(lambda: self._resume(exchange, session, events, cursor))
        if ended.cancelled_caught:
            await events.part(SessionNotFound(NO_SUCH_SESSION))
        elif draining.cancelled_caught:
            await events.part(abandoned_error())

    async def _listen(self, exchange: Exchange, session: Session, events: StreamRelay) -> None:
        """Go on with the listening stream that lost its client, or open another."""
        left = self._listener(session, is_attended=False)
        if left is not None and not await self._is_let_in(exchange, session):
            return
        if left is not None and not left.is_attended:
            await events.attend(lambda: events.copy(left, left.delivered))
            return
        headers = upstream_headers(exchange.headers, self._config.forward_headers)
        relay = AnswerRelay(exchange, self._attendance, self._config.heartbeat_interval, is_attended=True)

        async def serve() -> None:
            current, answer = await self._upstream.send(session, "GET", headers)
            if answer.status == 404 and (found := await self._upstream.find_lost(current, headers, answer)) is not None:
                current, answer = await self._upstream.send(found, "GET", headers)
            if is_stream(answer):
                stream = self._begin(current, StreamKind.LISTENING, None)
                self._pump(current, stream, headers, answer)
                await events.begin(stream, client_headers(answer.headers))
                return
            try:
                taken = self._listener(session, is_attended=True) if answer.status == 409 else None
                if taken is None:
                    await relay.relay(answer)
            finally:
                await answer.aclose()
            if taken is not None:
                # The upstream allows one listening stream, and this client is the newer.
                await events.copy(taken, taken.delivered)

        await events.attend(serve)

    async def _is_let_in(self, exchange: Exchange, session: Session) -> bool:
        """Tell whether the upstream lets this client in; if not, its refusal is the answer.

        Asked where credentials are forwarded: what is kept here was fetched with those of another
        request, and a session id is none (MCP 2025-11-25, Security Best Practices).
        """
        if not self._config.forward_headers:
            return True
        _, answer = await self._upstream.ping(session, upstream_headers(exchange.headers, self._config.forward_headers))
        try:
            if answer.status in (401, 403):
                relay = AnswerRelay(exchange, self._attendance, self._config.heartbeat_interval)
                await relay.relay(answer)
                return False
        finally:
            await answer.aclose()
        return True

    def _listener(self, session: Session, *, is_attended: bool) -> EventStream | None:
        for stream in self._sessions.streams.of(session):
            is_live = not (stream.is_resting or stream.presence.cancel_called)
            if stream.kind is StreamKind.LISTENING and is_live and stream.is_attended == is_attended:
                return stream
        return None

    async def _resume(self, exchange: Exchange, session: Session, events: StreamRelay, cursor: Cursor) -> None:
        """Go on with a stream where its client left it, wherever it is."""
        streams = self._sessions.streams
        streams.resumed += 1
        if cursor.is_last:
            await events.finish()
            return
        while True:
            stream = streams.find(session, cursor)
            if stream is None:
                stream = await streams.claim(session, cursor)
                if stream is not None and not stream.is_ended:
                    self._pump(session, stream, upstream_headers(exchange.headers, self._config.forward_headers), None)
            if stream is not None:
                try:
                    if not await events.go_on(stream, cursor):
                        await self._conclude(events, session, stream)
                    return
                except StreamTaken:
                    if not stream.is_fenced:
                        raise
                    continue  # not another connection has it, but another proxy
            with streams.tailing(session, cursor.stream_id):
                moved = await events.tail(self._sessions.store, streams, cursor)
            if moved is None:
                return
            cursor = moved

    async def _conclude(self, events: StreamRelay, session: Session, stream: EventStream) -> None:
        """Say to a client that has had everything that this is so; or that it will never have the rest."""
        is_over = stream.is_answered or stream.is_cancelled or session.protocol_version == BATCH_VERSION
        if stream.is_lost or (stream.kind is StreamKind.ANSWER and not is_over):
            raise self._sessions.streams.lost()
        await events.finish()

    def _begin(self, session: Session, kind: StreamKind, held: HeldId | None) -> EventStream:
        request_id, sent_id = (None, None) if held is None else (held.request_id, held.sent_id)
        return self._sessions.streams.begin(session, kind, request_id, sent_id)

    def _pump(
        self,
        session: Session,
        stream: EventStream,
        headers: Fields,
        answer: UpstreamResponse | None,
        message: Message | Batch | None = None,
        held: HeldId | None = None,
    ) -> None:
        """Have *stream* filled for as long as the session lasts, whatever becomes of this connection."""
        pump = StreamPump(self._room, session, stream, headers, waiting_ids(message, held))

        async def run() -> None:
            try:
                await pump.run(answer)
                if pump.is_granted:
                    await self._note_granted(session, message)
            except Exception:
                # A bug; its client must not wait for what will not come.
                self._sessions.streams.drop(stream)
                raise
            finally:
                if held is not None:
                    held.release()

        self._sessions.start_in(session, run)

    async def delete(self, exchange: Exchange) -> None:
        """End a session, here and upstream."""
        session = await self._session(exchange)
        await self._sessions.end(session.id, EndReason.CLIENT)
        await self._upstream.end_upstream_of(session)
        await exchange.respond(200, [])

    async def initialize(self, exchange: Exchange, body: bytes, request: Request) -> None:
        """Relay ``initialize``; open a session if the upstream agrees.

        The answer is held back until it is known, because the session id goes
        into the head of ours.
        """
        relay = AnswerRelay(exchange, self._attendance, self._config.heartbeat_interval, request.id)
        headers = upstream_headers(exchange.headers, self._config.forward_headers)
        left_upstream: UpstreamSessionId | None = None
        opened: tuple[Session, UpstreamResponse] | None = None

        async def serve() -> None:
            nonlocal left_upstream, opened
            async with AsyncExitStack() as place, AsyncExitStack() as sent:
                await place.enter_async_context(self._sessions.reserve())
                upstream = self._upstream.upstream_of(self._server)
                exchange.hand_over()
                answer = await upstream.send(UpstreamRequest("POST", headers, body))
                sent.push_async_callback(answer.aclose)
                left_upstream = upstream_session_id_of(answer)
                with trio.move_on_after(self._config.initialize_timeout) as waiting:
                    opening = await hold_opening(answer, request.id)
                if waiting.cancelled_caught:
                    raise UpstreamTimeout("the upstream did not finish its answer to initialize; try again")
                fields: list[tuple[bytes, bytes]] = []
                if opening.response is not None and not opening.response.is_error:
                    session = await self._open(request, opening.response, answer, left_upstream)
                    left_upstream = None
                    fields.append((SESSION_ID, session.id.encode("ascii")))
                    if is_stream(answer):
                        sent.pop_all()
                        opened = session, opening.replayed
                        return
                # It is counted itself now; the rest of the answer may take long.
                await place.aclose()
                await relay.relay(opening.replayed, fields)

        try:
            with self._drain.call() as scope:
                await relay.attend(serve)
                if opened is not None:
                    await self._send_opening(exchange, *opened, request, headers)
        finally:
            # Nobody will ever use a session that the upstream opened and we did not.
            with trio.move_on_after(END_TIMEOUT, shield=True):
                await self._upstream.end_upstream(self._server, left_upstream)
        if scope.cancelled_caught:
            await relay.part(abandoned_error())

    async def _send_opening(
        self, exchange: Exchange, session: Session, answer: UpstreamResponse, request: Request, headers: Fields
    ) -> None:
        """Send an answer to ``initialize`` that is an event stream."""
        events = StreamRelay(exchange, session, self._attendance.silences)
        stream = self._sessions.streams.begin(session, StreamKind.ANSWER, request.id, request.id)
        self._pump(session, stream, headers, answer)
        fields = [*client_headers(answer.headers), (SESSION_ID, session.id.encode("ascii"))]
        await events.attend(lambda: events.begin(stream, fields))

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
            upstream_name=self._server,
        )

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
        if not sent_ids:
            return body
        for stream in self._sessions.streams.of(session):
            if stream.sent_id == sent_ids[0]:
                stream.is_cancelled = True
        return body if sent_ids[0] == request_id else replace_cancelled_id(body, sent_ids[0])

    async def _session(self, exchange: Exchange) -> Session:
        value = exchange.headers.get(SESSION_ID)
        if value is None:
            raise SessionRequired("the Mcp-Session-Id header is missing; send initialize first")
        session_id = parse_session_id(value)
        if session_id is None:
            raise SessionNotFound(NO_SUCH_SESSION)
        session = await self._sessions.find(session_id)
        if session.upstream_name != self._server:
            raise SessionNotFound(NO_SUCH_SESSION)
        return session

    def _check_version(self, exchange: Exchange, session: Session) -> None:
        value = exchange.headers.get(PROTOCOL_VERSION)
        if value is None:
            return
        version = value.decode("latin-1")
        if version != session.protocol_version and version not in LEGACY_VERSIONS:
            raise InvalidRequest(f"MCP-Protocol-Version is wrong; this session speaks {session.protocol_version}")
