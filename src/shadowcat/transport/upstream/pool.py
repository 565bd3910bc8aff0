"""An httpx transport that keeps HTTP/1.1 connections alive, made for many open streams.

httpx's own transport walks every open connection on each request, so that
thousands of open event streams tax every call; here a connection in use is
known to its response only, and the pool holds the idle ones.  There is no limit
on open connections: whoever lets clients in limits them.

Nothing is ever sent twice.  An idle connection that the server has closed is
found out before it is used, and idle ones are dropped before servers usually do
so, but a server that closes at the very moment we write makes the request fail:
it may have been acted upon, and only the caller knows whether that matters.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import attrs
import httpx
import trio

from ..tcp import TcpStream
from .http1 import Http1Connection, encode_head

_AT_ONCE = 65536
"""Bytes of a request body that any server's buffers take before it reads them."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""

RawFields = list[tuple[bytes, bytes]]
"""Header fields as they came."""

Head = tuple[int, RawFields]

_UNLIMITED = nullcontext()


@attrs.frozen
class Http1TransportStatistics:
    """A snapshot of the connections of an `Http1Transport`."""

    open: int
    """Connections open now, idle ones included."""
    idle: int
    """Connections waiting for a request."""
    opened_total: int
    """Connections ever made."""
    reused_total: int
    """Requests that were sent on a connection that had been kept."""


@attrs.define(eq=False)
class _Link:
    origin: Origin
    socket: trio.socket.SocketType
    http: Http1Connection
    expires_at: float = 0.0
    _poll: select.poll = attrs.field(init=False, factory=select.poll)

    def __attrs_post_init__(self) -> None:
        self._poll.register(self.socket.fileno(), select.POLLIN)

    def is_stale(self) -> bool:
        """Whether the peer has closed the connection, or sent what nobody asked for."""
        return bool(self._poll.poll(0))


