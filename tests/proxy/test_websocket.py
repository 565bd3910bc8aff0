"""The WebSocket endpoint: who is let in, and how it ends; over a real server, too."""

import json
import logging
from functools import partial

import hypercorn.config
import hypercorn.trio
import pytest
import trio
import trio_websocket
from trio.testing import wait_all_tasks_blocked

from shadowcat import HttpUpstreamConfig, OriginConfig, ReverseProxyConfig
from shadowcat.errors import ConfigError, StreamBroken
from shadowcat.proxy import EndpointConfig, open_reverse_proxy_app
from shadowcat.testing import ProxyClient, ScriptedUpstream, modern_request

from ..transport.socket_client import SocketClient

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
PAGE = "https://app.example"
CONFIG = ReverseProxyConfig(
    upstream=UPSTREAM,
    origin=OriginConfig(allowed_origins=[PAGE]),
    endpoint=EndpointConfig(max_body_size=16 * 2**20),
)


class Pipe:
    """Echoes, one message after another, until the stream breaks or a message says what to do."""

    def __init__(self):
        self.headers = []
        self.broken = []

    async def serve(self, stream, headers):
        self.headers.append(headers)
        try:
            while (message := await stream.receive()) != b'"return"':
                if message == b'"fail"':
                    raise KeyError("secret")
                await stream.send(message)
        except StreamBroken as error:
            self.broken.append(str(error))


@pytest.fixture
def pipe():
    return Pipe()


@pytest.fixture
async def app(pipe):
    async with open_reverse_proxy_app(CONFIG, upstream=ScriptedUpstream(), serve_pipe=pipe.serve) as app:
        yield app


async def play(app, client):
    await app(client.scope, client.receive, client.send)


def answer_of(client):
    """Return status, headers and JSON of the refusal that *client* got."""
    head, body = client.sent
    assert (head["type"], body["type"]) == ("websocket.http.response.start", "websocket.http.response.body")
    return head["status"], dict(head["headers"]), json.loads(body["body"])


class TestLetIn:
    async def test_messages_are_served(self, autojump_clock, app, pipe, nursery):
        """Until the pipe has enough: the client is told goodbye."""
        client = SocketClient(headers=[(b"authorization", b"Bearer x")])
        client.text("[1]")
        client.text('"return"')
        await play(app, client)
        assert [event["type"].partition(".")[2] for event in client.sent] == ["accept", "send", "close"]
        assert client.sent[0]["subprotocol"] == "mcp"
        assert client.closed == (1000, "")
        assert pipe.headers[0][b"authorization"] == b"Bearer x"

    async def test_page_of_an_allowed_origin(self, autojump_clock, app):
        client = SocketClient(headers=[(b"origin", PAGE.encode())])
        client.text('"return"')
        await play(app, client)
        assert client.closed == (1000, "")

    @pytest.mark.parametrize(
        ("client", "status", "words"),
        [
            ({"headers": [(b"origin", b"https://evil.example")]}, 403, "Origin"),
            ({"headers": [(b"host", b"evil.example")]}, 400, ""),
            ({"headers": [(b"x", b"x" * 40_000)]}, 431, "headers"),
            ({"headers": [(b"authorization", b"a"), (b"authorization", b"b")]}, 400, ""),
            ({"subprotocols": ["chat"]}, 400, "subprotocol"),
            ({"path": "/mcp"}, 404, "no WebSocket is served here"),
            ({"path": "/health"}, 404, "no WebSocket is served here"),
            ({"path": "/else"}, 404, "/mcp"),
        ],
    )
    async def test_refusal(self, autojump_clock, app, pipe, client, status, words):
        """As any other request, with a JSON-RPC error that says what to do."""
        client = SocketClient(**client)
        await play(app, client)
        found, headers, error = answer_of(client)
        assert (found, headers[b"content-type"]) == (status, b"application/json")
        assert words in error["error"]["message"]
        assert pipe.headers == []

    async def test_foreign_host(self, autojump_clock, app):
        """DNS rebinding works on WebSockets, too."""
        client = SocketClient()
        client.scope["headers"] = [(b"host", b"evil.example")]
        await play(app, client)
        assert answer_of(client)[0] == 421

    async def test_server_that_cannot_answer(self, autojump_clock, app):
        """It says 403 itself."""
        client = SocketClient(path="/else", extensions={})
        await play(app, client)
        assert client.closed == (1008, "")

    async def test_plain_request_is_told_to_upgrade(self, autojump_clock, app, nursery):
        """RFC 9110, 15.5.22: 426 with an Upgrade header."""
        client = ProxyClient(app, nursery)
        response = await client.send("GET", path="/ws")
        assert (response.status, response.headers["upgrade"], response.headers["connection"]) == (
            426,
            "websocket",
            "upgrade",
        )
        assert "WebSocket client" in (await response.json())["error"]["message"]
        assert (await client.send("POST", path="/ws")).status == 405


