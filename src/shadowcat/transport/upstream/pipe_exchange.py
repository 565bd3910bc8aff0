"""The answer to one HTTP request, made of the messages that a pipe brings for it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable

import trio

from ...errors import ShadowcatError
from ...protocol import Call, Response
from ..base import RawHeaders, UpstreamResponse

_EVENT_HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
_LINE_END = re.compile(rb"\r\n|\r|\n")


class PipeExchange(AsyncIterator[bytes]):
    """Messages on their way to one caller.

    If the first of them is the answer to its one request, it becomes a JSON document,
    otherwise an event stream.

    Args:
        max_queued: Bytes that may wait to be read before `is_full`.
        is_plain: Whether it is about one request, so that a document will do.
    """

    def __init__(self, max_queued: int, *, is_plain: bool) -> None:
        self.calls: dict[Call[PipeExchange], None] = {}
        """The requests whose answers are still to come."""
        self.response: Response | None = None
        """The last answer that came."""
        self.on_close: Callable[[PipeExchange, list[bytes]], None] = _ignore
        """Told once that nobody reads any more, and what was not read."""
        self.is_closed = False
        self._max_queued = max_queued
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._is_document = False
        self._may_be_document = is_plain
        self._is_ended = False
        self._error: ShadowcatError | None = None
        self._news: trio.Event | None = None
        self._room: trio.Event | None = None

    @property
    def is_full(self) -> bool:
        """Whether the reader has so much before it that no more should be put."""
        return self._size >= self._max_queued

    @property
    def is_over(self) -> bool:
        """Whether nothing can be put any more."""
        return self.is_closed or self._is_ended

    def put(self, message: bytes) -> None:
        """Add a message that is not an answer."""
        self._may_be_document = False
        self._put(message)

    def answer(self, call: Call[PipeExchange], message: bytes, response: Response | None) -> None:
        """Add the answer to *call*; the last one ends the exchange."""
        self.calls.pop(call, None)
        self.response = response
        self._is_document = self._may_be_document
        self._is_ended = not self.calls
        self._put(message)

    def _put(self, message: bytes) -> None:
        self._queue.append(message)
        self._size += len(message)
        self._wake()

    def end(self) -> None:
        """Let the body end after what is in it."""
        self._is_ended = True
        self._may_be_document = False
        self._wake()

    def fail(self, error: ShadowcatError) -> None:
        """Let the body end with *error* after what is in it, unless it has ended already."""
        if not self.is_over:
            self._error = error
            self._is_ended = True
            self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _wait_news(self) -> None:
        if self._news is None:
            self._news = trio.Event()
        await self._news.wait()

    async def wait_room(self) -> None:
        """Wait until the reader has taken what is there, or gives up.  For one task at a time."""
        await trio.lowlevel.checkpoint()
        while self.is_full and not self.is_closed:
            self._room = trio.Event()
            await self._room.wait()

    def _make_room(self) -> None:
        self._size = 0
        if self._room is not None:
            self._room.set()
            self._room = None

    async def respond(self, stream_after: float, headers: RawHeaders = ()) -> UpstreamResponse:
        """Wait for the first message and return the answer; an event stream after *stream_after* seconds without.

        A checkpoint.  If cancelled, nothing is lost; the exchange is still to be closed.

        Raises:
            ShadowcatError: What the exchange failed with, before any message.
        """
        if self._queue or self._is_ended:
            await trio.lowlevel.checkpoint()
        else:
            with trio.move_on_after(stream_after):
                await self._wait_news()
        if self._error is not None and not self._queue:
            raise self._error
        return self._as_document(headers) if self._is_document else self.as_events(headers)

    def _as_document(self, headers: RawHeaders) -> UpstreamResponse:
        document = self._queue.popleft()
        self.close()
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(document)), *headers]
        return UpstreamResponse(200, fields, Document(document), self.aclose)

    def as_events(self, headers: RawHeaders = ()) -> UpstreamResponse:
        """Return the answer as an event stream, without waiting."""
        self._may_be_document = False
        return UpstreamResponse(200, [*_EVENT_HEADERS, *headers], self, self.aclose)

    async def wait_response(self) -> Response | None:
        """Wait for an answer; None if the exchange fails instead.  A checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_ended:
            await self._wait_news()
        return self.response

    async def __anext__(self) -> bytes:
        """Return all that has come as events.  A checkpoint; cancel safe: nothing is lost."""
        if self._queue:
            await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._error is not None:
                await trio.lowlevel.checkpoint()
                raise self._error
            if self.is_over:
                await trio.lowlevel.checkpoint()
                raise StopAsyncIteration
            await self._wait_news()
        events = b"".join(map(encode_message, self._queue))
        self._queue.clear()
        self._make_room()
        return events  # noqa: ASYNC910 - if there was nothing, it was waited for

    def close(self) -> None:
        """Take no more, and give up what was not read."""
        if self.is_closed:
            return
        self.is_closed = True
        unread = list(self._queue)
        self._queue.clear()
        self._make_room()
        self._wake()
        self.on_close(self, unread)

    async def aclose(self) -> None:
        """Close; a checkpoint, in which nothing is waited for."""
        self.close()
        await trio.lowlevel.checkpoint()


class Document(AsyncIterator[bytes]):
    """A body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __anext__(self) -> bytes:
        """Return all of it, once."""
        await trio.lowlevel.checkpoint_if_cancelled()
        body, self._body = self._body, b""
        if not body:
            raise StopAsyncIteration
        return body


def encode_message(message: bytes) -> bytes:
    """Return a message as an event."""
    if b"\n" in message or b"\r" in message:
        message = b"\ndata: ".join(_LINE_END.split(message))
    return b"event: message\ndata: %b\n\n" % message


def answer_with(status: int, body: bytes = b"") -> UpstreamResponse:
    """Return an answer of our own; *body* is JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))] if body else []
    return UpstreamResponse(status, headers, Document(body), trio.lowlevel.checkpoint)


def _ignore(_exchange: PipeExchange, _unread: list[bytes]) -> None:
    """Nobody has to be told."""