class Http1Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over kept-alive connections, at a cost that does not grow with their number.

    Sends exactly the headers of the request; adds ``Host`` and the framing of
    the body if they are missing.  Timeouts are taken from the request's
    extensions, as httpx puts them there; ``pool`` means nothing here.

    Args:
        ssl_context: For ``https``; its ALPN protocols are set to HTTP/1.1.  By
            default the one `ssl.create_default_context` makes.
        keepalive_expiry: Seconds an idle connection is kept.  Many servers
            close theirs after five.
        max_idle_per_origin: Connections kept idle for one scheme, host and port.
        max_header_bytes: Limit of the header section of an answer.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        keepalive_expiry: float = 2.0,
        max_idle_per_origin: int = 64,
        max_header_bytes: int = 65536,
    ) -> None:
        self._ssl_context = ssl_context
        if ssl_context is not None:
            ssl_context.set_alpn_protocols(["http/1.1"])
        self._keepalive_expiry = keepalive_expiry
        self._max_idle = max_idle_per_origin
        self._max_header_bytes = max_header_bytes
        self._idle: dict[Origin, deque[_Link]] = {}
        self._connections: dict[trio.SocketStream, Http1Connection] = {}
        self._opened_total = self._reused_total = 0

    def statistics(self) -> Http1TransportStatistics:
        """Return a snapshot of the connections."""
        idle = sum(map(len, self._idle.values()))
        return Http1TransportStatistics(len(self._connections), idle, self._opened_total, self._reused_total)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* once and return when the head of its answer is here.

        A checkpoint; if cancelled, the connection is closed and the request may
        have been acted upon.

        Raises:
            httpx.LocalProtocolError: The request cannot be sent as it stands.
            httpx.UnsupportedProtocol: The URL is neither ``http`` nor ``https``.
            httpx.ConnectError, httpx.ConnectTimeout: Nothing was sent.
            httpx.TransportError: Any other failure; it may have been acted upon.
        """
        timeouts = request.extensions.get("timeout") or {}
        head, body = await _encode(request)
        status, headers, stream = await self.exchange(origin_of(request.url), request.method, head, body, timeouts)
        return httpx.Response(status, headers=headers, stream=stream, request=request)

    async def exchange(
        self,
        origin: Origin,
        method: str,
        head: bytes,
        body: bytes | AsyncIterable[bytes],
        timeouts: Mapping[str, float | None],
        on_sent: Callable[[], None] | None = None,
    ) -> tuple[int, RawFields, ResponseStream]:
        """Send a request that is encoded already; return status, headers and body of the answer.

        As `handle_async_request`, without the objects of httpx, which cost more than the rest.

        Args:
            head: See `encode_head`.
            body: If it is not bytes, it is sent in chunks, and *head* has to say so.
            timeouts: Seconds, by the names that httpx has for them.
            on_sent: Called when a body that is bytes has been sent.
        """
        link = self._take(origin)
        self._reused_total += link is not None
        if link is None:
            with _limit(timeouts.get("connect"), httpx.ConnectTimeout, "no connection in time"):
                link = await self._connect(origin)
        link.http.on_sent = on_sent
        try:
            status, headers = await _exchange(link.http, method, head, body, timeouts)
        except BaseException:
            link.http.close()
            raise
        return status, headers, ResponseStream(link, self, timeouts.get("read"))

    async def aclose(self) -> None:
        """Close the idle connections; keep none.  A checkpoint.  Responses being read are not disturbed."""
        self._max_idle = 0
        for idle in self._idle.values():
            while idle:
                idle.pop().http.close()
        await trio.lowlevel.checkpoint()

    def break_off(self) -> None:
        """Close the connections that are in use, too: for whoever uses one, the server has hung up."""
        for connection in list(self._connections.values()):
            connection.close()

    def release(self, link: _Link) -> None:
        """Keep *link*, whose answer has been received to its end, or close it."""
        if not link.http.is_reusable:
            link.http.close()
            return
        now = trio.current_time()
        link.expires_at = now + self._keepalive_expiry
        idle = self._idle.setdefault(link.origin, deque())
        idle.append(link)
        while idle and (len(idle) > self._max_idle or idle[0].expires_at <= now):
            idle.popleft().http.close()

    def _take(self, origin: Origin) -> _Link | None:
        # The last one used first: the others get the chance to expire.
        idle = self._idle.get(origin)
        while idle:
            link = idle.pop()
            if link.expires_at > trio.current_time() and not link.is_stale():
                return link
            link.http.close()
        return None

    async def _connect(self, origin: Origin) -> _Link:
        scheme, host, port = origin
        try:
            # Sets TCP_NODELAY, as every SocketStream does.
            tcp = await trio.open_tcp_stream(host, port)
        except (OSError, ValueError, OverflowError) as exc:  # ValueError: a name IDNA cannot encode
            raise httpx.ConnectError(f"{exc} ({exc.__cause__})" if exc.__cause__ else str(exc)) from exc
        _watch_peer(tcp)
        stream: trio.abc.Stream = tcp
        if scheme == "https":
            try:
                stream = await self._start_tls(tcp, host)
            except BaseException:
                tcp.socket.close()
                raise
        self._opened_total += 1
        if stream is tcp:
            stream = TcpStream(tcp)
        connection = Http1Connection(stream, partial(self._abort, tcp), max_header_bytes=self._max_header_bytes)
        self._connections[tcp] = connection
        return _Link(origin, tcp.socket, connection)

    async def _start_tls(self, tcp: trio.SocketStream, host: str) -> trio.SSLStream[trio.SocketStream]:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        stream = trio.SSLStream(tcp, self._ssl_context, server_hostname=host, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            raise httpx.ConnectError(f"TLS handshake failed: {exc.__cause__ or exc}") from exc
        return stream

    def _abort(self, tcp: trio.SocketStream) -> None:
        # All that aclose() would do but the checkpoint; TLS, being https_compatible, has no farewell.
        tcp.socket.close()
        del self._connections[tcp]


def _watch_peer(tcp: trio.SocketStream) -> None:
    """Have the kernel notice, on a silent event stream too, that the upstream's machine is gone."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


