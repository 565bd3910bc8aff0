"""A message of a client on a pipe, as an HTTP request to the endpoint in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

import attrs
import trio

from ..errors import SessionNotFound, ShadowcatError, UpstreamDisconnected
from ..protocol import LAST_EVENT_ID, SUBSCRIPTIONS_LISTEN, Batch, Headers, Message, RawId, Request
from ..resilience import Backoff, BackoffConfig
from ..transport import Exchange
from .boundary import serve_safely
from .drain import Drain, abandoned_error
from .endpoint import McpEndpoint
from .observers import Observers
from .pipe_answer import Deliver, PipeAnswer
from .recovery import NO_SUCH_SESSION

_CUT = (
    "the answer was cut and cannot be had any more; the server may have acted on the request; "
    "check before sending it again"
)

_RETRIED = frozenset({408, 409, 425, 429})

_LONG = 5.0
"""Seconds after which a stream that brought nothing was a good one all the same."""


@attrs.frozen(kw_only=True)
class PipeEndpointConfig:
    """How clients on pipes are served.  Durations are in seconds."""

    max_pending: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Requests of one client under way at once; more are answered with an error."""

    max_answer: int = attrs.field(default=64 * 1024 * 1024, validator=attrs.validators.ge(1024))
    """Bytes of one message to the client; in place of a longer answer it gets an error."""

    order_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """How long a message waits for those before it to be sent on, and taken if they ask for no answer."""

    resuming: BackoffConfig = attrs.field(factory=BackoffConfig)
    """How the rest of an answer is asked for that was cut on its way."""

    listening: BackoffConfig = attrs.field(factory=lambda: BackoffConfig(base=1.0, budget=float("inf")))
    """How it is listened again after a listening stream has ended."""


@attrs.frozen
class PipeRoom:
    """What clients on pipes share, and where one of them comes from."""

    config: PipeEndpointConfig
    endpoint: McpEndpoint
    drain: Drain
    observers: Observers = attrs.field(factory=Observers)
    peer: str | None = None
    """As whom the client is counted, as `Exchange.peer`."""


class PipeCall:
    """One message on its way.  `run` sees it to its end.

    Args:
        deliver: Sends one message to the client.
        headers: Those of the request.
        is_modern: Whether the message stands for itself, outside any session.
    """

    def __init__(
        self,
        room: PipeRoom,
        deliver: Deliver,
        body: bytes,
        message: Message | Batch,
        headers: Headers,
        is_modern: bool,
    ) -> None:
        self._room = room
        self._body = body
        self._message = message
        self._headers = headers
        self._scope = trio.CancelScope()
        self._is_abandoned = False
        self.is_modern = is_modern
        self.is_cancelled = False
        """Whether the client wants no answer any more."""
        self.answer = PipeAnswer(deliver, _callers(message), room.config.max_answer)
        self.handed_over = trio.Event()
        """Set when the upstream has it to send, or never will."""
        self.sent = trio.Event()
        """Set when it is on its way to the server, or never will be."""

    @property
    def is_listening(self) -> bool:
        """Whether its answer goes on for as long as the client likes."""
        return isinstance(self._message, Request) and self._message.method == SUBSCRIPTIONS_LISTEN

    async def run(self) -> None:
        """Send the message and bring the client what comes of it.

        Cancel safe: the client may miss the answer, and gets no part of a message.
        """
        answer = self.answer
        try:
            with self._scope:
                await self._send()
                if answer.is_waiting and not self.is_modern and answer.last_event_id is not None:
                    await self._resume()
                await self._conclude()
            if self._is_abandoned:
                await answer.fail(abandoned_error())
        finally:
            for event in (self.handed_over, self.sent, answer.settled):
                event.set()

    async def _send(self) -> None:
        exchange = open_exchange(self._room, "POST", self._headers, self.answer)
        exchange.on_handover = self.handed_over.set
        exchange.on_sent = self.sent.set
        await serve_safely(exchange, lambda: self._room.endpoint.serve(exchange, self._body, self._message))

    async def _resume(self) -> None:
        answer = self.answer
        answer.is_probing = True
        await trio.sleep(answer.retry)
        await follow(self._room, self._headers, answer, self._room.config.resuming, lambda: not answer.is_waiting)

    async def _conclude(self) -> None:
        if self.is_cancelled or not self.answer.is_waiting:
            return
        error: ShadowcatError = UpstreamDisconnected(_CUT)
        if self._room.drain.is_draining:
            error = abandoned_error()
        elif self.answer.status == 404:
            error = SessionNotFound(NO_SUCH_SESSION)
        await self.answer.fail(error)

    def cancel(self) -> None:
        """Give the message up; the client gets no more of an answer."""
        self.is_cancelled = True
        self._scope.cancel()

    def abandon(self) -> None:
        """Give the message up, and tell the client that the server may still act on it."""
        self._is_abandoned = not self.is_cancelled
        self._scope.cancel()


async def follow(
    room: PipeRoom, headers: Headers, answer: PipeAnswer, config: BackoffConfig, is_over: Callable[[], bool]
) -> None:
    """Bring the client a stream that the endpoint has, over as many requests as it takes.

    Returns when *is_over* says so, when the endpoint will not go on, and when the proxy shuts down.
    Cancel safe.
    """
    backoff = Backoff(config)
    while not (is_over() or room.drain.is_draining):
        events, began = answer.events, trio.current_time()
        await _get(room, headers, answer)
        if answer.status == 410 and answer.last_event_id is not None and not answer.is_waiting:
            answer.last_event_id = None  # what was missed is gone; what is new is not
        elif answer.status != 200 and answer.status < 500 and answer.status not in _RETRIED:
            return
        if answer.events > events or trio.current_time() - began >= _LONG:
            backoff.progress()
        wait = backoff.next_wait(answer.retry)
        if wait is None or is_over():
            return
        await trio.sleep(wait)


async def _get(room: PipeRoom, headers: Headers, answer: PipeAnswer) -> None:
    fields = {name: value for name, value in headers.items() if name != b"content-type"}
    fields[b"accept"] = b"text/event-stream"
    if answer.last_event_id is not None:
        fields[LAST_EVENT_ID] = answer.last_event_id
    answer.begin()
    exchange = open_exchange(room, "GET", fields, answer)
    await serve_safely(exchange, lambda: room.endpoint.get(exchange))


async def end_session(room: PipeRoom, headers: Headers, deliver: Deliver) -> None:
    """DELETE the session that *headers* name."""
    exchange = open_exchange(room, "DELETE", headers, PipeAnswer(deliver, (), 1024))
    await serve_safely(exchange, lambda: room.endpoint.delete(exchange))


def open_exchange(room: PipeRoom, method: str, headers: Headers, answer: PipeAnswer) -> Exchange:
    """Return an HTTP exchange that exists in this process only, its headers checked."""
    exchange = Exchange({"method": method, "path": "(pipe)", "headers": ()}, _receive, answer)
    exchange.headers = headers
    exchange.peer = room.peer
    if room.observers.present:
        room.observers.begin(exchange, "", room.peer)
    return exchange


async def _receive() -> NoReturn:
    """Never tell that the client has left: whoever serves it cancels instead."""
    await trio.sleep_forever()


def _callers(message: Message | Batch) -> Iterable[RawId]:
    messages = message.messages if isinstance(message, Batch) else (message,)
    return [entry.id for entry in messages if isinstance(entry, Request)]
