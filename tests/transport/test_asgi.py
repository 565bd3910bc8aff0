"""One ASGI call as an exchange."""

import pytest
import trio

from shadowcat.errors import ClientDisconnected, InvalidRequest, PayloadTooLarge, RequestTimeout
from shadowcat.transport import Exchange


class Server:
    """The server's side of one call: what it delivers, and what it was sent."""

    def __init__(self, *events, **scope):
        self.events = list(events)
        self.sent = []
        self.exchange = Exchange(
            {"type": "http", "method": "POST", "path": "/mcp", "headers": [], **scope}, self.receive, self.send
        )

    async def receive(self):
        await trio.lowlevel.checkpoint()
        if not self.events:
            await trio.sleep_forever()
        return self.events.pop(0)

    async def send(self, event):
        await trio.lowlevel.checkpoint()
        self.sent.append(event)


def part(body, more_body=True):
    return {"type": "http.request", "body": body, "more_body": more_body}


async def test_body_is_put_together():
    """However many parts it comes in."""
    server = Server(part(b"a"), part(b"bc"), part(b"", more_body=False))
    assert await server.exchange.read_body(3, 1) == b"abc"


async def test_body_over_the_limit_is_refused():
    """Also when its length was not declared."""
    server = Server(part(b"ab"), part(b"cd"))
    with pytest.raises(PayloadTooLarge, match="--max-body-size"):
        await server.exchange.read_body(3, 1)


@pytest.mark.parametrize(
    ("length", "error"), [(b"4", PayloadTooLarge), (b"-1", InvalidRequest), (b"x", InvalidRequest)]
)
async def test_declared_length_is_checked_before_anything_is_read(length, error):
    """Nothing of such a body is wanted."""
    server = Server(part(b"a", more_body=False))
    server.exchange.headers = {b"content-length": length}
    with pytest.raises(error):
        await server.exchange.read_body(3, 1)
    assert len(server.events) == 1


async def test_body_that_is_not_complete_in_time_is_refused(autojump_clock):
    """A client cannot hold a request open for ever."""
    server = Server(part(b"a"))
    with pytest.raises(RequestTimeout):
        await server.exchange.read_body(3, 30)
    assert trio.current_time() == 30


async def test_leaving_within_the_body_is_told():
    """There is nobody to answer to."""
    with pytest.raises(ClientDisconnected):
        await Server(part(b"a"), {"type": "http.disconnect"}).exchange.read_body(3, 1)


async def test_waiting_for_the_client_to_leave_passes_over_what_else_comes():
    """Only a disconnect ends it."""
    await Server(part(b"x"), {"type": "http.disconnect"}).exchange.wait_disconnected()


@pytest.mark.parametrize(("status", "has_length"), [(200, True), (202, True), (204, False), (304, False)])
async def test_whole_answers_have_a_length_where_http_allows_one(status, has_length):
    """RFC 9110, 8.6."""
    server = Server()
    server.exchange.extra_headers = ((b"vary", b"origin"),)
    await server.exchange.respond(status, [(b"a", b"b")])
    names = [name for name, _ in server.sent[0]["headers"]]
    assert (b"content-length" in names) == has_length
    assert b"vary" in names
    assert server.exchange.status == status


async def test_writes_of_two_tasks_do_not_mix(nursery):
    """The second waits for the first, whole."""
    server = Server()
    stream = await server.exchange.open_stream(200, [])
    nursery.start_soon(stream.write, b"a")
    nursery.start_soon(stream.write, b"b")
    await trio.testing.wait_all_tasks_blocked()
    await stream.end()
    assert sorted(event["body"] for event in server.sent[1:3]) == [b"a", b"b"]
    assert server.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_path_is_below_where_the_app_is_mounted():
    """ASGI servers leave the prefix in the path."""
    assert Server(path="/tools/mcp", root_path="/tools").exchange.path == "/mcp"


@pytest.mark.parametrize(
    ("scope", "peer"),
    [({"client": ("2001:db8::1", 1)}, "2001:db8::1"), ({"client": None}, "unknown"), ({}, "unknown")],
)
def test_peer_is_what_the_server_says(scope, peer):
    assert Server(**scope).exchange.peer == peer
