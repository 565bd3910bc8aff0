"""One session with a server over HTTP+SSE.

A long GET brings what the server has to say; each of our messages is a POST.
Nothing can be resumed: when the GET is cut, the session is gone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from ...errors import MessageRefused, MessageTooLong, ProtocolError, StreamBroken, UpstreamError
from ...protocol import ResponseMode, SSEDecoder, SSEEvent
from ..base import MessageStream, RawHeaders, Upstream, UpstreamRequest, UpstreamResponse

log = logging.getLogger(__name__)

_OF_A_MESSAGE = ((b"accept", b"*/*"), (b"accept-encoding", b"identity"), (b"content-type", b"application/json"))

_HEAD_START = 0.1
"""Seconds that a message waits for the one before it to be accepted.

No longer, because some servers accept a request only when they have answered it, and
may ask the client something before."""

_MAX_REPLY = 65536
"""Bytes that are read behind a 2xx so that its connection can be used again."""
_REPLY_TIMEOUT = 1.0

_BROKEN_OFF = "the upstream server broke off the event stream; initialize again"
_ENDED = "the upstream server has ended the event stream; initialize again"
_CLOSED = "the event stream was closed"


class EventReader:
    """The events of an answer's body, read on demand.

    Args:
        max_event: Bytes that are kept of one; about twice as many are held at most.
    """

    def __init__(self, body: AsyncIterator[bytes], max_event: int) -> None:
        self.max_event = max_event
        self._body = body
        self._decoder = SSEDecoder(max_event)
        self._events: deque[SSEEvent] = deque()
        self._fault = ""

    async def next(self) -> SSEEvent:
        """Return the next event that has data.  Cancel safe: nothing is lost.

        Raises:
            StreamBroken: There will be no other.
        """
        await trio.lowlevel.checkpoint()
        while True:
            while self._events:
                event = self._events.popleft()
                if event.data or event.is_truncated:
                    return event
            if self._fault:
                raise StreamBroken(self._fault)
            await self._read()

    async def _read(self) -> None:
        try:
            chunk = await anext(self._body, b"")
        except (UpstreamError, ProtocolError) as error:
            log.info("an event stream was cut: %s", error)
            self._fault = _BROKEN_OFF
            await trio.lowlevel.checkpoint()
            return
        if not chunk:
            self._fault = _ENDED
        self._events.extend(self._decoder.feed(chunk))

    def close(self) -> None:
        """Read nothing more."""
        self._events.clear()
        self._fault = _CLOSED

    @property
    def fault(self) -> str:
        """Why there is no more to read; empty as long as there may be."""
        return self._fault


class HttpSseStream(MessageStream):
    """Messages to and from a server, by HTTP+SSE.

    Args:
        events: What the server says, its first event read already.
        post: Where messages go.
        headers: Sent with each message.
        address: Names the server in the log.
    """

    def __init__(self, events: EventReader, post: Upstream, headers: RawHeaders, address: str) -> None:
        self._events = events
        self._post = post
        self._headers = (*headers, *_OF_A_MESSAGE)
        self._address = address
        self._turns = trio.Lock()
        self._accepted = trio.Event()
        self._accepted.set()
        self._began = 0.0

    async def send(self, message: bytes) -> None:
        """POST one message, and return when the server has accepted it; see `MessageStream.send`.

        It goes out when the one before it has been accepted, or a tenth of a second after
        that: some servers accept a request only when they have answered it.  So several may be
        under way at once.

        Raises:
            StreamBroken: The event stream has ended.
            MessageRefused: The server answered with an error.
            UpstreamError: No answer came; whether the server has the message, the class says.
        """
        await trio.lowlevel.checkpoint()
        async with self._turns:
            with trio.move_on_at(self._began + _HEAD_START):
                await self._accepted.wait()
            self._check()
            self._accepted = accepted = trio.Event()
            self._began = trio.current_time()
        try:
            await self._deliver(message)
        finally:
            accepted.set()

    def _check(self) -> None:
        if self._events.fault:
            raise StreamBroken(self._events.fault)

    async def _deliver(self, message: bytes) -> None:
        try:
            answer = await self._post.send(UpstreamRequest("POST", self._headers, message))
        except ProtocolError as error:
            raise MessageRefused(str(error)) from error
        try:
            if not 200 <= answer.status < 300:
                log.warning("%s: a message was answered with status %d", self._address, answer.status)
                raise MessageRefused(_refusal(answer.status))
            await _finish(answer)
        finally:
            await answer.aclose()

    async def receive(self) -> bytes:
        """Return the next message; see `MessageStream.receive`."""
        while True:
            event = await self._events.next()
            if event.event not in (None, b"", b"message"):
                log.debug("%s: an event %r is ignored", self._address, event.event)
            elif event.is_truncated:
                raise MessageTooLong(f"a message of the upstream server was longer than {self._events.max_event} bytes")
            elif event.data:
                return event.data

    def close(self) -> None:
        """Send and receive nothing more."""
        self._events.close()


async def _finish(answer: UpstreamResponse) -> None:
    """Read the rest of an answer that says nothing, so that its connection can be used again."""
    await trio.lowlevel.checkpoint_if_cancelled()
    if answer.mode is ResponseMode.SSE_STREAM:
        return
    size = 0
    with trio.move_on_after(_REPLY_TIMEOUT), suppress(UpstreamError, ProtocolError):
        async for chunk in answer.body:
            size += len(chunk)
            if size > _MAX_REPLY:
                return


def _refusal(status: int) -> str:
    match status:
        case 401 | 403:
            what = "check the credentials that are sent to it"
        case 404 | 410:
            what = "it does not know the connection any more; initialize again"
        case 413:
            what = "send a shorter one"
        case 429 | 503:
            what = "send it again later"
        case _:
            what = "check whether it was acted upon before sending it again"
    return f"the upstream server refused the message with HTTP status {status}; {what}"
