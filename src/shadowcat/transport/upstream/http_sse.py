"""Reaching an MCP server by HTTP+SSE, the transport of protocol version 2024-11-05."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager

import attrs
import httpx
import trio

from ...errors import ProtocolError, StreamBroken, UpstreamError, UpstreamRedirected, UpstreamUnavailable
from ...protocol import TRACE_CONTEXT, ResponseMode
from ..base import Connector, MessageStream, RawHeaders, UpstreamRequest, UpstreamResponse
from .http import HttpUpstream, HttpUpstreamConfig, load_trust
from .http_sse_stream import EventReader, HttpSseStream
from .pool import Http1Transport

log = logging.getLogger(__name__)

_OF_ONE_REQUEST = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"expect",
        b"host",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        *TRACE_CONTEXT,
    }
)
"""Fields of the request that asks for a stream which do not hold for all requests on it."""
_PARAM_PREFIX = b"mcp-param-"

_OF_THE_STREAM = ((b"accept", b"text/event-stream"), (b"accept-encoding", b"identity"), (b"cache-control", b"no-store"))

_MAX_ENDPOINT = 8192
"""Bytes of a URI."""

_UNAVAILABLE = "the upstream server cannot be reached and has not seen the request; send it again later"
_UNAUTHORIZED = "the upstream server does not accept the credentials it is sent; correct them, then send it again"
_OVERLOADED = "the upstream server serves no event stream at the moment; send the request again later"
_NOT_SSE = (
    "the upstream server does not answer with an HTTP+SSE stream; ask whoever runs this proxy to check the upstream's "
    "url, and whether it speaks another transport"
)
_NO_ENDPOINT = "the upstream server did not say in time where messages go; send the request again later"
_BAD_ENDPOINT = (
    "the upstream server wants messages at what is no valid URI; ask whoever runs that server to name a relative one"
)
_FOREIGN_ENDPOINT = (
    "the upstream server wants messages at another origin than its own, which is not allowed; "
    "ask whoever runs that server to name a relative URI"
)

_positive = attrs.validators.gt(0.0)


def _convert_headers(fields: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in fields)


@attrs.frozen(kw_only=True)
class HttpSseUpstreamConfig:
    """An MCP server reached by HTTP+SSE (2024-11-05).  Durations are in seconds."""

    url: str = attrs.field()
    """Where the event stream is: ``http`` or ``https``, a host, maybe port, path and query."""

    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_convert_headers, repr=False)
    """Fields sent with every request, in place of the client's of the same name."""

    connect_timeout: float = attrs.field(default=5.0, validator=_positive)
    """How long it may take to make a connection, TLS included."""

    open_timeout: float = attrs.field(default=30.0, validator=_positive)
    """How long it may take until the server has said where messages go, connecting included."""

    answer_timeout: float = attrs.field(default=300.0, validator=_positive)
    """How long the server may take to accept one message, connecting included."""

    max_message_size: int = attrs.field(default=16 * 1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of one message from the server; a longer one is dropped."""

    ca_file: str | None = None
    """PEM file with the authorities to trust instead of the system's."""

    @url.validator
    def _check_url(self, _: object, value: str) -> None:
        HttpUpstreamConfig(url=value)

    @headers.validator
    def _check_headers(self, _: object, fields: tuple[tuple[str, str], ...]) -> None:
        HttpUpstreamConfig(url="http://checks.invalid", headers=fields)


class HttpSseConnector(Connector):
    """Opens HTTP+SSE streams to an MCP server.  Redirects are not followed.

    Args:
        transport: What makes connections.  It stays its owner's to close.  If a body of
            its cannot be read on after a cancellation, a cancelled `MessageStream.receive`
            ends the stream.  By default each stream has an `Http1Transport` of its own.

    Raises:
        ConfigError: ``config.ca_file`` cannot be read.
    """

    takes_headers = True

    def __init__(self, config: HttpSseUpstreamConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._config = config
        self._url = httpx.URL(config.url)
        self._address = self._url.netloc.decode("ascii")
        self._transport = transport
        self._trust: ssl.SSLContext | None = None
        if transport is None and self._url.scheme == "https":
            # Once, since it takes a while to read the system's authorities.
            self._trust = load_trust(config.ca_file) or ssl.create_default_context()

    @asynccontextmanager
    async def open(self, headers: RawHeaders) -> AsyncGenerator[MessageStream, None]:
        """Open a stream for as long as the block lasts; see `Connector.open`.

        The server sees the end of the block as that of the GET.
        """
        fields = [field for field in headers if _is_of_every_request(field[0])]
        deadline = trio.current_time() + self._config.open_timeout
        async with self._open_transport() as transport:
            with self._in_time(deadline):
                answer = await self._get(transport, fields)
            stream: HttpSseStream | None = None
            try:
                events = EventReader(answer.body, self._config.max_message_size)
                with self._in_time(deadline):
                    endpoint = await self._read_endpoint(events)
                post = HttpUpstream(self._as_http(str(endpoint)), transport)
                stream = HttpSseStream(events, post, fields, self._address)
                yield stream
            finally:
                if stream is not None:
                    stream.close()
                await answer.aclose()

    @asynccontextmanager
    async def _open_transport(self) -> AsyncGenerator[httpx.AsyncBaseTransport, None]:
        if self._transport is not None:
            yield self._transport
            return
        own = Http1Transport(ssl_context=self._trust)
        try:
            yield own
        finally:
            with trio.move_on_after(1, shield=True):
                await own.aclose()

    @contextmanager
    def _in_time(self, deadline: float) -> Generator[None, None, None]:
        try:
            with trio.fail_at(deadline):
                yield
        except trio.TooSlowError:
            raise self._refuse(f"no endpoint event in {self._config.open_timeout:g} s", _NO_ENDPOINT) from None

    async def _get(self, transport: httpx.AsyncBaseTransport, fields: RawHeaders) -> UpstreamResponse:
        """Return the event stream, nothing of it read."""
        upstream = HttpUpstream(self._as_http(self._config.url), transport)
        try:
            answer = await upstream.send(UpstreamRequest("GET", [*fields, *_OF_THE_STREAM]))
        except UpstreamRedirected as error:
            raise UpstreamUnavailable(str(error)) from error
        except (UpstreamError, ProtocolError) as error:
            # What it says of the request is not true of the message that the client waits for.
            raise UpstreamUnavailable(_UNAVAILABLE) from error
        if answer.status == 200 and answer.mode is ResponseMode.SSE_STREAM:
            return answer
        content_type = answer.header(b"content-type")
        await answer.aclose()
        raise self._refuse(f"answered with status {answer.status} and {content_type!r}", _reason(answer.status))

    async def _read_endpoint(self, events: EventReader) -> httpx.URL:
        """Return where messages go, which the first event says."""
        try:
            event = await events.next()
        except StreamBroken as error:
            raise self._refuse(f"ended its stream before the first event: {error}", _UNAVAILABLE) from error
        data = (event.data or b"").strip()
        if event.event != b"endpoint":
            raise self._refuse("began with another event than endpoint", _NOT_SSE)
        if event.is_truncated or not 0 < len(data) <= _MAX_ENDPOINT:
            raise self._refuse(f"named an endpoint of {len(data)} bytes", _BAD_ENDPOINT)
        try:
            url = self._url.join(data.decode("ascii")).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError) as error:
            raise self._refuse(f"named the endpoint {data!r}: {error}", _BAD_ENDPOINT) from error
        if url.userinfo or _origin(url) != _origin(self._url):
            raise self._refuse(f"named the endpoint {data!r}", _FOREIGN_ENDPOINT)
        return url

    def _as_http(self, url: str) -> HttpUpstreamConfig:
        config = self._config
        return HttpUpstreamConfig(
            url=url,
            headers=config.headers,
            connect_timeout=config.connect_timeout,
            answer_timeout=config.answer_timeout,
        )

    def _refuse(self, what: str, text: str) -> UpstreamUnavailable:
        log.warning("%s: %s", self._address, what)
        return UpstreamUnavailable(text)


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    # Not the pool's, to which port 0 is none: httpx leaves out the default port.
    return url.scheme, url.raw_host, url.port


def _is_of_every_request(name: bytes) -> bool:
    return name not in _OF_ONE_REQUEST and not name.startswith(_PARAM_PREFIX)


def _reason(status: int) -> str:
    match status:
        case 401 | 403:
            return _UNAUTHORIZED
        case 408 | 429 | 500 | 502 | 503 | 504:
            return _OVERLOADED
        case _:
            return _NOT_SSE
