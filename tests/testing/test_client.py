"""The client of the kit, before ASGI applications of the test's own."""

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.protocol import SSEEvent
from shadowcat.testing import ProxyClient, notification, request, result


class App:
    """Remembers what it was asked, and answers step by step."""

    def __init__(self, *steps, status=200, headers=(), is_cut=False):
        self.steps = steps
        self.is_cut = is_cut
        self.status = status
        self.headers = headers
        self.requests = []
        self.written = 0
        self.events = []

    async def __call__(self, scope, receive, send):
        body = (await receive())["body"]
        self.requests.append((scope, body))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for step in self.steps:
            if step is None:
                self.events.append((await receive())["type"])
                return
            await send({"type": "http.response.body", "body": step, "more_body": True})
            self.written += 1
        if not self.is_cut:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def sent_headers(self, number=-1):
        scope, _ = self.requests[number]
        return {name.decode(): value.decode() for name, value in scope["headers"]}


class TestRequest:
    async def test_post_is_what_mcp_wants(self, autojump_clock, nursery):
        """MCP, Sending Messages: POST, JSON, and an Accept header with both content types."""
        app = App()
        await ProxyClient(app, nursery).post(request(1, "x"))
        ((scope, body),) = app.requests

        assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", "/mcp")
        assert json.loads(body) == request(1, "x")
        assert app.sent_headers() == {
            "host": "localhost",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }

    async def test_bytes_are_sent_as_they_are(self, autojump_clock, nursery):
        """What is wrong can be sent, too."""
        app = App()
        await ProxyClient(app, nursery).post(b"{ not json")
        assert app.requests[0][1] == b"{ not json"

    async def test_headers_replace_add_and_remove(self, autojump_clock, nursery):
        """Names in any case; an empty value removes."""
        app = App()
        await ProxyClient(app, nursery).post({}, {"Content-Type": "text/plain", "X-A": "é", "accept": ""})

        expected = [("content-type", "text/plain"), ("host", "localhost"), ("x-a", "é")]
        assert expected == sorted(app.sent_headers().items())
        assert len(expected) == len(app.requests[0][0]["headers"])

    async def test_initialize_opens_a_session_that_is_sent_from_then_on(self, autojump_clock, nursery):
        """MCP 2025-11-25: the client MUST include Mcp-Session-Id and MCP-Protocol-Version in all that follows."""
        app = App(headers=[(b"mcp-session-id", b"s")])
        client = ProxyClient(app, nursery)
        await client.initialize("2025-06-18", {"roots": {}})
        params = json.loads(app.requests[0][1])["params"]
        assert (params["protocolVersion"], params["capabilities"]) == ("2025-06-18", {"roots": {}})
        assert "mcp-session-id" not in app.sent_headers()

        for send in (lambda: client.post({}), client.listen, client.delete):
            await send()
            assert app.sent_headers()["mcp-session-id"] == "s"
            assert app.sent_headers()["mcp-protocol-version"] == "2025-06-18"
        assert [scope["method"] for scope, _ in app.requests] == ["POST", "POST", "GET", "DELETE"]

    async def test_initialize_without_a_session_leaves_none(self, autojump_clock, nursery):
        """A refusal opens nothing, and ends what there was."""
        app = App()
        client = ProxyClient(app, nursery)
        client.session_id = "old"
        await client.initialize()
        assert client.session_id is None

    async def test_listening_may_resume(self, autojump_clock, nursery):
        """MCP 2025-11-25, Resumability: GET with Last-Event-ID."""
        app = App()
        await ProxyClient(app, nursery).listen("7")
        assert app.sent_headers()["last-event-id"] == "7"


