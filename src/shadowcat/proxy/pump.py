"""Reading one event stream from the upstream, over as many connections as it takes.

A stream that is cut is resumed: with ``GET`` and ``Last-Event-ID``, never by sending
the request again.  It goes on while its client is away, for a while.

What ends an attempt, and what follows:

* the answer has been delivered: the stream is over;
* an upstream id was seen: resume after it; none was: the caller is told, and what
  merely listened listens again;
* 404: the upstream session is lost.  The caller is told, and what listened goes on
  in the session that takes its place;
* 405, 401, 403 and other 4xx: it ends, and the caller is told;
* 408, 409, 425, 429, 5xx or no connection: tried again, later each time, within a
  budget that begins anew with each event.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection

import attrs
import trio

from ..errors import (
    ProtocolError,
    SessionNotFound,
    ShadowcatError,
    StoreError,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamTimeout,
)
from ..protocol import (
    BATCH_VERSION,
    LAST_EVENT_ID,
    LOG_MESSAGE,
    RawId,
    ResponseMode,
    SSEBlock,
    SSEEvent,
    SSEFramer,
    error_body,
    is_same_id,
    peek_response,
    read_block,
    without_ids,
)
from ..resilience import Backoff, BackoffConfig
from ..session import EndReason, EventStream, Session, SessionManager, StreamKind, epoch_of, read_upstream_id
from ..transport import RawHeaders, UpstreamRequest, UpstreamResponse
from .answers import answer_to
from .recovery import SessionUpstream, session_headers
from .restore import IdRestorer

log = logging.getLogger(__name__)

_AFTERMATH = 1.0
"""Seconds that a server has to end a stream by itself after the answer."""

_HEAD_TIMEOUT = 30.0
"""Seconds that the upstream has to begin its answer to an attempt to resume."""

_POLITE = 1.0
"""Seconds from which on a server that wants to be asked again later is taken at its word, for ever."""

_LONG = 5.0
"""Seconds after which a connection that brought nothing was a good one all the same."""

_RETRIED = frozenset({408, 409, 425, 429})

_CHECK = "and may have acted on the request; check before sending it again"
_NO_ANSWER = f"the upstream ended the stream without an answer {_CHECK}"
_REFUSED = f"the upstream does not resume the stream {_CHECK}"
_FORGOTTEN = f"the upstream has lost the session {_CHECK}"
_GIVEN_UP = f"the upstream cannot be reached any more {_CHECK}"
_AWAY = f"the client was away too long: the proxy stopped waiting for the upstream, which may still act {_CHECK}"
_GAP = "the connection to the server was interrupted; messages that it sent meanwhile may be lost"


@attrs.frozen(kw_only=True)
class PumpConfig:
    """How streams are resumed."""

    backoff: BackoffConfig = attrs.field(factory=BackoffConfig)
    max_reconnects: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    """How many connections are made to the upstream at once for that."""

    max_block: int = attrs.field(default=1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of an event that are held until it is complete; a longer one passes in parts, and is not kept."""


@attrs.frozen
class PumpRoom:
    """What all pumps share."""

    recovery: SessionUpstream
    sessions: SessionManager
    config: PumpConfig
    reconnects: trio.CapacityLimiter