class ResponseStream(httpx.AsyncByteStream):
    """The body of an answer; hands its connection back as soon as it is there to the end.

    An iterator rather than a generator: a cancelled ``__anext__`` loses nothing
    and can be called again.
    """

    def __init__(self, link: _Link, transport: Http1Transport, read_timeout: float | None) -> None:
        self._link: _Link | None = link
        self._transport = transport
        self._read_timeout = read_timeout
        self._rest = b""
        if link.http.is_complete:
            self._rest = link.http.take_body()
            self._release(link)

    @property
    def is_received(self) -> bool:
        """Whether all of it is in memory: reading it cannot wait or fail."""
        return self._link is None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        link = self._link
        if link is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            data, self._rest = self._rest, b""
        else:
            with _limit(self._read_timeout, httpx.ReadTimeout, "no data in time"):
                data = await link.http.read_body()
            if link.http.is_complete:
                self._release(link)
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Give up what has not been read.

        A cancel point after the fact; never waits.  Safe to call twice.
        """
        if self._link is not None:
            # Stays here: reading on must fail rather than find an end.
            self._link.http.close()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _release(self, link: _Link) -> None:
        self._link = None
        self._transport.release(link)


async def _exchange(
    http: Http1Connection,
    method: str,
    head: bytes,
    body: bytes | AsyncIterable[bytes],
    timeouts: Mapping[str, float | None],
) -> Head:
    if isinstance(body, bytes) and len(body) > _AT_ONCE:
        return await _exchange_long(http, method, head + body, timeouts)
    try:
        with _limit(timeouts.get("write"), httpx.WriteTimeout, "the request was not taken in time"):
            if isinstance(body, bytes):
                await http.send(head + body)
            else:
                await http.send(head)
                async for part in body:
                    if part:
                        await http.send(b"%x\r\n%b\r\n" % (len(part), part))
                await http.send(b"0\r\n\r\n")
    except httpx.WriteError as error:
        # A server that refuses a request may answer and hang up before it has read it all.
        with _limit(timeouts.get("read"), httpx.WriteError, str(error)):
            try:
                return await http.read_head(method)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                raise error from None
    with _limit(timeouts.get("read"), httpx.ReadTimeout, "no answer in time"):
        return await http.read_head(method)


async def _exchange_long(http: Http1Connection, method: str, data: bytes, timeouts: Mapping[str, float | None]) -> Head:
    """Exchange a request that may be refused before it has been read: listen while sending."""
    failures: list[httpx.TransportError] = []
    answer: Head | None = None
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                with _limit(timeouts.get("write"), httpx.WriteTimeout, "the request was not taken in time"):
                    await http.offer(data)
            except httpx.TransportError as error:
                failures.insert(0, error)
                if isinstance(error, httpx.WriteTimeout):
                    nursery.cancel_scope.cancel()

        nursery.start_soon(send)
        try:
            with _limit(timeouts.get("read"), httpx.ReadTimeout, "no answer in time"):
                answer = await http.read_head(method)
        except httpx.TransportError as error:
            failures.append(error)
        nursery.cancel_scope.cancel()
    if answer is None:
        raise failures[0]
    return answer


async def _encode(request: httpx.Request) -> tuple[bytes, bytes | AsyncIterable[bytes]]:
    """Return head and body; a body that is not bytes is to be sent in chunks."""
    headers = request.headers.raw
    stream = request.stream
    names = [name.lower() for name, _ in headers]
    lengths = [headers[i][1] for i, name in enumerate(names) if name == b"content-length"]
    codings = [headers[i][1].lower() for i, name in enumerate(names) if name == b"transfer-encoding"]
    if codings and (lengths or codings != [b"chunked"]):
        raise httpx.LocalProtocolError("a request has either a content-length or the transfer coding 'chunked'")
    body: bytes | AsyncIterable[bytes]
    if isinstance(stream, httpx.ByteStream) and not codings:
        body = b"".join(stream)
    elif isinstance(stream, httpx.AsyncByteStream):
        body = b"".join([part async for part in stream]) if lengths else stream
    else:
        raise httpx.LocalProtocolError("the body of the request cannot be iterated asynchronously")
    if not isinstance(body, bytes):
        if not codings:
            headers.append((b"Transfer-Encoding", b"chunked"))
    elif not lengths and (body or request.method in ("POST", "PUT", "PATCH")):
        headers.append((b"Content-Length", b"%d" % len(body)))
    elif lengths and lengths != [b"%d" % len(body)]:
        raise httpx.LocalProtocolError("the content-length is not that of the body")
    if b"host" not in names:
        headers.insert(0, (b"Host", request.url.netloc))
    await trio.lowlevel.checkpoint_if_cancelled()
    return encode_head(request.method, request.url.raw_path, headers), body


def origin_of(url: httpx.URL) -> Origin:
    """Return where *url* is served; raises `httpx.UnsupportedProtocol` if it is not HTTP."""
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol("the URL must begin with http:// or https://")
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _limit(seconds: float | None, error: type[httpx.TransportError], message: str) -> AbstractContextManager[None]:
    return _UNLIMITED if seconds is None else _limited(seconds, error, message)


@contextmanager
def _limited(seconds: float, error: type[httpx.TransportError], message: str) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise error(message)
