"""An MCP server reached by HTTP.

This is the seam to httpx: what it raises becomes a `ShadowcatError` whose message
tells the client what to do and nothing about where the upstream is; that goes to
the log.
"""

from __future__ import annotations

import logging
import math
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import attrs
import httpx
import trio

from ...errors import (
    ConfigError,
    InvalidRequest,
    RemoteProtocolError,
    ShadowcatError,
    UpstreamDisconnected,
    UpstreamRedirected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from ...protocol import ResponseMode
from ..base import Upstream, UpstreamRequest, UpstreamResponse
from .http1 import PeerDisconnected, encode_head
from .pool import Http1Transport, Http1TransportStatistics, ResponseStream, origin_of

log = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",  # we count ourselves
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")

_UNAVAILABLE = "the upstream server cannot be reached and has not seen the request; send it again later"
_DISCONNECTED = (
    "the upstream server broke off the connection and may have acted on the request; check before sending it again"
)
_TIMED_OUT = "the upstream server took too long and may still be acting on the request; check before sending it again"
_MALFORMED = "the upstream server sent an answer that is not valid HTTP; ask whoever runs this proxy to look at its log"
_REDIRECTED = "the upstream server has moved; ask whoever runs this proxy to configure its new address"
_UNSENDABLE = "the request has a header that HTTP/1.1 cannot carry; remove it and send the request again"


def _convert_headers(fields: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in fields)


@attrs.frozen(kw_only=True)
class HttpUpstreamConfig:
    """An MCP server reached by HTTP."""

    url: str = attrs.field()
    """Where messages are sent: ``http`` or ``https``, a host, maybe port, path and query."""

    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_convert_headers, repr=False)
    """Fields sent with every request, in place of the client's of the same name."""

    connect_timeout: float = attrs.field(default=5.0, validator=attrs.validators.gt(0))
    """Seconds to make a connection, TLS included."""

    answer_timeout: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    """Seconds from sending a request to the head of its answer, connecting included."""

    idle_timeout: float | None = attrs.field(default=300.0)
    """Seconds of silence within a body that is not an event stream, which may be silent for ever."""

    ca_file: str | None = None
    """PEM file with the authorities to trust instead of the system's."""

    @url.validator
    def _check_url(self, _: object, value: str) -> None:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as exc:
            # Without its text, which may quote a piece of a password.
            raise ConfigError("write the upstream's url as http://host/path; what is set is not a URL") from exc
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError("write the upstream's url with its scheme and host, as http://host/path")
        if url.port is not None and not 0 < url.port < 65536:
            raise ConfigError("write a port between 1 and 65535 in the upstream's url")
        if url.userinfo:
            raise ConfigError(
                "remove user and password from the upstream's url and set an authorization header instead"
            )
        if url.fragment or "#" in value:
            raise ConfigError("remove the fragment, from '#' on, from the upstream's url")

    @idle_timeout.validator
    def _check_idle_timeout(self, _: object, value: float | None) -> None:
        if value is not None and value <= 0:
            raise ValueError("'idle_timeout' must be > 0")

    @headers.validator
    def _check_headers(self, _: object, fields: tuple[tuple[str, str], ...]) -> None:
        for name, value in fields:
            if not _TOKEN.fullmatch(name):
                raise ConfigError(f"correct the upstream header {name!r}: that is no header name")
            if name.lower() in _HOP_BY_HOP or name.lower() == "mcp-session-id":
                raise ConfigError(f"remove the upstream header {name!r}: the proxy sets it itself")
            if not _VALUE.fullmatch(value):
                raise ConfigError(
                    f"correct the value of the upstream header {name!r}: "
                    "it may hold printable ASCII, with spaces and tabs only in between"
                )