class StreamPump:
    """Fills one stream.  `run` does so until it is over.

    Args:
        headers: Of the client's request, as they go upstream.
        waiting: The ids, as sent, whose responses make up the answer; None if nobody
            knows any more, and the first response is it.
    """

    def __init__(
        self,
        room: PumpRoom,
        session: Session,
        stream: EventStream,
        headers: RawHeaders,
        waiting: Collection[RawId] | None = None,
    ) -> None:
        self._room = room
        self._waiting = None if waiting is None else list(waiting)
        self._session = session
        self._stream = stream
        self._headers = [field for field in headers if field[0] not in (b"accept", b"content-type")]
        self._headers.append((b"accept", b"text/event-stream"))
        self._backoff = Backoff(room.config.backoff)
        self._retry = 0.0
        self._has_recovered = False
        self._is_skipping = False
        self._is_partial = False
        self._is_cut = False
        self.is_granted = False
        """Whether the request was answered, and not with an error."""
        minted = room.sessions.minted_ids(session)
        if stream.sent_id is not None and stream.request_id is not None and stream.sent_id != stream.request_id:
            minted = {stream.sent_id: stream.request_id}
        self._restorer = IdRestorer(minted)

    async def run(self, answer: UpstreamResponse | None) -> None:
        """Read *answer*, or resume if it is None, until the stream is over or its client away for long.

        Cancel safe: what has been read is in the stream.
        """
        stream = self._stream
        try:
            with stream.presence as scope:
                await self._fill(answer)
            if scope.cancelled_caught:
                self._stop()
        finally:
            if answer is not None:
                await answer.aclose()

    def _stop(self) -> None:
        stream, streams = self._stream, self._room.sessions.streams
        if stream.is_fenced:
            streams.drop(stream)
        elif stream.kind is StreamKind.ANSWER and stream.resume is None:
            self._fail(UpstreamTimeout(_AWAY))
        else:
            log.debug("nobody has come back for a stream, which is parked")
            stream.park(self._room.sessions.now())
            streams.note_rest(stream)

    async def _fill(self, answer: UpstreamResponse | None) -> None:
        while not self._stream.is_ended:
            if answer is None:
                answer = await self._reopen()
                if answer is None:
                    return
            try:
                await self._read(answer)
            finally:
                await answer.aclose()
            answer = None
            if self._is_partial:
                # Its client has the beginning of an event that will come again as a whole.
                self._room.sessions.streams.drop(self._stream)
                return
            if self._is_over():
                self._end()

    async def _read(self, answer: UpstreamResponse) -> None:
        framer = SSEFramer(self._room.config.max_block)
        self._is_cut = False
        began = trio.current_time()
        try:
            with trio.CancelScope() as scope:
                async for chunk in answer.body:
                    for block in framer.feed(chunk):
                        self._take(block)
                    await self._stream.wait_room()
                    if self._stream.is_answered and scope.deadline == math.inf:
                        scope.deadline = trio.current_time() + _AFTERMATH
        except (UpstreamError, ProtocolError) as error:
            log.info("an event stream was cut: %s", error)
            self._is_cut = True
        if trio.current_time() - began >= _LONG:
            self._backoff.progress()

    def _take(self, block: SSEBlock) -> None:
        upstream_id, text = None, block.text
        is_last = False
        if block.begins:
            event, text = read_block(text)
            if not self._accept(event):
                self._is_skipping = not block.ends
                return
            upstream_id = read_upstream_id(event.id)
            is_last = block.ends and self._completes(event)
        elif self._is_skipping:
            self._is_skipping = not block.ends
            return
        else:
            text = without_ids(text)
            # Too long to be read: as good as certainly the answer.
            is_last = block.ends and self._stream.kind is StreamKind.ANSWER
        self._is_partial = not block.ends
        self._room.sessions.streams.events += block.begins
        self._stream.publish(
            self._restored(block, text),
            upstream_id,
            self._room.sessions.now(),
            begins=block.begins,
            ends=block.ends,
            is_last=is_last and not self._stream.is_answered,
        )

    def _accept(self, event: SSEEvent) -> bool:
        """Take note of what an event says beside its data; return whether it is to be passed on."""
        if event.is_empty:
            return False  # a comment
        if event.retry is not None:
            self._stream.retry = event.retry
            self._retry = min(event.retry / 1000, self._room.config.backoff.cap)
            if self._retry >= _POLITE:
                self._backoff.note_alive()
        upstream_id = read_upstream_id(event.id)
        if upstream_id is not None and not self._stream.tracker.record(upstream_id):
            self._room.sessions.streams.duplicates += 1
            log.debug("an event came twice")
            return False
        if event.data:
            self._backoff.progress()
            return True
        if upstream_id is not None:
            self._backoff.note_alive()
            self._stream.note_upstream_id(upstream_id)
        return False

    def _completes(self, event: SSEEvent) -> bool:
        """Tell whether an event is the last that the client waits for."""
        if self._stream.kind is not StreamKind.ANSWER or self._stream.is_answered:
            return False
        message = peek_response(event.data or b"")
        if message is None:
            return False
        if self._waiting is not None:
            found = [request_id for request_id in self._waiting if is_same_id(message.id, request_id)]
            if not found:
                return False
            self._waiting.remove(found[0])
            if self._waiting:
                return False
        elif self._is_batch:
            return False
        self.is_granted, self._stream.is_error = not message.is_error, message.is_error
        return True

    def _restored(self, block: SSEBlock, text: bytes) -> bytes:
        if block.begins and block.ends:
            return self._restorer.restore(text)
        text = self._restorer.feed(text)
        return text + self._restorer.flush() if block.ends else text

    def _is_over(self) -> bool:
        stream = self._stream
        if stream.kind is StreamKind.LISTENING:
            return False
        return stream.is_answered or stream.is_cancelled or (self._is_batch and not self._is_cut)

    @property
    def _is_batch(self) -> bool:
        return self._stream.request_id is None and self._session.protocol_version == BATCH_VERSION

    async def _reopen(self) -> UpstreamResponse | None:
        """Connect again; None if the stream has ended instead."""
        stream, room = self._stream, self._room
        if stream.kind is StreamKind.ANSWER and stream.resume is None:
            self._fail(UpstreamDisconnected(_NO_ANSWER))
        while not stream.is_ended:
            if stream.is_cancelled:
                self._end()
                break
            wait = self._backoff.next_wait(self._retry)
            if wait is None:
                self._fail(UpstreamDisconnected(_GIVEN_UP))
                break
            await trio.sleep(wait)
            try:
                answer = await self._attempt()
            except (UpstreamError, ProtocolError, StoreError) as error:
                log.info("a stream is not resumed yet: %s", error)
                continue
            except SessionNotFound:
                room.sessions.streams.drop(stream)
                break
            if answer is not None:
                return answer
        return None

    async def _attempt(self) -> UpstreamResponse | None:
        """Connect once; None if that did not work out, in which case the stream may have ended."""
        stream, room = self._stream, self._room
        session = self._session = await room.sessions.store.get_session(self._session.id)
        self._enter(epoch_of(session))
        if stream.is_ended:
            return None
        headers = [*self._headers, *session_headers(session.upstream_session_id)]
        if stream.resume is not None:
            headers.append((LAST_EVENT_ID, stream.resume.upstream_id.encode()))
        upstream = room.recovery.upstream_of(session.upstream_name)
        answer: UpstreamResponse | None = None
        with trio.move_on_after(_HEAD_TIMEOUT):
            async with room.reconnects:
                answer = await upstream.send(UpstreamRequest("GET", headers, is_call=False))
        if answer is None:
            log.info("the upstream does not answer to a stream that is to be resumed")
            return None
        if answer.status == 200 and answer.mode is ResponseMode.SSE_STREAM:
            room.sessions.streams.reconnected += 1
            if stream.resume is None:
                self._report_gap()
            stream.settle()
            self._has_recovered = False
            return answer
        await answer.aclose()
        if answer.status == 404 and session.upstream_session_id is not None:
            await self._lose(session)
        elif answer.status < 500 and answer.status not in _RETRIED:
            log.warning("the upstream answered %d to a stream that was to be resumed", answer.status)
            self._fail(UpstreamDisconnected(_REFUSED))
        return None

    def _enter(self, epoch: int) -> None:
        """Go on in the session's present upstream session, which may be another than before."""
        stream = self._stream
        if epoch == stream.epoch and (stream.resume is None or stream.resume.epoch == epoch):
            return
        if stream.kind is StreamKind.ANSWER:
            self._fail(UpstreamDisconnected(_FORGOTTEN))
        else:
            stream.begin_epoch(epoch)

    async def _lose(self, session: Session) -> None:
        if self._stream.kind is StreamKind.ANSWER:
            self._fail(UpstreamDisconnected(_FORGOTTEN))
        elif self._has_recovered:
            # To what listens, 404 may as well mean that there is nothing to listen to.
            self._fail(UpstreamDisconnected(_REFUSED))
        elif self._room.recovery.is_enabled:
            self._has_recovered = True
            await self._room.recovery.recover(session, self._headers)
        else:
            await self._room.sessions.end(session.id, EndReason.UPSTREAM)

    def _report_gap(self) -> None:
        """Say on a listening stream that something may be missing, if its client can be told."""
        self._room.sessions.streams.lost()
        log.warning("a listening stream was interrupted; what the upstream sent meanwhile is lost")
        capabilities = self._session.initialize_result.get("capabilities")
        if isinstance(capabilities, dict) and "logging" in capabilities:
            params = {"level": "warning", "logger": "shadowcat", "data": _GAP}
            self._publish(json.dumps({"jsonrpc": "2.0", "method": LOG_MESSAGE, "params": params}).encode())

    def _fail(self, error: ShadowcatError) -> None:
        """End the stream, and tell the caller why if it still waits for the answer."""
        stream = self._stream
        log.warning("a stream ends before its time: %s", error)
        stream.failure = error
        if stream.kind is StreamKind.ANSWER and stream.request_id is not None:
            if not stream.is_answered:
                self._publish(error_body(stream.request_id, answer_to(error).code, str(error)), is_last=True)
        elif not stream.is_answered:
            stream.is_lost = True
        self._end()

    def _publish(self, message: bytes, *, is_last: bool = False) -> None:
        now = self._room.sessions.now()
        self._stream.publish(b"event: message\ndata: " + message, None, now, is_last=is_last)

    def _end(self) -> None:
        self._stream.end(self._room.sessions.now())
        self._room.sessions.streams.note_rest(self._stream)
