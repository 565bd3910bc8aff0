"""An MCP server reached by WebSocket: settings, and connections over real sockets."""

import logging
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from shadowcat.errors import ConfigError, StreamBroken, UpstreamUnavailable
from shadowcat.transport.upstream import WebSocketConnector, WebSocketUpstreamConfig


class TestConfig:
    @pytest.mark.parametrize(
        "url",
        ["ws://host", "ws://host:8080/ws?key=value", "wss://host/a/b", "ws://[::1]:1/", "wss://127.0.0.1"],
    )
    def test_url_passes(self, url):
        assert WebSocketUpstreamConfig(url=url).url == url

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://host/ws", "as ws://host/path"),
            ("WS://host/ws", "as ws://host/path"),
            ("host/ws", "as ws://host/path"),
            ("ws:///ws", "as ws://host/path"),
            ("", "as ws://host/path"),
            ("ws://user:secret@host", "remove user and password"),
            ("ws://host:99999/", "ws://host/path|port between"),
            ("ws://host:0/", "port between"),
            ("ws://host/#secret", "remove the fragment"),
            ("ws://host:secret/", "as ws://host/path; what is set is not a URL"),
        ],
    )
    def test_url_is_refused_with_what_to_do(self, url, words):
        """... and without what may be a password."""
        with pytest.raises(ConfigError, match=words) as excinfo:
            WebSocketUpstreamConfig(url=url)
        assert "secret" not in str(excinfo.value)

    @pytest.mark.parametrize(
        "field",
        [("a b", "c"), ("connection", "x"), ("Upgrade", "h2c"), ("a", "b\r\nc"), ("Sec-WebSocket-Protocol", "x")],
    )
    def test_header_is_refused(self, field):
        """As for HTTP; and those of the handshake itself."""
        with pytest.raises(ConfigError):
            WebSocketUpstreamConfig(url="ws://host", headers=[field])

    @pytest.mark.parametrize("name", ["connect_timeout", "ping_interval", "ping_timeout", "max_message_size"])
    def test_limits_are_positive(self, name):
        limit: Any = {name: 0}
        with pytest.raises(ValueError, match=name):
            WebSocketUpstreamConfig(url="ws://host", **limit)

    def test_secrets_are_not_shown(self):
        assert "secret" not in repr(WebSocketUpstreamConfig(url="ws://host", headers=[("authorization", "secret")]))

    def test_ca_file_must_be_readable(self):
        with pytest.raises(ConfigError, match="ca_file"):
            WebSocketConnector(WebSocketUpstreamConfig(url="wss://host", ca_file="/nowhere.pem"))

    def test_connections_depend_on_the_client(self):
        """So none is opened before a client asks."""
        assert WebSocketConnector.takes_headers


class Server:
    """An MCP server's WebSocket, by trio-websocket: echoes, or does what the message says."""

    def __init__(self):
        self.requests = []
        self._codes, self.codes = trio.open_memory_channel(10)
        self.port = 0

    async def handle(self, request):
        self.requests.append(request)
        if request.path.startswith("/closed"):
            await request.reject(403, extra_headers=[(b"x-secret", b"s")], body=b"secret")
            return
        subprotocol = "mcp" if "mcp" in request.proposed_subprotocols else None
        socket = await request.accept(subprotocol=subprotocol)
        try:
            while True:
                text = await socket.get_message()
                if text == '"close"':
                    await socket.aclose(4000, "as you wish")
                else:
                    await socket.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            self._codes.send_nowait(error.reason and error.reason.code)


@asynccontextmanager
async def run_server(ssl_context=None):
    server = Server()
    async with trio.open_nursery() as nursery:
        serve = partial(
            trio_websocket.serve_websocket,
            server.handle,
            "127.0.0.1",
            0,
            ssl_context,
            max_message_size=2**26,
            receive_buffer_size=65536,
        )
        server.port = (await nursery.start(serve)).port
        with trio.fail_after(20):
            yield server
        nursery.cancel_scope.cancel()


@pytest.fixture
async def server():
    async with run_server() as server:
        yield server


def connector(port, path="/ws", scheme="ws", **config):
    return WebSocketConnector(WebSocketUpstreamConfig(url=f"{scheme}://127.0.0.1:{port}{path}", **config))


async def fail(connector, headers=()):
    """Return why *connector* cannot open anything."""
    with pytest.raises(UpstreamUnavailable) as excinfo:
        async with connector.open(headers):
            pass
    return str(excinfo.value)


async def test_messages_go_both_ways(server):
    async with connector(server.port, "/ws?a=b").open([]) as stream:
        for message in (b"{}", '["ä\U0001f408"]'.encode(), b"[" + b" " * 200_000 + b"]"):
            await stream.send(message)
            assert await stream.receive() == message
    assert server.requests[0].path == "/ws?a=b"
    assert server.requests[0].proposed_subprotocols == ("mcp",)


