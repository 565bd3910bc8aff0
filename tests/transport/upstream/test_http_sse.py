"""Opening a stream over HTTP+SSE: what is asked for, and what is made of the answer."""

from __future__ import annotations

import ssl

import httpx
import pytest
import trio
import trustme

from shadowcat.errors import ConfigError, ShadowcatError, UpstreamUnavailable
from shadowcat.transport.upstream import HttpSseConnector, HttpSseUpstreamConfig

from .loopback import run_server
from .sse_server import ENDPOINT, SECRETS, URL, Cut, SseServer, open_stream


def endpoint(uri):
    return b"event: endpoint\ndata: %s\n\n" % uri


class Failing(httpx.AsyncBaseTransport):
    """Raises what it is given."""

    def __init__(self, error):
        self.error = error

    async def handle_async_request(self, request):
        await trio.lowlevel.checkpoint()
        raise self.error


class Hanging(httpx.AsyncBaseTransport):
    """Never answers."""

    async def handle_async_request(self, request):
        await trio.sleep_forever()


async def refusal(server, **config):
    """Return what opening a stream to *server* fails with, of which the client is told nothing it should not know."""
    with pytest.raises(UpstreamUnavailable) as caught:
        async with open_stream(server, **config):
            pytest.fail("it was opened")
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        (b"/messages?session_id=1", "https://secret-host.internal:8123/messages?session_id=1"),
        (b"messages/2", "https://secret-host.internal:8123/a/messages/2"),
        (b"?session=3", "https://secret-host.internal:8123/a/sse?session=3"),
        (b" https://SECRET-HOST.internal:8123/m#part ", "https://secret-host.internal:8123/m"),
        (b"//secret-host.internal:8123/m", "https://secret-host.internal:8123/m"),
    ],
)
async def test_messages_go_where_the_first_event_says(uri, url):
    """2024-11-05: an endpoint event containing a URI for the client to use for sending messages."""
    server = SseServer(b": hello\n\nretry: 1000\n\n", endpoint(uri))
    async with open_stream(server) as stream:
        await stream.send(b'{"a":1}')

    assert str(server.gets[0].url) == URL
    (post,) = server.posts
    assert (post.method, str(post.url), b"".join(post.stream)) == ("POST", url, b'{"a":1}')


@pytest.mark.parametrize(
    "uri",
    [
        b"https://elsewhere.example/messages",
        b"//elsewhere.example/messages",
        b"http://secret-host.internal:8123/messages",
        b"https://secret-host.internal/messages",
        b"https://secret-host.internal:0/messages",
        b"https://user:secret@secret-host.internal:8123/messages",
        b"https://secret-host.internal:8123@elsewhere.example/messages",
        b"file:///etc/passwd",
    ],
)
async def test_messages_go_to_no_other_origin(uri):
    """They carry credentials; a server must not be able to have them sent elsewhere."""
    server = SseServer(endpoint(uri))
    assert "another origin" in await refusal(server)
    assert server.posts == []
    assert server.body.closed.is_set()


@pytest.mark.parametrize("uri", [b"https://[::1/m", b"/\xff", b"/" + b"x" * 10000, b"https://h:port/m"])
async def test_an_endpoint_that_is_no_uri_is_refused(uri):
    """... with what to do about it."""
    assert "no valid URI" in await refusal(SseServer(endpoint(uri)))


async def test_headers_of_the_client_go_with_each_request_but_those_of_one_message():
    """What belongs to the message that asked for the stream is not true of the others."""
    server = SseServer(ENDPOINT)
    fields = [
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"application/json"),
        (b"mcp-protocol-version", b"2025-06-18"),
        (b"mcp-param-region", b"eu"),
        (b"traceparent", b"00-1-2-01"),
        (b"authorization", b"Bearer theirs"),
        (b"user-agent", b"client/1"),
    ]
    async with open_stream(server, *fields, headers=[("Authorization", "Bearer ours"), ("X-Key", "k")]) as stream:
        await stream.send(b"{}")

    common = {"authorization": "Bearer ours", "x-key": "k", "user-agent": "client/1", "accept-encoding": "identity"}
    common["host"] = "secret-host.internal:8123"
    assert dict(server.gets[0].headers) == {**common, "accept": "text/event-stream", "cache-control": "no-store"}
    (post,) = server.posts
    expected = {**common, "accept": "*/*", "content-type": "application/json", "content-length": "2"}
    assert dict(post.headers) == expected


@pytest.mark.parametrize(
    ("status", "text"),
    [(401, "credentials"), (403, "credentials"), (404, "url"), (405, "url"), (204, "url"), (503, "again later")],
)
async def test_a_refusal_says_what_to_do(status, text):
    """The client is told; the log has the status."""
    server = SseServer(ENDPOINT, status=status)
    assert text in await refusal(server)
    assert server.body.closed.is_set()


async def test_what_is_no_event_stream_is_refused():
    """As a server that speaks another transport answers, or a login page."""
    assert "another transport" in await refusal(SseServer(b"{}", content_type="application/json"))
    assert "another transport" in await refusal(SseServer(ENDPOINT, **{"content-encoding": "gzip"}))
    assert "another transport" in await refusal(SseServer(b"data: {}\n\n"))


