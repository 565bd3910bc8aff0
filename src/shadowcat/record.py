"""What is noted of one exchange: an HTTP request, or a message on a pipe, and its answer.

A record is made only while somebody observes.  It has no bodies, no headers and no
credentials but the session id, which is not to be shown: `digest` stands for it.
"""

from __future__ import annotations

import enum
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from .protocol import CLIENT_METHODS, SESSION_ID, SUBSCRIPTIONS_LISTEN, Batch, Message, Request, Response

Headers = Mapping[bytes, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]

OTHER = "other"
"""What stands for every name that is not known, so that there is an end to names."""


class Outcome(enum.Enum):
    """How an exchange ended.  A closed set."""

    OK = "ok"
    ERROR = "error"
    """The server answered with a JSON-RPC error."""
    REJECTED = "rejected"
    """The server answered with an HTTP status from 400 to 499."""
    UPSTREAM_ERROR = "upstream_error"
    """The server answered with an HTTP status of 500 or more."""
    UNAVAILABLE = "unavailable"
    """The server could not be reached, or had no room: it has not seen the call."""
    TIMEOUT = "timeout"
    """The server took too long."""
    BROKEN = "broken"
    """The server broke off, or sent what is no answer."""
    REFUSED = "refused"
    """The proxy did not let it pass."""
    LIMITED = "limited"
    """The proxy did not let it pass because of a limit."""
    NO_SESSION = "no_session"
    """There is no such session, or it cannot do that."""
    STORE_ERROR = "store_error"
    """The session store failed."""
    CLIENT_LEFT = "client_left"
    """The client left before the end of the answer."""
    SHUTDOWN = "shutdown"
    """The proxy shut down first."""
    FAILED = "failed"
    """A bug of the proxy."""


class Observer:
    """Told of exchanges, in the task of each: what it does there, every call pays."""

    def begin(self, record: CallRecord, headers: Headers, message: Message | Batch) -> Headers:
        """Take note of a message that is about to go upstream; return the *headers* to go on with."""
        return headers

    async def refuse(self, record: CallRecord, error: Exception) -> None:
        """Take note of a request that is answered with *error*, before it is."""
        await trio.lowlevel.checkpoint()

    def pass_events(self, record: CallRecord, count: int) -> None:
        """Take note of *count* events that the client is about to get."""

    def finish(self, record: CallRecord) -> None:
        """Take note of an exchange that is over."""


