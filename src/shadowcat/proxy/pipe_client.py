"""One client on a pipe: its messages in, in order, and everything for it out."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from ..errors import InvalidRequest, MessageTooLong, ProtocolError, ShadowcatError, StreamBroken, TooManyRequests
from ..protocol import (
    CANCELLED,
    INITIALIZE,
    INITIALIZED,
    SESSION_ID,
    Batch,
    Headers,
    Message,
    Notification,
    RawId,
    Request,
    Response,
    cancelled_id,
    declared_version,
    decode,
    error_body,
    mirror_headers,
    read_value,
)
from ..transport import MessageStream
from .answers import answer_to
from .drain import draining_error
from .pipe_answer import PipeAnswer
from .pipe_call import PipeCall, PipeRoom, end_session, follow
from .pipe_session import PipeSession
from .recovery import END_TIMEOUT

log = logging.getLogger(__name__)

_LAST_WORDS = 0.9
"""The part of the time to finish after which callers are told that there will be no answer."""


class PipeClient:
    """Reads what a client sends, and has it served.

    Messages are handed to the upstream in the order in which they came.  What asks
    for no answer is sent when all before it are on their way, and what follows it when it
    was taken; but nothing waits for long for the sake of order.

    Args:
        headers: Those of every request.
        nursery: For a task for each message, and one that listens.
        max_depth: How deep arrays and objects of a message may be nested.
        grace: Seconds that calls have to finish after the client has sent its last message.
    """

    def __init__(
        self,
        room: PipeRoom,
        stream: MessageStream,
        headers: Headers,
        nursery: trio.Nursery,
        max_depth: int,
        grace: float,
    ) -> None:
        self._room = room
        self._stream = stream
        self._headers = headers
        self._nursery = nursery
        self._max_depth = max_depth
        self._grace = grace
        self._session: PipeSession | None = None
        self._modern_version: str | None = None
        self._calls: set[PipeCall] = set()
        self._by_id: dict[str | float | bytes, list[PipeCall]] = {}
        self._unsent: set[PipeCall] = set()
        self._idle = trio.Event()
        self._ahead: bytes | None = None
        self._ended: StreamBroken | None = None

    async def run(self) -> None:
        """Serve the client until it has sent its last message, and a while longer.  Cancel safe."""
        try:
            while True:
                body = await self._receive()
                if body is not None:
                    await self._take(body)
        except StreamBroken as error:
            log.debug("a client has left: %s", error)
        for call in self._calls:
            if call.is_listening:
                call.cancel()
        with trio.move_on_after(self._grace * _LAST_WORDS):
            await self._wait_idle()
        for call in self._calls:
            call.abandon()
        with trio.move_on_after(self._grace * (1 - _LAST_WORDS)):
            await self._wait_idle()
        self._nursery.cancel_scope.cancel()

    async def end_at_shutdown(self) -> None:
        """Let the client go when the proxy shuts down and its calls have ended.  Cancel safe."""
        if not self._room.drain.is_draining:
            with self._room.drain.listen():
                await trio.sleep_forever()
        await self._wait_idle()
        self._nursery.cancel_scope.cancel()

    async def aclose(self) -> None:
        """End the session, if there is one.  Takes a few seconds at most, also when cancelled."""
        with trio.move_on_after(END_TIMEOUT, shield=True):
            await self._end_session()

    async def _wait_idle(self) -> None:
        while self._calls:
            await self._idle.wait()

    async def _receive(self) -> bytes | None:
        """Return the next message; None if there was one that cannot be read."""
        if self._ahead is not None:
            body, self._ahead = self._ahead, None
            return body
        if self._ended is not None:
            raise self._ended
        try:
            return await self._stream.receive()
        except MessageTooLong as error:
            await self._refuse(None, InvalidRequest(f"{error}; send less at a time"))
            return None

    async def _deliver(self, message: bytes) -> None:
        """Send one message to the client.  If it has gone, everything for it ends."""
        try:
            await self._stream.send(message)
        except StreamBroken as error:
            log.debug("a client has left: %s", error)
            self._nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

    async def _refuse(self, request_id: RawId | None, error: ShadowcatError) -> None:
        await self._deliver(error_body(request_id, answer_to(error).code, str(error)))

    async def _take(self, body: bytes) -> None:
        try:
            message = decode(body, max_depth=self._max_depth)
            if isinstance(message, Request | Batch):
                await self._take_request(body, message)
            else:
                await self._take_notice(body, message)
        except ProtocolError as error:
            await self._refuse(error.request_id, error)

    async def _take_request(self, body: bytes, message: Request | Batch) -> None:
        if (refusal := self._refusal()) is not None:
            for entry in message.messages if isinstance(message, Batch) else (message,):
                if isinstance(entry, Request):
                    await self._refuse(entry.id, refusal)
            return
        version = declared_version(message.params) if isinstance(message, Request) else None
        if isinstance(message, Request) and version is not None:
            self._modern_version = version
            headers = {**self._headers, **mirror_headers(message, version)}
            headers.update(self._room.endpoint.mirrored.headers_for(headers, message))
            call = self._start(body, message, headers, is_modern=True)
        elif isinstance(message, Request) and message.method == INITIALIZE:
            await self._initialize(body, message)
            return
        else:
            call = self._start(body, message, self._session_headers)
        with trio.move_on_after(self._room.config.order_timeout):
            await call.handed_over.wait()

    def _refusal(self) -> ShadowcatError | None:
        if self._room.drain.is_draining:
            return draining_error()
        if self._is_full():
            return TooManyRequests(f"{len(self._calls)} requests are under way; wait for an answer, then send it again")
        return None

    def _is_full(self) -> bool:
        limit = self._room.config.max_pending
        # The last steps of a call that is answered are no reason to refuse another.
        return len(self._calls) >= limit and sum(not call.answer.settled.is_set() for call in self._calls) >= limit

    @property
    def _session_headers(self) -> Headers:
        return self._headers if self._session is None else self._session.headers

    async def _initialize(self, body: bytes, message: Request) -> None:
        await self._end_session()
        call = self._start(body, message, self._headers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, call)
            await call.answer.settled.wait()
            nursery.cancel_scope.cancel()
        session_id = call.answer.headers.get(SESSION_ID)
        if session_id is not None:
            self._session = PipeSession.opened_by(self._headers, session_id, call.answer.response)

    async def _read_ahead(self, call: PipeCall) -> None:
        """Notice that the client leaves while nothing else may be read of it."""
        try:
            while self._ahead is None:
                self._ahead = await self._receive()
        except StreamBroken as error:
            self._ended = error
            await trio.sleep(self._grace * _LAST_WORDS)
            call.abandon()

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.scope.cancel()
            await end_session(self._room, session.headers, self._deliver)

    async def _take_notice(self, body: bytes, message: Message) -> None:
        """Pass on what asks for no answer, behind all that came before it."""
        version = None
        if isinstance(message, Notification):
            if message.method == CANCELLED and self._cancel(message):
                return
            version = declared_version(message.params)
            if version is None and self._session is None:
                version = self._modern_version
        if version is not None and isinstance(message, Notification):
            headers: Mapping[bytes, bytes] = {**self._headers, **mirror_headers(message, version)}
        elif self._session is not None:
            headers = self._session.headers
        else:
            log.debug("%s outside a session is dropped", _name(message))
            return
        await self._wait_sent()
        if self._is_full():
            log.warning("%s is dropped: too much is under way", _name(message))
            return
        call = self._start(body, message, headers, is_modern=version is not None)
        with trio.move_on_after(self._room.config.order_timeout) as waiting:
            await call.answer.settled.wait()
        if waiting.cancelled_caught:
            log.info("%s is not taken yet; what follows it goes on", _name(message))
        elif call.answer.status >= 400:
            log.info("%s was refused with status %d", _name(message), call.answer.status)
        if isinstance(message, Notification) and message.method == INITIALIZED and self._session is not None:
            self._listen(self._session)

    async def _wait_sent(self) -> None:
        waited_for = list(self._unsent)
        with trio.move_on_after(self._room.config.order_timeout):
            await trio.lowlevel.checkpoint()
            for call in waited_for:
                await call.sent.wait()
        # Nobody waits twice for one that is stuck.
        self._unsent.clear()

    def _cancel(self, message: Notification) -> bool:
        """Cancel a modern call here; return False if the cancellation is to be passed on instead."""
        request_id = cancelled_id(message.params)
        found = self._by_id.get(_key(request_id), ()) if request_id is not None else ()
        if len(found) != 1:
            # Ambiguous, if one of them is modern; of legacy calls the endpoint knows more.
            return any(call.is_modern for call in found)
        found[0].is_cancelled = True
        if found[0].is_modern:
            found[0].cancel()
        return found[0].is_modern

    def _start(self, body: bytes, message: Message | Batch, headers: Headers, *, is_modern: bool = False) -> PipeCall:
        call = PipeCall(self._room, self._deliver, body, message, headers, is_modern)
        self._calls.add(call)
        self._unsent.add(call)
        if isinstance(message, Request):
            self._by_id.setdefault(_key(message.id), []).append(call)
        self._nursery.start_soon(self._run, call, message)
        return call

    async def _run(self, call: PipeCall, message: Message | Batch) -> None:
        try:
            await call.run()
        finally:
            self._calls.discard(call)
            self._unsent.discard(call)
            if isinstance(message, Request):
                calls = self._by_id[_key(message.id)]
                calls.remove(call)
                if not calls:
                    del self._by_id[_key(message.id)]
            if not self._calls:
                self._idle.set()
                self._idle = trio.Event()

    def _listen(self, session: PipeSession) -> None:
        if not session.is_listening:
            session.is_listening = True
            self._nursery.start_soon(self._follow, session)

    async def _follow(self, session: PipeSession) -> None:
        config = self._room.config
        answer = PipeAnswer(self._deliver, (), config.max_answer)
        with session.scope:
            await follow(self._room, session.headers, answer, config.listening, lambda: False)


def _key(request_id: RawId) -> str | float | bytes:
    """Return what is equal for two ids that are one.  A client may say anything of what it cancels."""
    value = read_value(request_id)
    return value if isinstance(value, str | int | float) else request_id


def _name(message: Message) -> str:
    return "an answer of the client" if isinstance(message, Response) else repr(message.method)