class TestEnds:
    async def test_client_leaves(self, autojump_clock, app, pipe):
        client = SocketClient()
        client.leave(code=1006)
        await play(app, client)
        assert pipe.broken == ["the client has left"]
        assert len(client.sent) == 1

    async def test_message_beyond_the_body_limit(self, autojump_clock, app, pipe):
        """The limit is that of a request body."""
        client = SocketClient()
        client.text("x" * (16 * 2**20 + 1))
        await play(app, client)
        assert client.closed[0] == 1009

    async def test_pipe_that_fails(self, autojump_clock, app, caplog):
        """The log says why; the server says 1011 since the app sends no close."""
        client = SocketClient()
        client.text('"fail"')
        await play(app, client)
        assert [event["type"] for event in client.sent] == ["websocket.accept"]
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert isinstance(record.exc_info[1], KeyError)

    async def test_none_is_let_in_while_draining(self, autojump_clock, app):
        app.begin_drain()
        client = SocketClient()
        await play(app, client)
        status, headers, _ = answer_of(client)
        assert (status, headers[b"retry-after"]) == (503, b"5")

    async def test_draining_lets_calls_finish(self, autojump_clock, app, nursery):
        """... and then says 1001, going away."""
        client = SocketClient()
        nursery.start_soon(play, app, client)
        await wait_all_tasks_blocked()
        app.begin_drain()
        client.text("[1]")
        await wait_all_tasks_blocked()
        assert client.sent[-1] == {"type": "websocket.send", "text": "[1]"}
        client.text('"return"')
        await wait_all_tasks_blocked()
        assert client.closed == (1001, "the proxy is shutting down")

    async def test_end_of_the_drain_tells_who_still_waits(self, autojump_clock, nursery):
        """... and then says 1001, too."""
        upstream = ScriptedUpstream()
        async with open_reverse_proxy_app(CONFIG, upstream=upstream) as app:
            client = SocketClient()
            client.text(json.dumps(modern_request(1, "slow")))
            nursery.start_soon(play, app, client)
            await upstream.next_call()
            app.begin_drain()
            app.finish_drain()
            assert (await client.next())["type"] == "websocket.accept"
            told = json.loads(await client.next_text())
            assert (told["id"], told["error"]["code"]) == (1, -32603)
            assert (await client.next())["code"] == 1001
            assert app.under_way == 0


class TestPaths:
    async def test_path_can_be_chosen(self, autojump_clock, pipe):
        config = ReverseProxyConfig(upstream=UPSTREAM, path="/ws", ws_path="/socket")
        async with open_reverse_proxy_app(config, upstream=ScriptedUpstream(), serve_pipe=pipe.serve) as app:
            client = SocketClient(path="/socket")
            client.text('"return"')
            await play(app, client)
            assert client.closed == (1000, "")

    @pytest.mark.parametrize(
        ("paths", "words"),
        [
            ({"path": "/ws"}, "cannot be the path of two endpoints"),
            ({"path": "/a", "ws_path": "/a"}, "cannot be the path of two endpoints"),
            ({"ws_path": "ws"}, "cannot be the WebSocket path; choose one like /ws"),
            ({"ws_path": "/ready"}, "cannot be the WebSocket path; choose one like /ws"),
            ({"path": "mcp"}, "cannot be the MCP path; choose one like /mcp"),
        ],
    )
    def test_paths_that_cannot_be(self, paths, words):
        with pytest.raises(ConfigError, match=words):
            ReverseProxyConfig(upstream=UPSTREAM, **paths)


@pytest.mark.slow
class TestServed:
    """By hypercorn as it comes, to trio-websocket."""

    @pytest.fixture
    async def url(self, app, nursery):
        config = hypercorn.config.Config()
        config.bind = ["127.0.0.1:0"]
        config.accesslog = config.errorlog = None
        config.websocket_max_message_size = 2**26
        stop = trio.Event()
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
        with trio.fail_after(20):
            (bound,) = await nursery.start(serve)
            yield bound.replace("http", "ws") + "/ws"
        stop.set()

    async def test_messages_of_every_size(self, url):
        """Up to the limit of 16 MiB."""
        async with trio_websocket.open_websocket_url(url, subprotocols=["mcp"], max_message_size=2**25) as socket:
            assert socket.subprotocol == "mcp"
            for text in ("[]", '["ä"]', "x" * 16 * 2**20):
                await socket.send_message(text)
                assert await socket.get_message() == text

    @pytest.mark.parametrize(
        ("message", "code"),
        [('"return"', 1000), (b"binary", 1003), ("x" * (16 * 2**20 + 1), 1009), ('"fail"', 1011)],
        ids=["return", "binary", "long", "fail"],
    )
    async def test_close_codes(self, url, message, code):
        async with trio_websocket.open_websocket_url(url) as socket:
            await socket.send_message(message)
            with pytest.raises(trio_websocket.ConnectionClosed) as excinfo:
                await socket.get_message()
            # It leaves that to nobody when it was not the first to close.
            await socket._stream.aclose()
        assert excinfo.value.reason is not None
        assert excinfo.value.reason.code == code

    async def test_client_leaves(self, url, pipe):
        async with trio_websocket.open_websocket_url(url):
            pass
        await wait_all_tasks_blocked(0.01)
        assert len(pipe.broken) == 1

    @pytest.mark.parametrize(
        ("target", "origin", "status"), [("/ws", "https://evil.example", 403), ("/else", PAGE, 404)]
    )
    async def test_refusals(self, url, target, origin, status):
        """Status and body reach the client."""
        host = url.split("/")[2]
        stream = await trio.open_tcp_stream("127.0.0.1", int(host.partition(":")[2]))
        async with stream:
            await stream.send_all(
                f"GET {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            answer = b""
            while not answer.endswith(b"}"):
                answer += await stream.receive_some()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert json.loads(body)["error"]["code"] == -32600