async def test_headers_of_the_client_and_of_the_settings(server):
    """Those of one message stay out; ours stand in place of the client's."""
    client = [
        (b"authorization", b"Bearer client"),
        (b"x-tenant", b"t"),
        (b"user-agent", b"u"),
        (b"mcp-session-id", b"no"),
        (b"mcp-param-a", b"no"),
        (b"content-type", b"no"),
        (b"content-length", b"0"),
        (b"accept", b"no"),
        (b"host", b"no"),
        (b"sec-websocket-protocol", b"no"),
        (b"connection", b"no"),
        (b"upgrade", b"no"),
    ]
    settings = [("Authorization", "Bearer ours"), ("host", "elsewhere")]
    async with connector(server.port, headers=settings).open(client):
        pass
    fields = server.requests[0].headers
    assert [value for name, value in fields if name == b"authorization"] == [b"Bearer ours"]
    assert (b"x-tenant", b"t") in fields
    assert (b"user-agent", b"u") in fields
    assert not [field for field in fields if b"no" in field]
    assert server.requests[0]._event.host == "elsewhere"


async def test_server_closes(server):
    async with connector(server.port).open([]) as stream:
        await stream.send(b'"close"')
        with pytest.raises(StreamBroken, match="code 4000: 'as you wish'"):
            await stream.receive()


async def test_we_close(server):
    """With a goodbye, also when cancelled."""
    async with connector(server.port).open([]):
        pass
    with trio.CancelScope() as scope:
        async with connector(server.port).open([]) as stream:
            scope.cancel()
            await stream.receive()
    assert [await server.codes.receive() for _ in range(2)] == [1000, 1000]


async def test_refusal_is_told_without_the_servers_words(server, caplog):
    """The log says where."""
    words = await fail(connector(server.port, "/closed?key=hidden"))
    assert "status 403" in words
    (record,) = [record for record in caplog.records if record.name.startswith("shadowcat")]
    assert str(server.port) in record.getMessage()
    for text in (words, record.getMessage()):
        assert "secret" not in text
        assert "hidden" not in text
    assert str(server.port) not in words


async def test_nobody_listens(caplog):
    """Nothing of the address is told to the client."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        words = await fail(connector(port))
    assert words == "the upstream server cannot be reached; try again later"
    assert str(port) in caplog.text


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_server_that_says_nothing(scheme):
    """TCP, TLS and handshake have one time together."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        port = sock.getsockname()[1]
        with trio.fail_after(5):
            words = await fail(connector(port, scheme=scheme, connect_timeout=0.05))
    assert "later" in words


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_opening_can_be_cancelled(scheme):
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        with trio.move_on_after(0.05) as scope:
            await fail(connector(sock.getsockname()[1], scheme=scheme))
    assert scope.cancelled_caught


async def test_one_stream_does_not_disturb_another(server):
    """Each has its connection, and its end is its own."""
    async with connector(server.port).open([]) as first:
        async with connector(server.port).open([]) as second:
            await second.send(b'"close"')
            with pytest.raises(StreamBroken):
                await second.receive()
        await first.send(b"[]")
        assert await first.receive() == b"[]"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


class TestTls:
    @pytest.fixture
    async def server(self, authority):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        async with run_server(context) as server:
            yield server

    async def test_with_an_authority_of_ones_own(self, server, authority):
        with authority.cert_pem.tempfile() as ca_file:
            opener = connector(server.port, scheme="wss", ca_file=ca_file)
        async with opener.open([]) as stream:
            await stream.send(b"[]")
            assert await stream.receive() == b"[]"

    async def test_unknown_authority_is_not_trusted(self, server, caplog):
        """The log says why."""
        caplog.set_level(logging.WARNING)
        assert await fail(connector(server.port, scheme="wss")) == (
            "the upstream server cannot be reached; try again later"
        )
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text

    async def test_server_without_tls(self):
        async with run_server() as server:
            assert "cannot be reached" in await fail(connector(server.port, scheme="wss"))


@pytest.mark.slow
class TestSize:
    async def test_sixteen_mebibytes_pass(self, server):
        """The largest message, both ways."""
        message = b'"' + b"x" * (16 * 2**20 - 2) + b'"'
        async with connector(server.port).open([]) as stream:
            with trio.fail_after(60):
                await stream.send(message)
                assert await stream.receive() == message

    async def test_one_more_byte_is_too_long(self, server):
        async with connector(server.port, max_message_size=2**20).open([]) as stream:
            await stream.send(b"x" * (2**20 + 1))
            with pytest.raises(StreamBroken, match="1009"):
                await stream.receive()
        assert await server.codes.receive() == 1009

    async def test_slow_reader_makes_the_sender_wait(self):
        """... and gets everything, when it reads."""
        is_reading = trio.Event()
        total = 0

        async def handle(request):
            nonlocal total
            socket = await request.accept()
            await is_reading.wait()
            for _ in range(100):
                total += len(await socket.get_message())

        async with trio.open_nursery() as nursery:
            serve = partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None, receive_buffer_size=65536)
            port = (await nursery.start(serve)).port
            async with connector(port).open([]) as stream:
                sent = 0
                with trio.move_on_after(0.5):
                    while True:
                        await stream.send(b"x" * 500_000)
                        sent += 1
                assert sent < 100
                is_reading.set()
                for _ in range(100 - sent):
                    await stream.send(b"x" * 500_000)
                with pytest.raises(StreamBroken):
                    await stream.receive()
            nursery.cancel_scope.cancel()
        assert total == 100 * 500_000
