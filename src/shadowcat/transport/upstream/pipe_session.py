"""A legacy session on a pipe of its own: to its client, a streamable HTTP server."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import trio

from ...errors import UpstreamDisconnected
from ...protocol import (
    CANCELLED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    PROGRESS,
    SESSION_ID,
    Message,
    Notification,
    RawId,
    Request,
    Response,
    cancelled_id,
    error_body,
    peek,
    split_batch,
)
from ..base import RawHeaders, UpstreamResponse
from .held import HeldMessages
from .pipe import Pipe
from .pipe_config import PipeConfig, PipeCounters
from .pipe_exchange import PipeExchange, answer_with

log = logging.getLogger(__name__)

_MAX_ASKED = 1000
"""Requests of the server of which it is remembered who was given them."""

_CANCELLED = "the client has cancelled this request"
_NO_LISTENER = "no client listens for requests, and too many wait already"
_NO_MESSAGE = "the body is not a JSON-RPC message; send one JSON-RPC 2.0 request, notification or response"


class PipeSession:
    """One session.  Its client's ids and tokens are translated, the server's pass as they are.

    What the server says by itself goes with the request that it belongs to, as far
    as that can be known, else to the listener, else to any caller, and is held if
    there is none.

    Args:
        on_end: Told once that the session is over.
    """

    def __init__(
        self, pipe: Pipe, config: PipeConfig, counters: PipeCounters, on_end: Callable[[PipeSession], None]
    ) -> None:
        self.id = secrets.token_urlsafe(24)
        self._pipe = pipe
        self._config = config
        self._counters = counters
        self._on_end = on_end
        self._readers = 0
        self._listener: PipeExchange | None = None
        self._opening: PipeExchange | None = None
        self._held = HeldMessages(config.max_held, config.max_held_bytes)
        self._asked: dict[RawId, PipeExchange | None] = {}
        pipe.route = self._route
        pipe.on_end = self._ended

    def is_idle(self, now: float) -> bool:
        """Whether nothing has happened for so long that nobody seems to need the session."""
        return not self._readers and now >= self._pipe.last_used + self._config.idle_timeout

    def end(self) -> None:
        """End the session and its stream; the stream is closed in the background."""
        self._pipe.end()

    def _ended(self, make_error: Callable[[], UpstreamDisconnected]) -> None:
        if self._listener is not None:
            self._listener.fail(make_error())
        self._on_end(self)

    async def open(self, request: Request, text: bytes) -> UpstreamResponse:
        """Send ``initialize``.  Unless it is granted, the session is over when its answer is read or given up.

        As `post`.
        """
        try:
            exchange = self._opening = self._begin(is_plain=True)
            try:
                answer = await self._ask(exchange, [(request, text)], ((SESSION_ID, self.id.encode()),))
            except BaseException:
                exchange.close()
                raise
        except BaseException:
            self.end()
            raise
        if exchange.is_closed and self._pipe.is_ended:
            # Refused: there is no session to name.
            answer.headers = [field for field in answer.headers if field[0] != SESSION_ID]
        return answer

    async def post(self, text: bytes, on_sent: Callable[[], None] | None = None) -> UpstreamResponse:
        """Send what a client has posted; return the answer when its first message is there.

        A checkpoint.  If cancelled, it may or may not have been sent; the answer is dropped.

        Args:
            on_sent: See `UpstreamRequest.on_sent`.

        Raises:
            UpstreamBusy: Too many requests are under way; nothing was sent.
            UpstreamError: The stream broke.
            RemoteProtocolError: The answer was too long.
        """
        message = peek(text)
        if message is not None:
            entries: list[tuple[Message, bytes]] = [(message, text)]
        else:
            parts = [(peek(part), part) for part in split_batch(text) or ()]
            entries = [(found, part) for found, part in parts if found is not None]
            if not entries or len(entries) < len(parts):
                await trio.lowlevel.checkpoint()
                code = PARSE_ERROR if not parts else INVALID_REQUEST
                return answer_with(400, error_body(None, code, _NO_MESSAGE))
        if not any(isinstance(entry, Request) for entry, _ in entries):
            await self._tell(*entries[0])
            for entry, part in entries[1:]:
                await self._tell(entry, part)
            return answer_with(202)
        exchange = self._begin(is_plain=message is not None)
        try:
            return await self._ask(exchange, entries, on_sent=on_sent)
        except BaseException:
            exchange.close()
            raise

    def _begin(self, *, is_plain: bool) -> PipeExchange:
        exchange = PipeExchange(self._config.max_queued, is_plain=is_plain)
        exchange.on_close = self._closed
        self._readers += 1
        return exchange

    async def _ask(
        self,
        exchange: PipeExchange,
        entries: list[tuple[Message, bytes]],
        headers: RawHeaders = (),
        on_sent: Callable[[], None] | None = None,
    ) -> UpstreamResponse:
        self._pipe.check_room(sum(isinstance(entry, Request) for entry, _ in entries))
        # All before the first is sent: the answer to it must not end the exchange.
        sendable = [
            (entry, self._pipe.admit(entry, part, exchange) if isinstance(entry, Request) else part)
            for entry, part in entries
        ]
        for entry, part in sendable:
            if isinstance(entry, Request):
                await self._pipe.send(part)
            else:
                await self._tell(entry, part)
        if on_sent is not None:
            on_sent()
        return await exchange.respond(self._config.stream_after, headers)

    async def _tell(self, message: Message, text: bytes) -> None:
        """Send what is owed no answer."""
        match message:
            case Response(id=request_id) if request_id is not None:
                self._asked.pop(request_id, None)
            case Notification(method=method) if method == CANCELLED:
                found = self._pipe.correlation.cancel(message, text)
                if found is None:
                    await trio.lowlevel.checkpoint()
                    self._counters.dropped += 1
                    return
                call, text = found
                # It need not answer any more, and its caller does not wait.
                if self._pipe.correlation.forget(call):
                    self._counters.pending -= 1
                    call.owner.answer(call, error_body(call.caller_id, INTERNAL_ERROR, _CANCELLED), None)
        await self._pipe.send(text)

    def listen(self) -> UpstreamResponse:
        """Return what the server says by itself, as an event stream; 409 if somebody has it already."""
        if self._listener is not None:
            return answer_with(
                409, error_body(None, INVALID_REQUEST, "another connection listens already; close that one first")
            )
        self._listener = listener = self._begin(is_plain=False)
        for text in self._held.take_all():
            listener.put(text)
        self._note_asked_of(listener)
        return listener.as_events()

    def _note_asked_of(self, listener: PipeExchange) -> None:
        for request_id, exchange in self._asked.items():
            if exchange is None:
                self._asked[request_id] = listener

    def _closed(self, exchange: PipeExchange, unread: list[bytes]) -> None:
        self._pipe.abandon(exchange)
        self._pipe.last_used = trio.current_time()
        self._readers -= 1
        if exchange is self._listener:
            self._listener = None
        elif exchange is self._opening:
            self._opening = None
            if exchange.response is None or exchange.response.is_error:
                self.end()
        if not self._pipe.is_ended:
            for text in unread:
                self._reroute(text)

    def _reroute(self, text: bytes) -> None:
        """Give to another what nobody has read, lest the server wait for an answer for ever."""
        message = peek(text)
        if isinstance(message, Request) or (isinstance(message, Notification) and message.method != PROGRESS):
            self._route(message, text)

    def _route(self, message: Request | Notification, text: bytes) -> PipeExchange | None:
        if isinstance(message, Notification) and message.method == CANCELLED:
            exchange = self._asked.pop(cancelled_id(message.params) or b"", None)
            if exchange is None or exchange.is_over:
                exchange = self._choose()
        else:
            exchange = self._choose()
        if exchange is None:
            self._hold(message, text)
            return None
        if isinstance(message, Request):
            self._note_asked(message.id, exchange)
        exchange.put(text)
        return exchange

    def _choose(self) -> PipeExchange | None:
        """Return where a message goes of which nobody can tell what it belongs to."""
        sole = self._pipe.correlation.sole
        if sole is not None:
            return sole.owner
        if self._listener is not None:
            return self._listener
        # The newest will live longest.
        newest = self._pipe.correlation.newest
        return None if newest is None else newest.owner

    def _note_asked(self, request_id: RawId, exchange: PipeExchange | None) -> None:
        if len(self._asked) >= _MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[request_id] = exchange

    def _hold(self, message: Request | Notification, text: bytes) -> None:
        dropped = self._held.dropped
        is_held = self._held.add(message, text)
        self._counters.dropped += self._held.dropped - dropped
        if not isinstance(message, Request):
            return
        if is_held:
            self._note_asked(message.id, None)
        else:
            self._pipe.send_nowait(error_body(message.id, INTERNAL_ERROR, _NO_LISTENER))


def session_lost() -> UpstreamResponse:
    """Return what a session gets that is not, or is no more: its client opens another."""
    return answer_with(404, error_body(None, INVALID_REQUEST, "no such session; send initialize to open another"))
