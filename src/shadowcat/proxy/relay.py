"""One upstream answer to one client.

Bytes pass as they are.  What is added to an event stream, heartbeats and a last
word, stands between two events.  Nothing is buffered but a small JSON answer, so
a client that reads slowly slows the upstream down.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import attrs
import trio

from ..errors import ProtocolError, ShadowcatError, UpstreamDisconnected, UpstreamError
from ..protocol import (
    HEARTBEAT,
    RawId,
    Response,
    ResponseMode,
    SSEBoundary,
    SSEDecoder,
    SSEEvent,
    client_headers,
    encode_event,
    error_body,
    is_same_id,
    peek_response,
)
from ..transport import BodyStream, Exchange, UpstreamResponse
from .answers import answer_to
from .attendance import Attendance
from .outcomes import outcome_of
from .restore import IdRestorer

log = logging.getLogger(__name__)

_SMALL = 256 * 1024
"""Bytes of a JSON answer that are gathered, so that it goes out whole or not at all."""

_WATCHED = 4 * 1024 * 1024
"""Bytes of one event that are looked at; a longer one passes unread."""

_LOOKED_AT = 64 * 1024
"""Bytes of an answer that are read only to tell an observer whether it is an error."""

_NO_ANSWER = (
    "the upstream ended the stream without an answer and may have acted on the request; check before sending it again"
)

_EVENT_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


@attrs.define(eq=False)
class AnswerRelay:
    """Brings the answer to one request to its client."""

    exchange: Exchange
    attendance: Attendance
    heartbeat_interval: float
    """Seconds of silence on an event stream after which a comment is sent."""

    request_id: RawId | None = None
    """Whose answer an event stream must bring; None for one that only listens."""

    restorer: IdRestorer | None = None
    farewell: bytes | None = None
    """The result that ends the stream politely when the proxy shuts down."""

    on_response: Callable[[Response], None] | None = None
    """Told of the answer as it passes, if it is not too long to be read."""

    _stream: BodyStream | None = None
    """The event stream, once it is open; never a document, to which nothing may be added."""

    _boundary: SSEBoundary = attrs.field(factory=SSEBoundary)
    _decoder: SSEDecoder | None = None
    _is_attended: bool = False
    _is_answered: bool = False

    async def attend(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Run *serve*, cancel it when the client leaves, and send heartbeats.

        Returns when *serve* has returned or been cancelled; its errors come in
        an exception group.
        """
        self._is_attended = True
        await self.attendance.attend(serve, self._watch)

    async def _watch(self, scope: trio.CancelScope) -> None:
        while True:
            last_write = self._stream.last_write if self._stream else trio.current_time()
            with trio.move_on_at(last_write + self.heartbeat_interval):
                await self.exchange.wait_disconnected()
                scope.cancel()
                return
            stream = self._stream
            if stream is None or trio.current_time() < stream.last_write + self.heartbeat_interval:
                continue
            if self._boundary.is_between_events:
                await stream.write(HEARTBEAT)
            else:
                stream.last_write = trio.current_time()

    async def relay(self, answer: UpstreamResponse, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Bring *answer* to the client, to its end or to the end of one of the two.

        Args:
            headers: Sent beside the upstream's own.

        Cancel safe: the client then sees its answer cut, unless `part` is called.

        Raises:
            UpstreamError: The upstream broke off before anything was sent on.
        """
        headers = [*client_headers(answer.headers), *headers]
        self._note_answer()
        match answer.mode:
            case ResponseMode.SSE_STREAM:
                await self._attended(lambda: self._relay_events(answer, headers))
            case _:
                await self._relay_document(answer, headers)

    async def _attended(self, serve: Callable[[], Awaitable[None]]) -> None:
        if self._is_attended:
            await serve()
            return
        # Long enough to be watched from the beginning.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await serve()
            nursery.cancel_scope.cancel()

    async def _relay_document(self, answer: UpstreamResponse, headers: list[tuple[bytes, bytes]]) -> None:
        parts: list[bytes] = []
        size = 0
        body = aiter(answer.body)
        async for chunk in body:
            parts.append(self._restored(chunk))
            size += len(chunk)
            if size > _SMALL:
                break
        else:
            await self._respond(answer, headers, b"".join(parts) + self._flushed())
            return
        await self._attended(lambda: self._stream_document(answer, headers, b"".join(parts), body))

    async def _stream_document(
        self, answer: UpstreamResponse, headers: list[tuple[bytes, bytes]], begin: bytes, body: AsyncIterator[bytes]
    ) -> None:
        length = answer.header(b"content-length")
        if length is not None and self.restorer is None:
            headers.append((b"content-length", length))
        self._note_answer()
        stream = await self.exchange.open_stream(answer.status, headers)
        try:
            await stream.write(begin)
            async for chunk in body:
                await stream.write(self._restored(chunk))
        except (UpstreamError, ProtocolError) as error:
            log.warning("an answer was cut: %s", error)
            self._note_failure(error)
            return
        if rest := self._flushed():
            await stream.write(rest)
        await stream.end()

    async def _respond(self, answer: UpstreamResponse, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        is_observed = self.exchange.record is not None
        if is_observed:
            self._note_answer()
        # For an observer alone, most answers need not be read: they have no such word in them.
        is_suspect = is_observed and len(body) <= _LOOKED_AT and b'"error"' in body
        if (self.on_response is not None or is_suspect) and (message := peek_response(body)):
            self._note_response(message)
        await self.exchange.respond(answer.status, headers, body)

    async def _relay_events(self, answer: UpstreamResponse, headers: list[tuple[bytes, bytes]]) -> None:
        names = {name for name, _ in headers}
        headers.extend(field for field in _EVENT_HEADERS if field[0] not in names)
        if self.request_id is not None:
            self._decoder = SSEDecoder(_WATCHED)
        self._stream = stream = await self.exchange.open_stream(answer.status, headers)
        cut: ShadowcatError | None = None
        try:
            async for chunk in answer.body:
                await self._pass(stream, chunk)
        except (UpstreamError, ProtocolError) as error:
            log.warning("an event stream was cut: %s", error)
            self._note_failure(error)
            cut = error
        if rest := self._flushed():
            await stream.write(rest)
        await self._end_events(stream, cut)

    async def _pass(self, stream: BodyStream, chunk: bytes) -> None:
        if self._decoder is not None:
            for event in self._decoder.feed(chunk):
                self._observe(event)
        self._boundary.feed(chunk)
        if self.exchange.record is not None:
            self.exchange.record.note_events(chunk.count(b"\n\n"))
        if data := self._restored(chunk):
            await stream.write(data)

    def _observe(self, event: SSEEvent) -> None:
        if event.is_truncated:
            # Too long to be read: as good as certainly the answer.
            self._is_answered = True
        if not event.data or self._is_answered or self.request_id is None:
            return
        message = peek_response(self._restored_whole(event.data))
        if message is not None and is_same_id(message.id, self.request_id):
            self._is_answered = True
            self._decoder = None
            self._note_response(message)

    def _note_response(self, message: Response) -> None:
        if self.exchange.record is not None:
            self.exchange.record.is_error = message.is_error
        if self.on_response is not None:
            self.on_response(message)

    def _note_answer(self) -> None:
        if self.exchange.record is not None:
            self.exchange.record.note_answer()

    def _note_failure(self, error: ShadowcatError) -> None:
        if self.exchange.record is not None:
            self.exchange.record.note_failure(outcome_of(error), error)

    async def _end_events(self, stream: BodyStream, cut: ShadowcatError | None) -> None:
        """End the stream as the upstream ended it, unless that would strand the caller.

        A caller whose answer will never come is told so; one who only listens can
        listen again.
        """
        is_stranded = self.request_id is not None and not self._is_answered
        if is_stranded and self._boundary.is_between_events:
            await self._last_word(stream, cut or UpstreamDisconnected(_NO_ANSWER))
        elif cut is None and not is_stranded:
            await stream.end()

    async def part(self, error: ShadowcatError) -> None:
        """Say what can still be said to the client after `relay` was cancelled by us.

        Raises *error* if nothing has been sent yet, so that it becomes the answer.
        """
        if self._stream is None:
            if not self.exchange.status:
                raise error
            return
        if not self._boundary.is_between_events:
            return
        if self.request_id is not None and not self._is_answered:
            await self._last_word(self._stream, error)
            return
        if self.farewell is not None:
            await self._stream.write(encode_event(SSEEvent(data=self.farewell)))
        await self._stream.end()

    async def _last_word(self, stream: BodyStream, error: ShadowcatError) -> None:
        body = error_body(self.request_id, answer_to(error).code, str(error))
        self._note_failure(error)
        await stream.write(encode_event(SSEEvent(data=body, event=b"message")))
        await stream.end()

    def _restored(self, chunk: bytes) -> bytes:
        return chunk if self.restorer is None else self.restorer.feed(chunk)

    def _restored_whole(self, data: bytes) -> bytes:
        return data if self.restorer is None else self.restorer.restore(data)

    def _flushed(self) -> bytes:
        return b"" if self.restorer is None else self.restorer.flush()