async def test_redirects_are_not_followed():
    """They would take the credentials along."""
    assert "has moved" in await refusal(SseServer(status=307, location="https://elsewhere.example/sse"))


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.ReadTimeout("x")]
)
async def test_a_server_that_cannot_be_reached_has_not_seen_the_message(error):
    """Whatever became of the GET: sending the message again is safe."""
    assert "has not seen the request" in await refusal(Failing(error))


async def test_a_stream_that_ends_before_its_first_event_is_no_stream():
    """... nor one that is cut."""
    server = SseServer(b": hello\n\n")
    server.end()
    assert "has not seen the request" in await refusal(server)
    assert "has not seen the request" in await refusal(SseServer(ENDPOINT[:-1], Cut()))


@pytest.mark.parametrize("server", [Hanging(), SseServer(), SseServer(b": wait\n\n" * 10)])
async def test_waiting_for_the_endpoint_has_an_end(autojump_clock, server):
    """Whether the server does not answer, or answers and says nothing."""
    began = trio.current_time()
    assert "in time" in await refusal(server, open_timeout=7)
    assert trio.current_time() == began + 7


@pytest.mark.parametrize("server", [Hanging(), SseServer()])
async def test_opening_can_be_cancelled(autojump_clock, server):
    """... at once."""
    with trio.move_on_after(1):
        async with open_stream(server):
            pytest.fail("it was opened")
    assert trio.current_time() == 1


async def test_leaving_the_block_ends_the_get(autojump_clock):
    """The server learns by that alone that the client has gone."""
    server = SseServer(ENDPOINT)
    with trio.move_on_after(1):
        async with open_stream(server) as stream:
            assert not server.body.closed.is_set()
            await stream.receive()
    assert server.body.closed.is_set()
    with pytest.raises(ShadowcatError, match="closed"):
        await stream.receive()
    with pytest.raises(ShadowcatError, match="closed"):
        await stream.send(b"{}")


@pytest.mark.parametrize(
    "config",
    [
        {"url": "ws://host/sse"},
        {"url": "http://user:secret@host/sse"},
        {"url": "http://host/sse", "headers": [("Content-Length", "1")]},
        {"url": "http://host/sse", "headers": [("X-A", "a\nb")]},
    ],
)
def test_mistakes_in_the_configuration_are_told(config):
    """As those of the upstream over streamable HTTP are."""
    with pytest.raises(ConfigError):
        HttpSseUpstreamConfig(**config)


def test_credentials_are_not_shown():
    """A configuration may end up in a log."""
    assert "secret" not in repr(HttpSseUpstreamConfig(url="http://h/sse", headers=[("Authorization", "secret")]))


def test_unreadable_authorities_are_told_before_anything_is_opened(tmp_path):
    """... as the user's mistake that it is."""
    with pytest.raises(ConfigError, match="ca_file"):
        HttpSseConnector(HttpSseUpstreamConfig(url="https://h/sse", ca_file=str(tmp_path / "none.pem")))


def test_streams_depend_on_who_asks():
    """The credentials of a client go with its stream only."""
    assert HttpSseConnector(HttpSseUpstreamConfig(url="http://h/sse")).takes_headers


class RawServer:
    """HTTP+SSE on a socket; echoes each message, on the stream, and counts its connections."""

    def __init__(self):
        self.open = 0
        self.connections = 0
        self.deserted = trio.Event()
        """Set when no connection is open any more."""
        self.messages, self._messages = trio.open_memory_channel(10)

    async def serve(self, stream):
        self.open += 1
        self.connections += 1
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            if not self.open:
                self.deserted.set()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def _serve(self, stream):
        data = b""
        while more := await stream.receive_some():
            data += more
            if data.startswith(b"GET") and data.endswith(b"\r\n\r\n"):
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + ENDPOINT)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._speak, stream)
                    await stream.receive_some()
                    nursery.cancel_scope.cancel()
                return
            if b"\r\n\r\n" in data and data.endswith(b"}"):
                await self.messages.send(data.partition(b"\r\n\r\n")[2])
                await stream.send_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\n")
                await stream.send_all(b"Accepted")
                data = b""

    async def _speak(self, stream):
        async for message in self._messages:
            await stream.send_all(b"event: message\r\ndata: %s\r\n\r\n" % message)


@pytest.mark.slow
@pytest.mark.parametrize("is_secure", [False, True])
async def test_over_real_sockets(tmp_path, is_secure):
    """One connection for the stream, one for the messages, and none that stays."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    raw = RawServer()
    async with run_server(context if is_secure else None, raw) as server:
        scheme, ca_file = ("https", str(tmp_path / "ca.pem")) if is_secure else ("http", None)
        config = HttpSseUpstreamConfig(url=f"{scheme}://127.0.0.1:{server.port}/sse", ca_file=ca_file)
        with trio.fail_after(10):
            async with HttpSseConnector(config).open([]) as stream:
                for number in range(20):
                    await stream.send(b'{"n":%d}' % number)
                    assert await stream.receive() == b'{"n":%d}' % number
                assert (raw.open, raw.connections) == (2, 2)
            await raw.deserted.wait()


@pytest.mark.slow
async def test_a_stranger_is_not_trusted():
    """TLS: the system's authorities do not know this one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with run_server(context, RawServer()) as server:
        config = HttpSseUpstreamConfig(url=f"https://127.0.0.1:{server.port}/sse")
        with trio.fail_after(10), pytest.raises(UpstreamUnavailable):
            async with HttpSseConnector(config).open([]):
                pytest.fail("it was opened")
