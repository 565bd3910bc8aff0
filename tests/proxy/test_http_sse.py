"""The two endpoints of HTTP+SSE, and both of our ends against each other."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.auth import OriginConfig, OriginPolicy
from shadowcat.errors import ConfigError, SessionNotFound, StreamBroken, UpstreamUnavailable
from shadowcat.proxy.app import AppConfig, ReverseProxyApp
from shadowcat.proxy.config import EndpointConfig
from shadowcat.proxy.drain import Drain
from shadowcat.proxy.http_sse import HttpSseConfig, HttpSseEndpoint
from shadowcat.proxy.routes import Routes, http_sse_routes
from shadowcat.testing import ClientResponse, ProxyClient, request
from shadowcat.transport.upstream import HttpSseConnector, HttpSseUpstreamConfig

PING = request(1, "ping")


class Kit:
    """The app, and what its clients say to whoever serves them."""

    def __init__(self, nursery, serve=None, **config):
        self.nursery = nursery
        self.drain = Drain()
        self.served = []
        self.ended = []
        endpoint_config = EndpointConfig(**{"max_body_size": 1000, **config.pop("endpoint", {})})
        self.endpoint = HttpSseEndpoint(HttpSseConfig(**config), endpoint_config, serve or self.echo)
        self.app = ReverseProxyApp(
            AppConfig(),
            Routes(http_sse_routes(self.endpoint), "/mcp"),
            OriginPolicy(OriginConfig()),
            self.drain,
            lambda: pytest.fail("nobody asks"),
        )
        self.client = ProxyClient(self.app, nursery)

    async def echo(self, stream, headers):
        """Serve a client as the proxy does: until either side ends it, or the proxy shuts down."""
        self.served.append(headers)
        try:
            with self.drain.listen():
                while True:
                    await stream.send(await stream.receive())
        except StreamBroken as error:
            self.ended.append(str(error))

    async def open(self, path="/sse", **headers):
        """Return a stream, and where messages for it go."""
        response = await self.client.send("GET", path=path, headers=headers)
        assert response.status == 200
        event = await response.next_event()
        assert event.event == b"endpoint"
        assert event.data is not None
        return response, event.data.decode()

    async def post(self, uri, message=PING, **headers):
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.client.send("POST", body, headers, uri)


@pytest.fixture
def kit(nursery):
    return Kit(nursery)


class TestSession:
    async def test_messages_go_in_by_post_and_come_out_on_the_stream(self, kit):
        """2024-11-05, HTTP with SSE."""
        stream, uri = await kit.open()
        assert uri.startswith("/messages?session_id=")
        response = await kit.post(uri)

        assert (response.status, await response.read()) == (202, b"Accepted")
        assert await stream.next_message() == PING

    async def test_each_client_has_its_own(self, kit):
        """Ids cannot be guessed."""
        sessions = [await kit.open() for _ in range(3)]
        assert len({uri for _, uri in sessions}) == 3
        assert min(len(uri.partition("=")[2]) for _, uri in sessions) >= 32
        for number, (_, uri) in enumerate(sessions):
            await kit.post(uri, request(number, "ping"))
        assert [(await stream.next_message())["id"] for stream, _ in sessions] == [0, 1, 2]

    async def test_whoever_serves_sees_the_headers_of_the_get(self, kit):
        """Credentials may have to go upstream."""
        await kit.open(authorization="Bearer x")
        assert kit.served[0][b"authorization"] == b"Bearer x"

    async def test_a_client_that_leaves_ends_its_session(self, kit):
        """... and none else."""
        stream, uri = await kit.open()
        _, other = await kit.open()
        stream.leave()
        await wait_all_tasks_blocked()

        assert kit.ended == ["the client has left"]
        assert kit.endpoint.open_sessions == 1
        assert (await kit.post(uri)).status == 404
        assert (await kit.post(other)).status == 202

    async def test_the_stream_ends_when_whoever_serves_returns(self, nursery):
        """As when the upstream has gone: the client sees the end, behind the last message."""

        async def serve(stream, headers):
            await stream.send(await stream.receive())

        kit = Kit(nursery, serve)
        stream, uri = await kit.open()
        await kit.post(uri)
        assert await stream.next_message() == PING
        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()
        await wait_all_tasks_blocked()
        assert kit.endpoint.open_sessions == 0

    async def test_a_bug_ends_one_session(self, nursery, caplog):
        """It is logged, and its client sees the answer cut."""

        async def serve(stream, headers):
            if b"x-bug" in headers:
                await stream.receive()
                raise ZeroDivisionError
            await stream.send(await stream.receive())

        kit = Kit(nursery, serve)
        stream, uri = await kit.open(**{"x-bug": "1"})
        other, other_uri = await kit.open()
        await kit.post(uri)
        with pytest.raises(trio.BrokenResourceError):
            await stream.next_event()
        assert ["failed to handle a request"] == caplog.messages
        await kit.post(other_uri)
        assert await other.next_message() == PING

    async def test_streams_end_at_shutdown(self, kit):
        """... and nothing new is accepted."""
        stream, uri = await kit.open()
        kit.app.begin_drain()
        with pytest.raises(trio.EndOfChannel):
            await stream.next_event()

        assert (await kit.post(uri)).status == 503
        assert (await kit.client.send("GET", path="/sse")).status == 503

    async def test_heartbeats_are_those_of_the_endpoint(self, nursery, autojump_clock):
        """One option for all streams."""
        kit = Kit(nursery, endpoint={"heartbeat_interval": 3})
        stream, _ = await kit.open()
        assert await stream.read_some() == b": heartbeat\n\n"
        assert trio.current_time() == 3


class TestRefusals:
    async def test_streams_are_limited(self, nursery):
        """... until one ends."""
        kit = Kit(nursery, max_sessions=2)
        stream, _ = await kit.open()
        await kit.open()
        response = await kit.client.send("GET", path="/sse")
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        stream.leave()
        await wait_all_tasks_blocked()
        await kit.open()

    @pytest.mark.parametrize(
        ("query", "status"),
        [("", 400), ("?session=1", 400), ("?session_id=1", 404), ("?session_id=", 400), ("?session_id=\u00e9%ff", 404)],
    )
    async def test_a_message_needs_its_session(self, kit, query, status):
        """... and the client is told how to get one."""
        await kit.open()
        response = await kit.post(f"/messages{query}")
        assert response.status == status
        assert "GET /sse" in (await response.json())["error"]["message"]

    async def test_two_sessions_are_none(self, kit):
        """Two readers of the query could differ."""
        uris = [(await kit.open())[1] for _ in range(2)]
        assert (await kit.post(f"{uris[0]}&{uris[1].partition('?')[2]}")).status == 400

    @pytest.mark.parametrize(
        ("message", "headers", "status"),
        [
            (PING, {"content-type": "text/plain"}, 415),
            (PING, {"content-type": ""}, 415),
            (PING, {"content-encoding": "gzip"}, 415),
            (b'{"jsonrpc":', {}, 400),
            (b"\xff", {}, 400),
            (b'{"a":1}', {}, 400),
            (b"[" * 200, {}, 400),
            (b'"' + b"x" * 1000, {}, 413),
        ],
    )
    async def test_a_message_is_checked_as_at_the_mcp_endpoint(self, kit, message, headers, status):
        """The session is not disturbed."""
        stream, uri = await kit.open()
        assert (await kit.post(uri, message, **headers)).status == status
        await kit.post(uri)
        assert await stream.next_message() == PING

    async def test_a_message_does_not_wait_for_ever(self, nursery, autojump_clock):
        """The client is told when whoever serves it has no time, and which message it was."""

        async def serve(stream, headers):
            await trio.sleep(5)
            while True:
                await stream.send(await stream.receive())

        kit = Kit(nursery, serve)
        stream, uri = await kit.open()
        statuses = [(await kit.post(uri, request(number, "ping"))).status for number in range(8)]
        response = await kit.post(uri, request(8, "ping"))
        assert (trio.current_time(), statuses) == (4, [202] * 8)
        assert (response.status, response.headers["retry-after"]) == (503, "5")
        assert (await response.json())["id"] == 8
        assert [(await stream.next_message())["id"] for _ in range(8)] == list(range(8))

    @pytest.mark.parametrize(("accept", "status"), [("application/json", 406), ("text/*, */*", 200), ("", 200)])
    async def test_the_client_must_want_events(self, kit, accept, status):
        """As at the MCP endpoint; a client that says nothing wants all."""
        assert (await kit.client.send("GET", path="/sse", headers={"accept": accept})).status == status

    @pytest.mark.parametrize(
        ("method", "path", "allow"), [("POST", "/sse", "GET"), ("HEAD", "/sse", "GET"), ("GET", "/messages", "POST")]
    )
    async def test_other_methods_are_refused(self, kit, method, path, allow):
        """A client that tries streamable HTTP first falls back at a 405 (2025-03-26, Backwards Compatibility)."""
        response = await kit.client.send(method, path=path)
        assert (response.status, response.headers["allow"]) == (405, allow)

    async def test_pages_of_strangers_are_kept_out(self, kit):
        """2024-11-05: servers MUST validate the Origin header on all incoming connections."""
        _, uri = await kit.open()
        for method, path in (("GET", "/sse"), ("POST", uri)):
            for headers, status in (({"origin": "https://evil.example"}, 403), ({"host": "evil.example"}, 421)):
                assert (await kit.client.send(method, path=path, headers=headers)).status == status
        assert len(kit.served) == 1


class TestPaths:
    async def test_paths_are_those_of_the_configuration(self, nursery):
        """... and the client is told."""
        kit = Kit(nursery, sse_path="/a/events", messages_path="/b")
        stream, uri = await kit.open("/a/events")
        assert uri.startswith("/b?session_id=")
        await kit.post(uri)
        assert await stream.next_message() == PING

    async def test_uri_has_the_path_of_a_mounted_app(self, kit, nursery):
        """It begins at the root of the server, whatever the app sees of it."""

        async def mounted(scope, receive, send):
            await kit.app({**scope, "root_path": "/tools"}, receive, send)

        kit.client = ProxyClient(mounted, nursery)
        stream, uri = await kit.open("/tools/sse")
        assert uri.startswith("/tools/messages?session_id=")
        assert (await kit.post(uri)).status == 202
        assert await stream.next_message() == PING

    @pytest.mark.parametrize(
        "paths",
        [
            {"sse_path": "sse"},
            {"sse_path": "//elsewhere.example"},
            {"messages_path": "/m?x=1"},
            {"messages_path": "/m#x"},
            {"messages_path": ""},
            {"sse_path": "/x", "messages_path": "/x"},
            {"sse_path": "/health"},
            {"messages_path": "/ready"},
        ],
    )
    def test_paths_that_cannot_be_are_refused(self, paths):
        """Before anything is served."""
        with pytest.raises(ConfigError, match="choose"):
            HttpSseConfig(**paths)


class InProcess(httpx.AsyncBaseTransport):
    """Reaches an app without a socket."""

    def __init__(self, client):
        self._client = client

    async def handle_async_request(self, request):
        headers = {name.decode(): value.decode() for name, value in request.headers.raw}
        path = request.url.raw_path.decode()
        response = await self._client.send(request.method, b"".join(request.stream), headers, path)
        return httpx.Response(response.status, headers=dict(response.headers), stream=Received(response))


@attrs.define
class Received(httpx.AsyncByteStream):
    response: ClientResponse

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not (data := await self.response.read_some()):
            raise StopAsyncIteration
        return data

    async def aclose(self):
        await trio.lowlevel.checkpoint_if_cancelled()
        self.response.leave()


class TestBothEnds:
    """Our client and our server of this transport, joined."""

    @asynccontextmanager
    async def connect(self, kit, *headers):
        config = HttpSseUpstreamConfig(url="http://localhost/sse")
        async with HttpSseConnector(config, InProcess(kit.client)).open(headers) as stream:
            yield stream

    async def test_messages_pass_both_ways_in_order(self, kit):
        """To the byte, but for line breaks between the members."""
        text = b'{"jsonrpc":"2.0",\r\n"method":"n","params":{"x":1.0,"y":"\xc3\xa9"}}'
        async with self.connect(kit, (b"authorization", b"Bearer x")) as stream:
            for number in range(50):
                await stream.send(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number)
                assert await stream.receive() == b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number
            await stream.send(text)
            assert await stream.receive() == text.replace(b"\r\n", b"\n")
        assert kit.served[0][b"authorization"] == b"Bearer x"

    async def test_the_end_of_the_client_is_that_of_the_session(self, kit):
        """... also when it is cancelled."""
        with trio.CancelScope() as scope:
            async with self.connect(kit) as stream:
                scope.cancel()
                await stream.receive()
        await wait_all_tasks_blocked()
        assert kit.ended == ["the client has left"]
        assert kit.endpoint.open_sessions == 0

    async def test_the_end_of_the_server_is_told(self, kit):
        """The client has to begin anew."""
        async with self.connect(kit) as stream:
            kit.app.begin_drain()
            with pytest.raises(StreamBroken, match="initialize again"):
                await stream.receive()
        with pytest.raises(UpstreamUnavailable, match="later"):
            async with self.connect(kit):
                pytest.fail("it was opened")

    async def test_streams_that_relay_one_another_leave_no_task(self, nursery, autojump_clock):
        """As the proxy between two of these."""
        far = Kit(nursery)

        async def relay(stream, headers):
            async def copy(source, sink):
                try:
                    while True:
                        await sink.send(await source.receive())
                except (StreamBroken, SessionNotFound):
                    inner.cancel_scope.cancel()

            async with self.connect(far) as upstream, trio.open_nursery() as inner:
                inner.start_soon(copy, stream, upstream)
                inner.start_soon(copy, upstream, stream)

        near = Kit(nursery, relay)
        async with self.connect(near) as stream:
            await stream.send(json.dumps(PING).encode())
            assert json.loads(await stream.receive()) == PING
        await wait_all_tasks_blocked()
        assert (near.endpoint.open_sessions, far.endpoint.open_sessions) == (0, 0)
