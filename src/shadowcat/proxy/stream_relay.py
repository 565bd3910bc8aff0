"""Bringing an event stream to one connection of its client.

From this process's memory where the stream is read here, from the store while
another proxy reads it.  Events are numbered alike in both, so the client notices
nothing when one takes the place of the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ..errors import ShadowcatError, StoreError, StreamTaken
from ..protocol import HEARTBEAT, PRIMING_VERSION, SSEEvent, encode_event, error_body
from ..session import (
    Cursor,
    EventStream,
    LogEntry,
    Reader,
    ResumePoint,
    Session,
    SessionStore,
    SessionStreams,
    StreamKind,
    StreamRecord,
    epoch_of,
)
from ..transport import BodyStream, Exchange
from .answers import answer_to
from .delay import Delayed, DelayQueue
from .outcomes import outcome_of

EVENT_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

_NO_STREAM = ((b"allow", b"POST, DELETE"),)

_COME_BACK = encode_event(SSEEvent(retry=1000))
"""Tells a client whose stream is not over when to resume it."""


class StreamRelay(Delayed):
    """One connection of a client that receives a stream."""

    def __init__(self, exchange: Exchange, session: Session, silences: DelayQueue) -> None:
        self._exchange = exchange
        self._session = session
        self._silences = silences
        self._is_silent = False
        self._primes = session.protocol_version >= PRIMING_VERSION
        self._headers: Sequence[tuple[bytes, bytes]] = EVENT_HEADERS
        self._body: BodyStream | None = None
        self._is_partial = False
        self._stream: EventStream | None = None
        self._primed: ResumePoint | None = None

    async def attend(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Run *serve*, and cancel it when the client leaves.  Its errors come in an exception group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await serve()
            nursery.cancel_scope.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        await self._exchange.wait_disconnected()
        scope.cancel()

    async def begin(self, stream: EventStream, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send a new stream to the client that asked for it, as `copy` does.

        Args:
            headers: What else the upstream says in the head of its answer.
        """
        names = {name for name, _ in headers}
        self._headers = [*headers, *(field for field in EVENT_HEADERS if field[0] not in names)]
        if self._exchange.record is not None:
            self._exchange.record.note_answer()
        await self.copy(stream, 0)

    async def copy(self, stream: EventStream, number: int) -> None:
        """Send what *stream* has from the entry *number* on, and what is yet to come.

        Returns at its end; or before, the answer being left cut, if another connection
        of the client takes over or the stream is no longer to be had here.
        """
        await self._send(stream, number, None)

    async def go_on(self, stream: EventStream, cursor: Cursor) -> bool:
        """Send what *stream* has beyond *cursor*, as `copy` does; False if there is nothing, and the stream has ended.

        The answer is not begun before it is known that the upstream goes on, if it has to.

        Raises:
            StreamTaken: Another connection of the client took over before that.
        """
        number = stream.log.find(cursor.position)
        has_more = await self._send(stream, 0 if number is None else number, cursor)
        if has_more and self._body is None:
            raise StreamTaken("another connection has taken over this stream; resume it only once at a time")
        return has_more

    async def finish(self) -> None:
        """Say that nothing more will come; if nothing was sent, that there is no stream.

        2025-11-25 allows 405 for that.  Clients come back to an event stream that ends without
        an answer, and some do so after one that was an error.
        """
        if self._body is None:
            await self._exchange.respond(405, _NO_STREAM)
        else:
            await self._body.end()

    async def _send(self, stream: EventStream, number: int, cursor: Cursor | None) -> bool:
        self._stream = stream
        reader = stream.attach(number, 0 if cursor is None else cursor.position)
        try:
            with reader.scope:
                if cursor is not None:
                    if not await self._has_more(stream, reader):
                        return False
                    body = await self._resumed(cursor, stream.retry)
                else:
                    body = await self._opened()
                    if self._primes:
                        await body.write(self._priming(stream, reader))
                await self._copy_all(stream, reader, body)
                if not (stream.is_lost and stream.kind is StreamKind.ANSWER):
                    stream.is_delivered = True
                    self._note_end(stream)
                    await body.end()
        finally:
            stream.detach(reader)
        return True

    async def _has_more(self, stream: EventStream, reader: Reader) -> bool:
        with trio.move_on_after(self._silences.delay):
            await trio.lowlevel.checkpoint()
            while not (stream.is_settled or reader.has_entries):
                await reader.wait()
        return not reader.is_at_end

    async def _copy_all(self, stream: EventStream, reader: Reader, body: BodyStream) -> None:
        while True:
            if entries := reader.take():
                data = b"".join(map(_encode, entries, map(stream.cursor, entries)))
                self._is_partial = not entries[-1].ends
                self._note_events(entries)
            elif reader.is_at_end:
                return
            elif self._is_to_prime(stream):
                data = self._priming(stream, reader)
            elif not (data := await self._wait(stream, reader)):
                continue
            await body.write(data)

    def _is_to_prime(self, stream: EventStream) -> bool:
        """Whether only now it is known what the upstream can be asked to go on from."""
        return self._primes and stream.log.position == 0 and self._primed != stream.resume

    def _priming(self, stream: EventStream, reader: Reader) -> bytes:
        """Return an event whose id stands before all that are still to be sent."""
        cursor = stream.cursor_before(reader.number)
        self._primed = cursor.resume
        return encode_event(SSEEvent(b"", id=cursor.encode(), retry=stream.retry))

    async def _wait(self, stream: EventStream, reader: Reader) -> bytes:
        """Wait for news; return what is to be sent if there are none for long."""
        self._is_silent = False
        self._silences.add(self)
        try:
            await reader.wait()
            # Not all that wakes it is for the client, who has heard nothing then.
            while not (self._is_silent or reader.has_entries or reader.is_at_end or self._is_to_prime(stream)):
                await reader.wait()
        finally:
            self._silences.discard(self)
        is_news = reader.has_entries or self._is_partial
        return HEARTBEAT if self._is_silent and not is_news else b""

    def note_due(self) -> None:
        """Send a comment: nothing has come for long."""
        self._is_silent = True
        assert self._stream is not None
        self._stream.wake()

    async def tail(self, store: SessionStore, streams: SessionStreams, cursor: Cursor) -> Cursor | None:
        """Send what another proxy writes of a stream to *store*, from *cursor* on.

        Returns None at the end of the stream, or, the answer being left cut, when the
        store fails; when the owner of the stream is gone, the cursor to go on from.

        Raises:
            EventsLost: Not all events after *cursor* are kept.
            SessionNotFound: The session has ended.
            StoreError: The store fails before anything was sent.
        """
        idle_since = trio.current_time()
        while True:
            try:
                page = await store.read_events(self._session.id, cursor.stream_id, cursor.position)
            except StoreError:
                if self._body is None:
                    raise
                return None
            if page is None:
                await store.get_session(self._session.id)
                raise streams.lost()
            behind = page.events[0].position != cursor.position + 1 if page.events else False
            if behind or (not page.events and page.record.last_position > cursor.position):
                raise streams.lost()
            if page.events:
                body = await self._resumed(cursor)
                entries = [LogEntry(event, epoch=epoch_of(self._session)) for event in page.events]
                cursors = [_cursor_of(page.record, entry) for entry in entries]
                self._note_events(entries)
                await body.write(b"".join(map(_encode, entries, cursors)))
                cursor, idle_since = cursors[-1], trio.current_time()
                continue
            if page.record.is_ended:
                await self.finish()
                return None
            if page.record.owner is None:
                return cursor
            await self._resumed(cursor)
            await store.wait_events(self._session.id, cursor.stream_id, cursor.position)
            if trio.current_time() - idle_since >= self._silences.delay:
                await (await self._opened()).write(HEARTBEAT)
                idle_since = trio.current_time()

    async def part(self, error: ShadowcatError) -> None:
        """Say what can still be said after `copy` was cancelled because the proxy stops, or the session has ended.

        Raises *error* if nothing has been sent yet, so that it becomes the answer.
        """
        body, stream = self._body, self._stream
        if body is None:
            raise error
        if self._exchange.record is not None:
            self._exchange.record.note_failure(outcome_of(error), error)
        if self._is_partial:
            return
        if stream is not None and stream.kind is StreamKind.ANSWER and not stream.is_answered:
            if stream.resume is None and stream.request_id is not None:
                text = error_body(stream.request_id, answer_to(error).code, str(error))
                await body.write(encode_event(SSEEvent(data=text, event=b"message")))
            elif self._primes:
                await body.write(_COME_BACK)
        await body.end()

    def _note_events(self, entries: Sequence[LogEntry]) -> None:
        if self._exchange.record is not None:
            self._exchange.record.note_events(sum(entry.ends for entry in entries))

    def _note_end(self, stream: EventStream) -> None:
        record = self._exchange.record
        if record is not None and stream.failure is not None:
            record.note_failure(outcome_of(stream.failure), stream.failure)
        elif record is not None:
            record.is_error = stream.is_error

    async def _resumed(self, cursor: Cursor, retry: int | None = None) -> BodyStream:
        """Return the body, begun with the client's own place.

        Clients that are cut off again before an event comes do not all remember it otherwise.
        """
        if self._body is not None:
            return self._body
        body = await self._opened()
        if self._primes:
            self._primed = cursor.resume
            await body.write(encode_event(SSEEvent(b"", id=cursor.encode(), retry=retry)))
        return body

    async def _opened(self) -> BodyStream:
        if self._body is None:
            self._body = await self._exchange.open_stream(200, self._headers)
        return self._body


def _encode(entry: LogEntry, cursor: Cursor) -> bytes:
    begin = b"id: " + cursor.encode() + b"\n" if entry.begins else b""
    return begin + entry.event.block + (b"\n\n" if entry.ends else b"")


def _cursor_of(record: StreamRecord, entry: LogEntry) -> Cursor:
    position = entry.event.position
    is_last = record.is_ended and position == record.last_position
    return Cursor(record.key.stream_id, position, entry.resume, is_last, record.fence)
