"""The ASGI application: checks, routes, and the error boundary."""

import logging

import pytest
import trio

from shadowcat import OriginConfig
from shadowcat.auth import OriginPolicy
from shadowcat.errors import ClientDisconnected, InvalidRequest, MethodNotAllowed, UpstreamTimeout
from shadowcat.proxy import AppConfig, ReverseProxyApp
from shadowcat.proxy.answers import UNEXPECTED
from shadowcat.proxy.drain import Drain
from shadowcat.proxy.routes import Route, Routes
from shadowcat.testing import ProxyClient

PAGE = "https://app.example"


class App:
    """The real application, before handlers of the test's own."""

    def __init__(self, nursery):
        self.drain = Drain()
        self.served = []
        self.error = None
        self.request_id = None
        routes = {
            "/mcp": Route({"POST": self.handle, "GET": self.stream}),
            "/health": Route({"GET": self.handle}, is_guarded=False),
        }
        origins = OriginPolicy(OriginConfig(allowed_origins=[PAGE]))
        self.app = ReverseProxyApp(
            AppConfig(max_header_size=1024, max_header_count=8),
            Routes(routes, "/mcp"),
            origins,
            self.drain,
            lambda: pytest.fail("nobody asked"),
        )
        self.client = ProxyClient(self.app, nursery)

    async def handle(self, exchange):
        await trio.lowlevel.checkpoint()
        self.served.append(exchange.headers)
        exchange.request_id = self.request_id
        if self.error:
            raise self.error
        await exchange.respond(200, [(b"x-a", b"b")], b"ok")

    async def stream(self, exchange):
        stream = await exchange.open_stream(200, [(b"content-type", b"text/event-stream")])
        await stream.write(b"data: a\n\n")
        if self.error:
            raise self.error
        await stream.end()


@pytest.fixture
async def app(autojump_clock, nursery):
    return App(nursery)


async def error_of(response):
    body = await response.json()
    assert response.headers["content-type"] == "application/json"
    assert body.keys() == {"jsonrpc", "id", "error"}
    return body["id"], body["error"]["code"], body["error"]["message"]


class TestBoundary:
    async def test_answer_passes(self, autojump_clock, app):
        """The head says how long the body is."""
        response = await app.client.post(b"{}")

        assert (response.status, response.headers) == (200, {"x-a": "b", "content-length": "2"})
        assert await response.read() == b"ok"

    async def test_unexpected_exception_is_500_without_its_text(self, autojump_clock, app, caplog):
        """A bug is that request's: the client learns that there was one, the log what it was."""
        app.error, app.request_id = KeyError("secret-host:8123"), b'"me"'
        response = await app.client.post(b"{}")

        assert response.status == 500
        assert await error_of(response) == ("me", -32603, UNEXPECTED)
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.exc_info[1] is app.error

        app.error = None
        assert (await app.client.post(b"{}")).status == 200

    async def test_error_of_ours_is_told_in_its_own_words(self, autojump_clock, app, caplog):
        """... and is no bug, so that the log has no traceback."""
        app.error = InvalidRequest("send less", b"7")
        response = await app.client.post(b"{}")

        assert (response.status, await error_of(response)) == (400, (7, -32600, "send less"))
        assert [] == [record for record in caplog.records if record.exc_info or record.levelno > logging.INFO]

    async def test_known_id_of_the_request_comes_first(self, autojump_clock, app):
        """The exchange knows whom it answers."""
        app.error, app.request_id = InvalidRequest("no", b"7"), b"8"
        assert (await error_of(await app.client.post(b"{}")))[0] == 8

    @pytest.mark.parametrize("depth", [1, 3])
    async def test_error_in_a_group_is_the_error(self, autojump_clock, app, depth):
        """Nurseries wrap; the client need not know."""
        app.error = UpstreamTimeout("too slow")
        for _ in range(depth):
            app.error = ExceptionGroup("nursery", [app.error])
        response = await app.client.post(b"{}")

        assert (response.status, (await error_of(response))[2]) == (504, "too slow")

    async def test_405_says_what_is_allowed(self, autojump_clock, app):
        """RFC 9110, 15.5.6; also when a handler refuses."""
        assert (await app.client.send("PUT")).headers["allow"] == "POST, GET"
        app.error = MethodNotAllowed("no GET in this version", "POST")
        assert (await app.client.post(b"{}")).headers["allow"] == "POST"

    @pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("nursery", [error])])
    async def test_client_that_left_is_not_answered(self, autojump_clock, app, caplog, wrap):
        """Nobody would read it."""
        app.error = wrap(ClientDisconnected("gone"))
        sent = []

        async def send(event):
            await trio.lowlevel.checkpoint()
            sent.append(event)

        await app.app(scope_of("POST"), trio.sleep_forever, send)
        assert sent == []
        assert [] == [record for record in caplog.records if record.levelno > logging.INFO]

    @pytest.mark.parametrize("error", [KeyError("x"), UpstreamTimeout("x")])
    async def test_answer_that_has_begun_is_cut(self, autojump_clock, app, error):
        """A second head would be nonsense within the body."""
        app.error = error
        response = await app.client.send("GET")

        assert response.status == 200
        assert await response.read_some() == b"data: a\n\n"
        with pytest.raises(trio.BrokenResourceError):
            await response.read_some()

    async def test_cancellation_is_not_an_error(self, autojump_clock, app):
        """A server that stops at once is not delayed by an answer."""

        async def send(event):
            await trio.sleep_forever()

        with trio.move_on_after(1) as scope:
            await app.app(scope_of("POST"), trio.sleep_forever, send)
        assert (scope.cancelled_caught, trio.current_time()) == (True, 1)


def scope_of(method, kind="http"):
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return {"type": kind, "method": method, "path": "/mcp", "headers": headers}


