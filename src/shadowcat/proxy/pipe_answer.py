"""What becomes of an HTTP answer on a pipe: messages, one after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio

from ..errors import MessageTooLong, ShadowcatError
from ..protocol import (
    INTERNAL_ERROR,
    RawId,
    Response,
    ResponseMode,
    SSEDecoder,
    SSEEvent,
    error_body,
    is_same_id,
    peek_response,
    replace_id,
)
from .answers import answer_to

Deliver = Callable[[bytes], Awaitable[None]]

_MAX_RETRY = 30_000
"""Milliseconds; a server that asks to be left alone for longer is asked again after that."""


class PipeAnswer:
    """The ASGI ``send`` of a request that stands for a message on a pipe.

    What it is sent goes to the client in the task that sends it: a client that
    reads slowly slows the answer down.  A caller gets an answer to its own id,
    whatever comes; who has none to wait for gets what an event stream brings.

    Args:
        deliver: Sends one message to the client.
        waiting: The ids of the requests that the answer is owed to.
        max_size: Bytes of one message; a longer one becomes an error.
    """

    def __init__(self, deliver: Deliver, waiting: Iterable[RawId], max_size: int) -> None:
        self._deliver = deliver
        self._waiting = list(waiting)
        self._max_size = max_size
        self._decoder: SSEDecoder | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.status = 0
        """That of the last answer; 0 while there is none."""
        self.headers: Mapping[bytes, bytes] = {}
        self.settled = trio.Event()
        """Set when every caller has its answer; if there is none, when the message was taken or refused."""
        self.response: Response | None = None
        """The last answer to a caller."""
        self.last_event_id: bytes | None = None
        self.retry = 0.0
        """Seconds that the server wants to be left alone before it is asked to go on."""
        self.events = 0
        """How many events have come."""
        self.is_complete = False
        """Whether the last answer came to its end."""
        self.is_probing = False
        """Whether a document is no answer, but says that there will be none."""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody still waits."""
        return bool(self._waiting)

    def begin(self) -> None:
        """Get ready for another answer, to a request that resumes the stream."""
        self.status, self.is_complete = 0, False
        self._decoder, self._parts, self._size = None, [], 0

    async def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one ASGI event."""
        if event["type"] == "http.response.start":
            self._start(event)
            return
        if body := event.get("body", b""):
            await self._take(body)
        if not event.get("more_body", False):
            self.is_complete = True
            if self._decoder is None:
                await self._take_document()

    def _start(self, event: Mapping[str, Any]) -> None:
        self.status = event["status"]
        self.headers = headers = dict(event["headers"])
        if not self._waiting:
            self.settled.set()
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        is_plain = headers.get(b"content-encoding", b"identity") == b"identity"
        if is_plain and ResponseMode.from_content_type(content_type) is ResponseMode.SSE_STREAM:
            self._decoder = SSEDecoder(self._max_size)

    async def _take(self, body: bytes) -> None:
        if self._decoder is not None:
            for event in self._decoder.feed(body):
                await self._take_event(event)
            return
        self._size += len(body)
        if self._size <= self._max_size:
            self._parts.append(body)
        else:
            self._parts.clear()

    async def _take_event(self, event: SSEEvent) -> None:
        self.events += 1
        if event.retry is not None:
            self.retry = min(event.retry, _MAX_RETRY) / 1000
        if event.id is not None:
            self.last_event_id = event.id or None
        if event.is_truncated:
            # As good as certainly the answer; what else it may be is not worth a memory.
            await self.fail(self._too_long())
        elif event.data:
            await self._pass(event.data)

    async def _pass(self, data: bytes) -> None:
        if self._waiting and (response := peek_response(data)) is not None:
            self._settle(response)
        await self._deliver(data)

    def _settle(self, response: Response) -> None:
        for request_id in self._waiting:
            if is_same_id(response.id, request_id):
                self._waiting.remove(request_id)
                self.response = response
                break
        if not self._waiting:
            self.settled.set()

    async def _take_document(self) -> None:
        if not self._waiting or self.is_probing:
            return
        if self._size > self._max_size:
            await self.fail(self._too_long())
            return
        body = b"".join(self._parts).strip()
        if body[:1] == b"[" and self.status == 200:
            self._waiting.clear()
            await self._deliver(body)
            self.settled.set()
            return
        response = peek_response(body)
        if response is not None and len(self._waiting) == 1 and is_same_id(response.id, self._waiting[0]):
            await self._pass(body)
        elif response is not None and response.is_error:
            await self._answer_all(lambda request_id: replace_id(body, request_id))
        else:
            text = f"the server answered with HTTP status {self.status} and no JSON-RPC message; look at its log"
            await self._answer_all(
                lambda request_id: error_body(request_id, INTERNAL_ERROR, text, {"status": self.status})
            )

    async def fail(self, error: ShadowcatError) -> None:
        """Tell whoever still waits that there will be no answer, and why."""
        await self._answer_all(lambda request_id: error_body(request_id, answer_to(error).code, str(error)))

    async def _answer_all(self, answer: Callable[[RawId], bytes]) -> None:
        waiting, self._waiting = self._waiting, []
        for request_id in waiting:
            await self._deliver(answer(request_id))
        self.settled.set()

    def _too_long(self) -> MessageTooLong:
        return MessageTooLong(f"the server's answer is longer than {self._max_size} bytes; ask it for less at a time")
