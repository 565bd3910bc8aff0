"""An upstream made of message streams.

To the proxy it is a streamable HTTP server: ``initialize`` opens a stream and is
answered with a session id of its own, what follows with that id goes there, and when
the stream has broken the id is unknown, so that the proxy opens another session.
Modern requests, which have none, share a few streams.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from ...protocol import (
    INITIALIZE,
    INVALID_REQUEST,
    LEGACY_VERSIONS,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION,
    SESSION_ID,
    TRACE_CONTEXT,
    Era,
    Message,
    Notification,
    RawId,
    Request,
    declared_version,
    era_of,
    error_body,
    peek,
)
from ..base import Connector, RawHeaders, Upstream, UpstreamRequest, UpstreamResponse
from .pipe_config import PipeConfig, PipeCounters, PipeStatistics
from .pipe_exchange import answer_with
from .pipe_opener import PipeOpener
from .pipe_session import PipeSession, session_lost
from .stateless import StatelessPipes

_OF_ONE_REQUEST = frozenset(
    {b"accept", b"accept-encoding", b"content-length", b"content-type", b"host", *TRACE_CONTEXT}
)
"""Headers that say nothing of who opens a stream."""

_REAP_INTERVAL = 10.0
"""Seconds between two looks for what has been idle for long; less if that is not long."""

_NO_INITIALIZE = "this protocol version has no initialize; send the request itself, or initialize in an older version"
_NO_SESSION = "the Mcp-Session-Id header is missing; send initialize first"


class PipeUpstream(Upstream):
    """A server that is reached by message streams.  Made by `open_pipe_upstream`."""

    def __init__(self, opener: PipeOpener, config: PipeConfig, counters: PipeCounters) -> None:
        self._opener = opener
        self._config = config
        self._counters = counters
        self._sessions: dict[bytes, PipeSession] = {}
        self._stateless = StatelessPipes(opener, config, counters)

    def statistics(self) -> PipeStatistics:
        """Return what it has, and has had, to do."""
        counters = self._counters
        return PipeStatistics(
            open=self._opener.open,
            sessions=len(self._sessions),
            spares=self._opener.spares,
            pending=counters.pending,
            late=counters.late,
            dropped=counters.dropped,
            garbage=counters.garbage,
            opened=counters.opened,
            broken=counters.broken,
        )

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Bring a request to the stream that it belongs to; see `Upstream.send`.

        Raises:
            UpstreamBusy: As much is under way as is allowed; nothing was sent.
            UpstreamUnavailable: No stream can be opened; nothing was sent.
            UpstreamDisconnected: The stream broke; the server may have acted.
            RemoteProtocolError: The answer was too long.
        """
        headers = dict(request.headers)
        session_id = headers.get(SESSION_ID)
        if session_id is None:
            if request.method == "POST":
                return await self._post(request, headers.get(PROTOCOL_VERSION))
            await trio.lowlevel.checkpoint()
            return answer_with(400, error_body(None, INVALID_REQUEST, _NO_SESSION))
        session = self._sessions.get(session_id)
        if session is not None and request.method == "POST":
            return await session.post(request.body, request.on_sent)
        await trio.lowlevel.checkpoint()
        # It may have ended just now.
        session = self._sessions.get(session_id)
        if session is None:
            return session_lost()
        if request.method == "GET":
            return session.listen()
        session.end()
        return answer_with(200)

    async def _post(self, request: UpstreamRequest, declared: bytes | None) -> UpstreamResponse:
        message = peek(request.body)
        header = None if declared is None else declared.decode("latin-1").strip()
        if isinstance(message, Request) and message.method == INITIALIZE and era_of(header or "") is not Era.MODERN:
            return await self._initialize(message, request)
        if isinstance(message, Request | Notification):
            in_body = declared_version(message.params)
            version = header if in_body is None else in_body
            if version is not None and version not in LEGACY_VERSIONS:
                if message.method == INITIALIZE:
                    # Never on a stream that is shared: a server of both eras would take it for a session's.
                    await trio.lowlevel.checkpoint()
                    return answer_with(404, error_body(_id_of(message), METHOD_NOT_FOUND, _NO_INITIALIZE))
                return await self._stateless.post(_opening_headers(request), message, request.body, version)
        await trio.lowlevel.checkpoint()
        return answer_with(400, error_body(_id_of(message), INVALID_REQUEST, _NO_SESSION))

    async def _initialize(self, message: Request, request: UpstreamRequest) -> UpstreamResponse:
        pipe = await self._opener.take(_opening_headers(request))
        session = PipeSession(pipe, self._config, self._counters, self._forget)
        self._sessions[session.id.encode()] = session
        return await session.open(message, request.body)

    def _forget(self, session: PipeSession) -> None:
        self._sessions.pop(session.id.encode(), None)

    async def reap(self) -> None:
        """End sessions and streams that have been idle for long, until cancelled."""
        interval = min(_REAP_INTERVAL, self._config.idle_timeout / 4, self._config.pool_idle_timeout / 4)
        while True:
            await trio.sleep(interval)
            now = trio.current_time()
            for session in [session for session in self._sessions.values() if session.is_idle(now)]:
                session.end()
            self._stateless.reap(now)


def _id_of(message: Message | None) -> RawId | None:
    return message.id if isinstance(message, Request) else None


def _opening_headers(request: UpstreamRequest) -> RawHeaders:
    return tuple(
        (name, value) for name, value in request.headers if name not in _OF_ONE_REQUEST and not name.startswith(b"mcp-")
    )


@asynccontextmanager
async def open_pipe_upstream(connector: Connector, config: PipeConfig) -> AsyncGenerator[PipeUpstream, None]:
    """Make an upstream of the streams that *connector* opens, for as long as the block lasts.

    Spares are opened in the background.  At the end all streams are closed at once,
    which takes as long as the connector takes; whoever still waits is told.  Cancel safe.
    """
    counters = PipeCounters()
    async with trio.open_nursery() as nursery:
        opener = PipeOpener(connector, config, counters, nursery)
        upstream = PipeUpstream(opener, config, counters)
        nursery.start_soon(opener.keep_spares)
        nursery.start_soon(upstream.reap)
        yield upstream
        nursery.cancel_scope.cancel()