class TestChecks:
    async def test_unknown_path_is_404_with_the_right_one(self, autojump_clock, app):
        """A slip in a client's configuration is seen at once."""
        response = await app.client.send("POST", path="/sse")

        assert response.status == 404
        assert "/mcp" in (await error_of(response))[2]

    async def test_foreign_host_is_421_and_foreign_page_403(self, autojump_clock, app):
        """MCP transports: servers MUST validate the Origin header; 403 if it is present and invalid."""
        assert (await app.client.post(b"{}", {"host": "evil.example"})).status == 421
        assert (await app.client.post(b"{}", {"host": ""})).status == 421
        response = await app.client.post(b"{}", {"origin": "https://evil.example"})
        assert (response.status, "access-control-allow-origin" in response.headers) == (403, False)
        assert app.served == []

    async def test_unguarded_path_has_no_such_check(self, autojump_clock, app):
        """A supervisor comes by address, and while draining."""
        app.drain.begin()
        headers = {"host": "10.0.0.1", "origin": "https://evil.example"}
        assert (await app.client.send("GET", headers=headers, path="/health")).status == 200

    async def test_draining_proxy_takes_nothing_new(self, autojump_clock, app):
        """503 with Retry-After, and the connection is closed."""
        app.drain.begin()
        response = await app.client.post(b"{}")

        assert response.status == 503
        assert (response.headers["retry-after"], response.headers["connection"]) == ("5", "close")
        assert app.served == []

    async def test_contradicting_headers_are_400(self, autojump_clock, app):
        """RFC 9110, 5.3: two readers of it could differ."""
        events = []
        scope = scope_of("POST")
        scope["headers"].append((b"host", b"127.0.0.1"))

        async def send(event):
            await trio.lowlevel.checkpoint()
            events.append(event)

        await app.app(scope, trio.sleep_forever, send)
        assert events[0]["status"] == 400

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"x-a": "x" * 800}, 200),
            ({"x-a": "x" * 1024}, 431),
            ({"x" * 1024: "a"}, 431),
            ({f"x-{number}": "a" for number in range(5)}, 200),
            ({f"x-{number}": "a" for number in range(6)}, 431),
        ],
    )
    async def test_headers_beyond_the_limit_are_431(self, autojump_clock, app, headers, status):
        """RFC 6585, 5: the total of header fields, or one of them, is too large."""
        response = await app.client.post(b"{}", headers)
        assert response.status == status
        assert (status == 431) is ("close" == response.headers.get("connection"))


class TestPages:
    async def test_answer_to_an_allowed_page_can_be_read_by_it(self, autojump_clock, app):
        """Fetch standard, CORS: the session id and the challenge are exposed; the answer varies by Origin."""
        response = await app.client.post(b"{}", {"origin": PAGE})

        assert response.headers["access-control-allow-origin"] == PAGE
        assert "mcp-session-id" in response.headers["access-control-expose-headers"]
        assert "www-authenticate" in response.headers["access-control-expose-headers"]
        assert response.headers["vary"] == "origin"

    async def test_errors_can_be_read_too(self, autojump_clock, app):
        """A page that cannot read an error shows a CORS failure instead."""
        app.error = InvalidRequest("no")
        assert (await app.client.post(b"{}", {"origin": PAGE})).headers["access-control-allow-origin"] == PAGE

    async def test_client_that_is_no_page_gets_none_of_it(self, autojump_clock, app):
        """Only browsers send Origin."""
        assert not [name for name in (await app.client.post(b"{}")).headers if name.startswith("access-control")]

    async def test_preflight_allows_what_it_asks_for(self, autojump_clock, app):
        """Fetch standard, CORS-preflight: methods and headers; nothing is served."""
        asked = {"origin": PAGE, "access-control-request-headers": "content-type,mcp-name", "host": "localhost"}
        response = await app.client.send("OPTIONS", headers=asked)

        assert (response.status, await response.read()) == (204, b"")
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-allow-methods"] == "POST, GET"
        assert response.headers["access-control-allow-headers"] == "content-type,mcp-name"
        assert int(response.headers["access-control-max-age"]) > 0
        assert app.served == []

    async def test_preflight_of_a_foreign_page_is_403(self, autojump_clock, app):
        """... so that its request is never sent."""
        assert (await app.client.send("OPTIONS", headers={"origin": "https://evil.example"})).status == 403

    async def test_preflight_while_draining_is_answered(self, autojump_clock, app):
        """The request that follows is the one to be refused, readably."""
        app.drain.begin()
        assert (await app.client.send("OPTIONS", headers={"origin": PAGE})).status == 204

    async def test_options_without_a_page_is_405(self, autojump_clock, app):
        """It is a method like any other."""
        assert (await app.client.send("OPTIONS")).status == 405


class TestOtherScopes:
    async def test_websocket_is_refused_where_there_is_none(self, autojump_clock, app):
        """ASGI: close before accept refuses the handshake; the app at the path is not asked."""
        sent = []

        async def send(event):
            await trio.lowlevel.checkpoint()
            sent.append(event)

        await app.app(scope_of("GET", "websocket"), trio.sleep_forever, send)
        assert [("websocket.close", 1008)] == [(event["type"], event["code"]) for event in sent]
        assert app.served == []

    async def test_lifespan_is_agreed_to(self, autojump_clock, app):
        """ASGI: a server waits for both before it begins and before it ends."""
        events = iter(["lifespan.startup", "lifespan.shutdown"])
        sent = []

        async def receive():
            await trio.lowlevel.checkpoint()
            return {"type": next(events)}

        async def send(event):
            await trio.lowlevel.checkpoint()
            sent.append(event["type"])

        await app.app({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