class CallRecord:
    """One exchange.  Times are by trio's clock, in seconds."""

    # Defaults stand here, because most of them stay what they are, and each exchange has a record.
    handed_at: float | None = None
    """When it was given to the upstream."""
    answered_at: float | None = None
    """When the upstream had answered: with the head of a stream, with the whole of a document."""
    head_at: float | None = None
    """When the client was sent the head of its answer."""
    ended_at: float = 0.0
    method: str | None = None
    """The JSON-RPC method; None while there is no message."""
    message: Message | Batch | None = None
    """Only until the end: it has the params."""
    is_request: bool = False
    is_listening: bool = False
    """Whether its answer is a stream that may stay open for ever."""
    request_id: bytes | None = None
    session_id: bytes | None = None
    upstream: str | None = None
    """The name of the server; None if there was none to go to."""
    status: int = 0
    outcome: Outcome = Outcome.OK
    error: str | None = None
    """The class of what went wrong."""
    is_error: bool = False
    """Whether the answer is a JSON-RPC error of the server's."""
    is_complete: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    events: int = 0
    span: Any = None
    """For whoever traces."""
    trace_id: str | None = None
    """Of the trace that it is a part of, in hexadecimal digits."""

    def __init__(self, http_method: str, path: str, client: str | None, observers: Sequence[Observer]) -> None:
        self.http_method = http_method
        self.path = path
        """Empty for a message on a pipe."""
        self.client = client
        """The address that the request came from; None if that is not known."""
        self.observers = observers
        self.time = time.time()
        """When it began, in seconds since the Unix epoch."""
        self.started_at = trio.current_time()

    @property
    def label(self) -> str:
        """The method if it is one of MCP's, and else `OTHER`."""
        method = self.method
        return method if method in _LABELS else OTHER

    @property
    def duration(self) -> float:
        """Seconds from the request to the end of its answer."""
        return self.ended_at - self.started_at

    @property
    def upstream_time(self) -> float | None:
        """Seconds that the upstream took; None if it was not asked."""
        if self.handed_at is None:
            return None
        return (self.ended_at if self.answered_at is None else self.answered_at) - self.handed_at

    @property
    def own_time(self) -> float:
        """Seconds until the client was sent the head of its answer, without those of the upstream."""
        return (self.ended_at if self.head_at is None else self.head_at) - self.started_at - (self.upstream_time or 0.0)

    def note_message(self, upstream: str, headers: Headers, message: Message | Batch, size: int) -> Headers:
        """Take note of the message, and return the headers to go on with."""
        self.upstream = upstream
        self.bytes_in = size
        self.message = message
        match message:
            case Request():
                self.method, self.is_request, self.request_id = message.method, True, message.id
                self.is_listening = message.method == SUBSCRIPTIONS_LISTEN
            case Batch():
                self.method = BATCH
                self.is_request = any(isinstance(entry, Request) for entry in message.messages)
            case Response():
                self.method = RESPONSE
            case _:
                self.method = message.method
        for observer in self.observers:
            headers = observer.begin(self, headers, message)
        return headers

    def note_handover(self) -> None:
        """Take note that the upstream has it from now on."""
        if self.handed_at is None:
            self.handed_at = trio.current_time()

    def note_answer(self) -> None:
        """Take note of what has come of the upstream's answer; the last time counts."""
        self.answered_at = trio.current_time()

    def note_events(self, count: int) -> None:
        """Take note of *count* events that the client is about to get."""
        self.events += count
        for observer in self.observers:
            observer.pass_events(self, count)

    def note_failure(self, outcome: Outcome, error: BaseException) -> None:
        """Take note of what went wrong; the first counts."""
        if self.error is None:
            self.outcome, self.error = outcome, type(error).__name__

    def watch(self, send: Send) -> Send:
        """Return *send*, with what passes counted."""

        async def watched(event: dict[str, Any]) -> None:
            await send(event)
            if event["type"] == "http.response.start":
                self.head_at = trio.current_time()
                if self.answered_at is None and self.handed_at is not None:
                    self.answered_at = self.head_at
                if self.session_id is None:
                    self.session_id = next((value for name, value in event["headers"] if name == SESSION_ID), None)
            else:
                self.bytes_out += len(event.get("body", b""))
                self.is_complete = not event.get("more_body", False)

        return watched

    def finish(self, status: int, headers: Headers) -> None:
        """Take note of the end, and tell the observers.

        Args:
            status: Of the answer; 0 if there was none.
            headers: Of the request.
        """
        self.status = status
        self.ended_at = trio.current_time()
        if self.session_id is None:
            self.session_id = headers.get(SESSION_ID)
        if self.error is None:
            self.outcome = self._conclude()
        for observer in self.observers:
            observer.finish(self)
        self.message = None

    def _conclude(self) -> Outcome:
        if not self.is_complete and self.status != 101:
            return Outcome.CLIENT_LEFT
        if self.status >= 500:
            return Outcome.UPSTREAM_ERROR
        if self.status >= 400:
            return Outcome.REJECTED
        return Outcome.ERROR if self.is_error else Outcome.OK


BATCH = "batch"
RESPONSE = "response"
_LABELS = CLIENT_METHODS | {BATCH, RESPONSE}


def digest(session_id: str | bytes) -> str:
    """Return what a session is called where its id must not be told: always the same, and of no use to anybody else."""
    raw = session_id.encode() if isinstance(session_id, str) else session_id
    return hashlib.sha256(raw).hexdigest()[:12]


def printable(text: str, limit: int = 128) -> str:
    """Return the beginning of *text* that came from elsewhere, fit to be encoded."""
    return text[:limit].encode(errors="backslashreplace").decode()
