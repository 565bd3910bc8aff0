"""One message stream, and all who have requests under way on it.

Its reader finds out whose each message is and puts it there.  It never writes,
because a server that waits for us to read may not be reading: what the reader has to
say itself, and what is said for somebody who must not wait, goes by a short queue.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

import trio

from ...errors import (
    MessageTooLong,
    RemoteProtocolError,
    StreamBroken,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from ...protocol import (
    PROGRESS,
    SUBSCRIPTIONS_LISTEN,
    Correlation,
    Notification,
    Request,
    Response,
    cancellation_of,
    peek,
    split_batch,
)
from ..base import Connector, MessageStream, RawHeaders
from .pipe_config import PipeConfig, PipeCounters
from .pipe_exchange import PipeExchange

log = logging.getLogger(__name__)

_MAX_OUTBOX = 1000
"""Messages of our own that wait for a server that does not read."""

_NOTICE = 1.0
"""Seconds in which the reader learns why a stream is broken that cannot be written to."""

_GARBAGE_INTERVAL = 10.0
"""Seconds between two lines in the log about text that is no message."""

_CLOSED = "the proxy has closed it"
_TOO_SLOW = (
    "the answer was not read for too long while others waited for theirs, and was given up; "
    "the upstream server may have acted: check before sending the request again"
)
_CHECK = "it may have acted on the request; check before sending it again"

Router = Callable[[Request | Notification, bytes], PipeExchange | None]
"""Puts a message that is not about one of our requests where it belongs; returns where that was."""


class Pipe:
    """A message stream to one server, shared.  `run` opens it and owns it.

    Args:
        route: Decides about messages that answer nothing, and are not progress.
    """

    def __init__(self, config: PipeConfig, counters: PipeCounters) -> None:
        self.correlation: Correlation[PipeExchange] = Correlation()
        self.route: Router = self._drop
        self.on_end: Callable[[Callable[[], UpstreamDisconnected]], None] = _ignore
        """Told once that the stream has ended, and how to make errors that say so."""
        self.on_closed: Callable[[], None] = _ignore_closed
        """Told once that what the stream led to is gone too, or was never there."""
        self.patience = math.inf
        """Seconds that the stream is not read because the reader of one answer is slow; then that is given up."""
        self.is_ended = False
        self.last_used = trio.current_time()
        self._config = config
        self._counters = counters
        self._stream: MessageStream | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._reason = _CLOSED
        self._outbox: deque[bytes] = deque()
        self._outgoing = trio.Event()
        self._garbage_logged_at = -math.inf

    async def run(  # noqa: ASYNC910 - opening is a checkpoint, whatever fails after it
        self,
        connector: Connector,
        headers: RawHeaders,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open the stream, and read it until it breaks or `end` is called.

        Whatever way it ends, whoever waits is told before the stream is closed.
        Cancel safe.

        Raises:
            UpstreamUnavailable: It cannot be opened.
        """
        is_open = False
        try:
            with self._scope:
                async with connector.open(headers) as self._stream:
                    self._counters.opened += 1
                    is_open = True
                    task_status.started()
                    await self._serve(self._stream)
        except Exception:
            if not is_open:
                raise
            # A bug, perhaps in a connector that is not ours; the other streams go on.
            log.exception("a message stream failed")
        finally:
            self._conclude(_CLOSED)
            self.on_closed()

    async def _serve(self, stream: MessageStream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_outbox, stream)
                try:
                    await self._read(stream)
                except StreamBroken as error:
                    self._break(str(error))
                nursery.cancel_scope.cancel()
        finally:
            # Closing what the stream leads to takes time, for which nobody should wait.
            self._conclude(_CLOSED)

    def end(self) -> None:
        """Close the stream, in the background; whoever waits is told at once."""
        self._conclude("the session was ended")
        self._scope.cancel()

    def _break(self, reason: str) -> None:
        if not self.is_ended:
            self._counters.broken += 1
            log.warning("a message stream has broken: %s; %d requests were under way", reason, len(self.correlation))
        self._conclude(reason)

    def _conclude(self, reason: str) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self._reason = reason
        self._ended.set()
        for exchange in {call.owner: None for call in self.correlation.calls}:
            exchange.fail(self._disconnected())
            self.abandon(exchange)
        self.on_end(self._disconnected)

    def _disconnected(self) -> UpstreamDisconnected:
        return UpstreamDisconnected(f"the connection to the upstream server has ended ({self._reason}); {_CHECK}")

    def unavailable(self) -> UpstreamUnavailable:
        """Return an error for those who come when the stream has ended."""
        return UpstreamUnavailable(
            f"the connection to the upstream server has ended ({self._reason}); nothing was sent: send it again"
        )

    # What callers do.

    def check_room(self, count: int) -> None:
        """Make sure that *count* more requests may be under way.

        Raises:
            UpstreamBusy: They may not.
        """
        if len(self.correlation) + count > self._config.max_pending:
            raise UpstreamBusy(
                f"{len(self.correlation)} requests are under way on one connection to the upstream server, "
                "as many as are allowed; nothing was sent: send it again later"
            )

    def admit(self, request: Request, text: bytes, exchange: PipeExchange) -> bytes:
        """Let *exchange* wait for the answer to *request*; return the text to send."""
        call, text = self.correlation.admit(request, text, exchange)
        exchange.calls[call] = None
        self._counters.pending += 1
        return text

    def cancel(self, exchange: PipeExchange, reason: str) -> None:
        """Tell the server, in the background, that nobody waits for *exchange*, and do not."""
        for call in exchange.calls:
            self.send_nowait(cancellation_of(call, reason))
        self.abandon(exchange)

    def abandon(self, exchange: PipeExchange) -> None:
        """Wait no more for what is still to come for *exchange*."""
        for call in exchange.calls:
            if self.correlation.forget(call):
                self._counters.pending -= 1
        exchange.calls.clear()

    async def send(self, text: bytes) -> None:
        """Send a message.  A checkpoint; if cancelled, it may or may not have been sent.

        Raises:
            UpstreamUnavailable: The stream has ended; nothing was sent.
            UpstreamDisconnected: It broke.
        """
        if self._stream is None or self.is_ended:
            await trio.lowlevel.checkpoint()
            raise self.unavailable()
        self.last_used = trio.current_time()
        try:
            await self._stream.send(text)
            return
        except StreamBroken as error:
            reason = str(error)
        # The reader may learn more: with what status a process has exited.
        with trio.move_on_after(_NOTICE):
            await self._ended.wait()
        self._break(reason)
        self._scope.cancel()
        raise self._disconnected()

    def send_nowait(self, text: bytes) -> None:
        """Have a message sent soon; it is dropped if the server has not been reading for long."""
        if self.is_ended or len(self._outbox) >= _MAX_OUTBOX:
            self._counters.dropped += 1
            return
        self._outbox.append(text)
        self._outgoing.set()

    async def _send_outbox(self, stream: MessageStream) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            while True:
                await self._outgoing.wait()
                while self._outbox:
                    await self._send_quietly(stream, self._outbox.popleft())
                self._outgoing = trio.Event()
        except StreamBroken as error:
            log.debug("nothing can be sent on a message stream any more: %s", error)

    async def _send_quietly(self, stream: MessageStream, text: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await stream.send(text)
        except UpstreamError as error:
            # Of this message alone; nobody waits to be told.
            log.debug("a message of ours was refused: %s", error)

    # What the reader does.

    async def _read(self, stream: MessageStream) -> None:
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                text = await stream.receive()
            except MessageTooLong as error:
                self._fail_too_long(error)
                continue
            self.last_used = trio.current_time()
            message = peek(text)
            if message is None:
                await self._take_batch(text)
                continue
            exchange = self._take(message, text)
            if exchange is not None and exchange.is_full:
                await self._wait_room(exchange)

    async def _take_batch(self, text: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        for entry in split_batch(text) or [text]:
            message = peek(entry)
            if message is None:
                self._note_garbage(entry)
                continue
            exchange = self._take(message, entry)
            if exchange is not None and exchange.is_full:
                await self._wait_room(exchange)

    async def _wait_room(self, exchange: PipeExchange) -> None:
        with trio.move_on_after(self.patience) as waiting:
            await exchange.wait_room()
        if waiting.cancelled_caught and exchange.is_full:
            log.warning("an answer was given up whose reader was too slow")
            self.cancel(exchange, "its reader is too slow")
            exchange.fail(UpstreamTimeout(_TOO_SLOW))

    def _take(self, message: Request | Notification | Response, text: bytes) -> PipeExchange | None:
        """Put a message where it belongs; return where that was."""
        if isinstance(message, Response):
            settled = self.correlation.settle(message, text)
            if settled is None:
                self._counters.late += 1
                log.debug("an answer came that nobody waits for")
                return None
            call, text = settled
            self._counters.pending -= 1
            call.owner.answer(call, text, message)
            return call.owner
        if isinstance(message, Notification) and message.method == PROGRESS:
            matched = self.correlation.match_progress(message, text)
            if matched is None:
                self._drop(message, text)
                return None
            matched[0].owner.put(matched[1])
            return matched[0].owner
        return self.route(message, text)

    def _drop(self, message: Request | Notification, _text: bytes) -> None:
        self._counters.dropped += 1
        log.debug("a message was dropped that belongs to nobody: %s", message.method)

    def _fail_too_long(self, error: MessageTooLong) -> None:
        """Fail the calls one of which the lost message may have been for."""
        log.warning("a message of the upstream server was dropped: %s", error)
        lost = [call for call in self.correlation.calls if call.method != SUBSCRIPTIONS_LISTEN]
        if not lost:
            self._counters.dropped += 1
        for exchange in {call.owner: None for call in lost}:
            exchange.fail(
                RemoteProtocolError(
                    f"the upstream server sent a message that cannot be relayed ({error}); "
                    "ask for less at once, or ask whoever runs this proxy to raise the limit"
                )
            )
            self.abandon(exchange)

    def _note_garbage(self, text: bytes) -> None:
        self._counters.garbage += 1
        now = trio.current_time()
        if now >= self._garbage_logged_at + _GARBAGE_INTERVAL:
            self._garbage_logged_at = now
            log.warning(
                "the upstream server sent %d bytes that are no JSON-RPC message, beginning %r; servers "
                "must write their logs elsewhere (%d so far)",
                len(text),
                text[:80],
                self._counters.garbage,
            )


def _ignore(_error: Callable[[], UpstreamDisconnected]) -> None:
    """Nobody has to be told."""


def _ignore_closed() -> None:
    """Nobody has to be told."""