class TestResponse:
    async def test_head_is_here_before_the_body(self, autojump_clock, nursery):
        """A stream that stays open is answered at once."""
        app = App(None, status=201, headers=[(b"x-a", b"\xe9")])
        response = await ProxyClient(app, nursery).post({})

        assert (response.status, response.headers) == (201, {"x-a": "é"})
        nursery.cancel_scope.cancel()

    async def test_body_comes_piece_by_piece(self, autojump_clock, nursery):
        """... and is empty at its end, however often one asks."""
        response = await ProxyClient(App(b"a", b"", b"bc"), nursery).post({})

        assert [b"a", b"bc", b"", b""] == [await response.read_some() for _ in range(4)]

    async def test_rest_is_read_as_a_whole(self, autojump_clock, nursery):
        """Bytes, or the JSON value they stand for."""
        response = await ProxyClient(App(b"a", b"b", b"c"), nursery).post({})
        await response.read_some()
        assert await response.read() == b"bc"

        response = await ProxyClient(App(b'{"a"', b":1}"), nursery).post({})
        assert await response.json() == {"a": 1}

    async def test_events_are_read_one_by_one(self, autojump_clock, nursery):
        """However they are cut; comments are skipped, and events without data are no messages."""
        first, second = json.dumps(notification("n")).encode(), json.dumps(result(1)).encode()
        wire = b": hi\n\nid: 1\n\ndata: " + first + b"\n\nid: 2\ndata:\n\ndata: " + second + b"\n\n"
        response = await ProxyClient(App(wire[:9], wire[9:50], wire[50:]), nursery).post({})

        assert await response.next_event() == SSEEvent(id=b"1")
        assert await response.next_message() == notification("n")
        assert await response.next_message() == result(1)
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await response.next_event()

    async def test_app_waits_for_a_client_that_does_not_read(self, autojump_clock, nursery):
        """Back pressure, as a socket has it."""
        app = App(*[b"x"] * 10)
        response = await ProxyClient(app, nursery).post({})
        await wait_all_tasks_blocked()
        assert app.written == 0
        await response.read_some()
        await wait_all_tasks_blocked()
        assert app.written == 1

        assert await response.read() == b"x" * 9

    async def test_answer_that_is_cut_is_not_taken_for_complete(self, autojump_clock, nursery):
        """The app returns before it has ended the body."""
        response = await ProxyClient(App(b"data: a\n\n", is_cut=True), nursery).post({})
        assert await response.next_event() == SSEEvent(b"a")
        with pytest.raises(trio.BrokenResourceError):
            await response.read_some()


class TestLeaving:
    async def test_app_is_told(self, autojump_clock, nursery):
        """ASGI: http.disconnect."""
        app = App(b"a", None)
        response = await ProxyClient(app, nursery).post({})
        await response.read_some()
        response.leave()
        await wait_all_tasks_blocked()

        assert app.events == ["http.disconnect"]

    async def test_app_that_still_writes_is_not_held_up(self, autojump_clock, nursery):
        """A server drops what nobody reads; the app goes on to its end."""
        app = App(*[b"x"] * 10)
        response = await ProxyClient(app, nursery).post({})
        await wait_all_tasks_blocked()
        response.leave()
        await wait_all_tasks_blocked()

        assert app.written == 10

    async def test_call_that_is_cancelled_leaves(self, autojump_clock, nursery):
        """A client that gives up before the head has come closes its connection."""
        events = []

        async def app(scope, receive, send):
            await receive()
            events.append((await receive())["type"])

        with trio.move_on_after(1) as scope:
            await ProxyClient(app, nursery).post({})
        await wait_all_tasks_blocked()

        assert scope.cancelled_caught
        assert events == ["http.disconnect"]

    async def test_client_stays_for_other_calls(self, autojump_clock, nursery):
        """Each request has a connection of its own."""
        app = App(b"x", None)
        client = ProxyClient(app, nursery)
        first, second = await client.post({}), await client.post({})
        first.leave()

        assert await second.read_some() == b"x"
        nursery.cancel_scope.cancel()


async def test_app_without_an_answer_fails_the_test(autojump_clock, nursery):
    """... instead of waiting for ever."""

    async def app(scope, receive, send):
        await receive()

    with pytest.raises(AssertionError, match="without an answer"):
        await ProxyClient(app, nursery).post({})
