"""One HTTP/1.1 connection to an upstream: bytes out, one answer at a time back.

`ResponseParser` knows what the bytes of an answer mean and does no I/O.
`Http1Connection` reads for it, and only when its user asks for more: what is
held in memory is one read (64 KiB) and one header section, whatever the peer
sends.  Neither knows where connections come from or go to.

Where llhttp would be lenient we are not: a transfer coding other than
``chunked`` is an error, since the bytes could not be relayed without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import httptools
import httpx
import trio

READ_SIZE = 65536

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"%(token)b [!-~\x80-\xff]+ HTTP/1\.1\r\n(?:%(token)b: [^\r\n\0]*\r\n)*\r\n" % {b"token": _TOKEN},
)


class PeerDisconnected(httpx.RemoteProtocolError):
    """The server closed the connection before its answer was complete."""


def encode_head(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and *headers* as they go over the wire.

    Raises `httpx.LocalProtocolError` if a field would end early or begin another.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target)]
    lines += [b"%b: %b" % field for field in headers]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    # Counting finds a line break smuggled into a value, which the pattern takes for the next field.
    if head.count(b"\n") != len(lines) + 1 or not _HEAD.fullmatch(head):
        raise httpx.LocalProtocolError("the method, the target or a header field cannot be sent in HTTP/1.1")
    return head


class ResponseParser:
    """The answer to one request, then to the next on the same connection.

    An exception from `feed` or `feed_eof` is final.
    """

    def __init__(self, *, max_header_bytes: int, max_header_count: int) -> None:
        self._max_header_bytes = max_header_bytes
        self._max_header_count = max_header_count
        self._parser = httptools.HttpResponseParser(self)
        self.start("GET")

    def start(self, method: str) -> None:
        """Expect the answer to a request with *method*."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self.is_complete = False
        self.is_reusable = False
        """Whether the peer lets us send another request; known once complete."""
        self._is_head_only = method == "HEAD"
        self._is_framed = True
        self._body: list[bytes] = []
        self._header_bytes = 0
        self._barren_bytes = 0
        self._fault = ""

    def take_body(self) -> bytes:
        """Return the body bytes parsed since the last call, maybe none."""
        pieces, self._body = self._body, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes | bytearray) -> None:
        """Parse *data*, which is not empty.

        Raises `httpx.RemoteProtocolError` if it is not an HTTP/1 answer, or if
        header section, trailers or chunk framing exceed the limit.
        """
        had_head = self.has_head
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.is_reusable = False
            if not self.is_complete:
                raise httpx.RemoteProtocolError(self._fault or f"malformed answer: {exc}") from exc
        if self._body or self.has_head != had_head or self.is_complete:
            self._barren_bytes = 0
            return
        # The parser holds on to an unfinished name or value, and `on_header` is not called for those.
        self._barren_bytes += len(data)
        if self._barren_bytes > self._max_header_bytes:
            raise httpx.RemoteProtocolError("the header section of the answer is too large")

    def feed_eof(self) -> None:
        """The peer will send no more; raises `PeerDisconnected` if there should be more."""
        self.is_reusable = False
        if not self.has_head:
            raise PeerDisconnected("server disconnected without sending a response")
        if self._is_framed and not self.is_complete:
            raise PeerDisconnected("server disconnected before the end of the body")
        self.is_complete = True

    # -- called by httptools ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise self._refuse("data after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._max_header_bytes or len(self.headers) >= self._max_header_count:
            raise self._refuse("the header section of the answer is too large")
        if not self.has_head:  # else a trailer, which nobody waits for
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise self._refuse(f"unexpected status {status}")
        if status < 200:
            self.headers = []
            return
        names = [name.lower() for name, _ in self.headers]
        if b"transfer-encoding" in names:
            codings = [value for name, value in self.headers if name.lower() == b"transfer-encoding"]
            if [coding.lower() for coding in codings] != [b"chunked"]:
                raise self._refuse("unknown transfer coding")
        else:
            self._is_framed = b"content-length" in names
        self.status = status
        self.has_head = True
        # The parser knows of 204 and 304 but not of HEAD, and waits for a body in vain: then
        # on_message_complete never comes, and the connection is not reused.
        self.is_complete = self._is_head_only

    def on_body(self, data: bytes) -> None:
        if not self._is_head_only:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True
            self.is_reusable = self._parser.should_keep_alive()

    def _refuse(self, fault: str) -> Exception:
        # httptools replaces whatever a callback raises by an error without a message.
        self._fault = fault
        return httpx.RemoteProtocolError(fault)