class HttpUpstream(Upstream):
    """An MCP server reached by HTTP, through any httpx transport.

    Redirects are not followed, cookies are not kept, bodies are not decoded.

    Args:
        transport: What makes and keeps connections.  It stays its owner's to
            close.  By default an `Http1Transport` of our own.
    """

    def __init__(self, config: HttpUpstreamConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._config = config
        self._url = httpx.URL(config.url)
        self._target = self._url.raw_path
        self._origin = origin_of(self._url)
        self._address = self._url.netloc.decode("ascii")
        self._owns_transport = transport is None
        self._transport = Http1Transport(ssl_context=load_trust(config.ca_file)) if transport is None else transport
        self._timeout = {"connect": config.connect_timeout, "read": None, "write": None, "pool": None}
        fields = [(name.lower().encode(), value.encode()) for name, value in config.headers]
        if b"host" not in dict(fields):
            fields.insert(0, (b"host", self._url.netloc))
        self._fields = fields
        self._replaced = {name for name, _ in fields} | {name.encode() for name in _HOP_BY_HOP}

    def statistics(self) -> Http1TransportStatistics | None:
        """Return a snapshot of the connections; None where a transport of the user's own has them."""
        return self._transport.statistics() if isinstance(self._transport, Http1Transport) else None

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send *request* once and return when the head of its answer is here.

        As `Upstream.send`, with two more failures.

        Raises:
            UpstreamRedirected: The answer is a redirect.
            InvalidRequest: The headers cannot be sent.
        """
        headers = [*self._fields, *[field for field in request.headers if field[0] not in self._replaced]]
        if request.body or request.method == "POST":
            headers.append((b"content-length", b"%d" % len(request.body)))
        answer: UpstreamResponse | None = None
        try:
            # Not httpx's read timeout: that would also limit the silence of an event stream.
            # Some servers begin the answer to a GET with its first event, however late that is.
            limit = math.inf if request.method == "GET" else self._config.answer_timeout
            with trio.move_on_after(limit):
                answer = await self._exchange(request, headers)
        except httpx.TransportError as exc:
            raise _translate(exc, self._address) from exc
        if answer is None:
            log.warning("%s: no answer in %s s", self._address, self._config.answer_timeout)
            raise UpstreamTimeout(_TIMED_OUT)
        if 300 <= answer.status < 400 and answer.header(b"location") is not None:
            log.warning("%s: redirected with status %s", self._address, answer.status)
            await answer.aclose()
            raise UpstreamRedirected(_REDIRECTED)
        return answer

    async def _exchange(self, sent: UpstreamRequest, headers: list[tuple[bytes, bytes]]) -> UpstreamResponse:
        method, body, transport = sent.method, sent.body, self._transport
        if isinstance(transport, Http1Transport):
            head = encode_head(method, self._target, headers)
            status, fields, received = await transport.exchange(
                self._origin, method, head, body, self._timeout, sent.on_sent
            )
            return self._wrap(status, fields, received)
        request = httpx.Request(
            method,
            self._url,
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={"timeout": self._timeout},
        )
        response = await transport.handle_async_request(request)
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError("the transport answers with a stream that is not asynchronous")
        return self._wrap(response.status_code, response.headers.raw, stream)

    def _wrap(self, status: int, fields: list[tuple[bytes, bytes]], stream: httpx.AsyncByteStream) -> UpstreamResponse:
        headers = [(name.lower(), value) for name, value in fields]
        if isinstance(stream, ResponseStream) and stream.is_received:
            # Most answers: no error to translate and no silence to limit.
            return UpstreamResponse(status, headers, stream, stream.aclose)
        body = _Body(stream, self._address)
        answer = UpstreamResponse(status, headers, body, body.aclose)
        content_type = (answer.header(b"content-type") or b"").decode("latin-1")
        if ResponseMode.from_content_type(content_type) is not ResponseMode.SSE_STREAM:
            body.idle_timeout = self._config.idle_timeout or math.inf
        return answer

    def break_off(self) -> None:
        """Close the connections that are in use, too, unless the transport was given to us."""
        if self._owns_transport and isinstance(self._transport, Http1Transport):
            self._transport.break_off()

    async def aclose(self) -> None:
        """Close idle connections, unless the transport was given to us."""
        if self._owns_transport:
            await self._transport.aclose()
        else:
            await trio.lowlevel.checkpoint()


class _Body:
    """The body of an answer, from whatever transport."""

    idle_timeout = math.inf

    def __init__(self, stream: httpx.AsyncByteStream, upstream: str) -> None:
        self._upstream = upstream
        self._stream = stream
        self._chunks = stream.__aiter__()
        self._is_cut = False
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            chunk = await self._read()
            if chunk:
                return chunk

    async def _read(self) -> bytes:
        if self._is_cut:
            # A generator that has raised claims to be at its end.
            await trio.lowlevel.checkpoint()
            raise UpstreamDisconnected(_DISCONNECTED)
        chunk: bytes | None = None
        try:
            with trio.move_on_after(self.idle_timeout):
                chunk = await self._chunks.__anext__()
        except httpx.TransportError as exc:
            self._is_cut = True
            raise _translate(exc, self._upstream) from exc
        except trio.Cancelled:
            self._is_cut = isinstance(self._chunks, AsyncGenerator)
            raise
        if chunk is None:
            self._is_cut = True
            log.warning("%s: silent for %s s within a body", self._upstream, self.idle_timeout)
            raise UpstreamTimeout(_TIMED_OUT)
        return chunk

    async def aclose(self) -> None:
        """Give up what has not been read; shielded, since some transports wait here."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = self._is_cut = True
        with trio.move_on_after(1, shield=True):
            try:
                if isinstance(self._chunks, AsyncGenerator):
                    await self._chunks.aclose()
            finally:
                await self._stream.aclose()


def _translate(exc: httpx.TransportError, upstream: str) -> ShadowcatError:
    log.warning("%s: %s: %s", upstream, type(exc).__name__, _reason_of(exc))
    match exc:
        case (
            httpx.ConnectError()
            | httpx.ConnectTimeout()
            | httpx.PoolTimeout()
            | httpx.ProxyError()
            | httpx.UnsupportedProtocol()
        ):
            return UpstreamUnavailable(_UNAVAILABLE)
        case httpx.TimeoutException():
            return UpstreamTimeout(_TIMED_OUT)
        case httpx.LocalProtocolError():
            return InvalidRequest(_UNSENDABLE)
        case httpx.RemoteProtocolError() if not _is_disconnect(exc):
            return RemoteProtocolError(_MALFORMED)
        case _:
            return UpstreamDisconnected(_DISCONNECTED)


def _reason_of(exc: httpx.TransportError) -> str:
    """Return what the system says; trio only counts the attempts to connect."""
    attempts = None if exc.__cause__ is None else exc.__cause__.__cause__
    if isinstance(attempts, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(str(attempt) for attempt in attempts.exceptions))
    return str(exc)


def load_trust(ca_file: str | None) -> ssl.SSLContext | None:
    """Return a context that trusts the authorities in *ca_file* alone; None if there is no such file.

    Raises:
        ConfigError: It cannot be read.
    """
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(f"name a readable PEM file as the upstream's ca_file: {exc}") from exc


def _is_disconnect(exc: httpx.RemoteProtocolError) -> bool:
    # httpcore has one class for nonsense and for silence, but says which: "Server disconnected
    # without sending a response", "peer closed connection without sending complete message body".
    return isinstance(exc, PeerDisconnected) or "disconnected" in str(exc) or "closed connection" in str(exc)