class Http1Connection:
    """A client's side of one connection; one request at a time.

    Args:
        stream: A connected stream.
        abort: Closes what is below *stream* at once, without blocking.
        max_header_bytes: Limit of the header section of an answer, trailers included.
        max_header_count: Limit of the number of its fields.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        abort: Callable[[], None],
        *,
        max_header_bytes: int = 65536,
        max_header_count: int = 256,
    ) -> None:
        self._stream = stream
        self._abort = abort
        self._parser = ResponseParser(max_header_bytes=max_header_bytes, max_header_count=max_header_count)
        self._is_broken = False
        self._is_closed = False
        self.on_sent: Callable[[], None] | None = None
        """Called once, when a part of the request has been sent: the whole, if it is sent in one."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer has been received to its end."""
        return self._parser.is_complete

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._parser.is_reusable and not self._is_broken and not self._is_closed

    def close(self) -> None:
        """Close at once, whatever is under way.  May be called more than once."""
        if not self._is_closed:
            self._is_closed = True
            self._abort()

    async def send(self, data: bytes) -> None:
        """Send a request, or the next part of one.

        A checkpoint; if cancelled, the connection is closed.  Raises
        `httpx.WriteError` if the peer does not listen; it may have sent an answer.
        """
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._is_broken = True
            raise httpx.WriteError(str(exc)) from exc
        except BaseException:
            self.close()
            raise
        self._note_sent()

    async def offer(self, data: bytes) -> None:
        """Send a part of a request to a peer that may answer before it has read it all.

        A checkpoint; if cancelled or not taken, the answer can still be read, but
        nothing more be sent.  Raises `httpx.WriteError` as `send` does.
        """
        self._is_broken = True
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise httpx.WriteError(str(exc)) from exc
        self._is_broken = False
        self._note_sent()

    def _note_sent(self) -> None:
        if self.on_sent is not None:
            self.on_sent()
            self.on_sent = None

    async def read_head(self, method: str) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return status and headers of the answer to a request with *method*.

        A checkpoint; if it is cancelled or fails, the connection is closed.
        Interim answers (1xx) are skipped.

        Raises:
            httpx.ReadError: The connection broke.
            PeerDisconnected: The peer closed it.
            httpx.RemoteProtocolError: The answer breaks HTTP or a limit.
        """
        self._parser.start(method)
        try:
            await self._receive()
            while not self._parser.has_head:
                await self._receive()
        except BaseException:
            self.close()
            raise
        return self._parser.status, self._parser.headers

    def take_body(self) -> bytes:
        """Return what has been received of the body and not been returned yet."""
        return self._parser.take_body()

    async def read_body(self) -> bytes:
        """Return the next bytes of the body, or none at its end.

        A cancel point, and a schedule point if it has to wait.  If cancelled,
        nothing is lost: call it again.  Raises as `read_head` does, and closes
        the connection then.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            data = self._parser.take_body()
            if data or self._parser.is_complete:
                return data
            await self._receive()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(READ_SIZE)
            if data:
                self._parser.feed(data)
            else:
                self._parser.feed_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self.close()
            raise httpx.ReadError(str(exc)) from exc
        except httpx.RemoteProtocolError:
            self.close()
            raise
