"""A client on a WebSocket: the handshake, the messages, and every end."""

import contextlib

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from shadowcat.errors import ClientDisconnected, InvalidRequest, StreamBroken
from shadowcat.transport import Upgrade
from shadowcat.transport.websocket import CLOSE_TIMEOUT

from .socket_client import SocketClient


def upgrade_of(client):
    return Upgrade(client.scope, client.receive, client.send)


@contextlib.asynccontextmanager
async def accepted(client, limit=1000):
    """Yield the stream of *client*, which has seen that it was accepted."""
    async with upgrade_of(client).accept(limit) as stream:
        assert (await client.next())["type"] == "websocket.accept"
        yield stream


class TestHandshake:
    @pytest.mark.parametrize(
        ("offered", "chosen"), [((), None), (("mcp",), "mcp"), (("chat", "mcp"), "mcp")], ids=["none", "mcp", "several"]
    )
    async def test_subprotocol(self, autojump_clock, offered, chosen):
        """The client's, or none if it offers none."""
        client = SocketClient(subprotocols=offered)
        upgrade = upgrade_of(client)
        async with upgrade.accept(1000):
            pass
        assert client.sent == [{"type": "websocket.accept", "subprotocol": chosen, "headers": []}]
        assert upgrade.status == 101

    async def test_other_subprotocols_only_are_refused(self, autojump_clock):
        """Before anything is sent."""
        client = SocketClient(subprotocols=["graphql-ws"])
        with pytest.raises(InvalidRequest, match="mcp, or none"):
            async with upgrade_of(client).accept(1000):
                pass
        assert client.sent == []

    async def test_refusal_is_an_http_answer(self, autojump_clock):
        """Status, headers and body (ASGI, WebSocket Denial Response)."""
        client = SocketClient()
        upgrade = upgrade_of(client)
        await upgrade.respond(404, [(b"a", b"b")], b"body")
        assert client.sent == [
            {
                "type": "websocket.http.response.start",
                "status": 404,
                "headers": [(b"a", b"b"), (b"content-length", b"4")],
            },
            {"type": "websocket.http.response.body", "body": b"body", "more_body": False},
        ]
        assert (upgrade.method, upgrade.path, upgrade.status) == ("GET", "/ws", 404)

    @pytest.mark.parametrize("extensions", [{}, None])
    async def test_refusal_where_the_server_cannot_answer(self, autojump_clock, extensions):
        """ASGI: close before accept; the server answers 403."""
        client = SocketClient(extensions=extensions)
        await upgrade_of(client).respond(404, [], b"body")
        assert client.closed == (1008, "")
        assert len(client.sent) == 1

    async def test_client_that_has_left(self, autojump_clock):
        client = SocketClient()
        await client.receive()
        client.leave()
        with pytest.raises(ClientDisconnected):
            async with upgrade_of(client).accept(1000):
                pass
        assert client.sent == []

    async def test_it_can_be_cancelled(self, autojump_clock):
        client = SocketClient()
        client.is_stalled = True
        upgrade = upgrade_of(client)
        with trio.move_on_after(1) as scope:
            async with upgrade.accept(1000):
                pass
        assert (scope.cancelled_caught, upgrade.status) == (True, 0)


class TestMessages:
    async def test_both_ways(self, autojump_clock):
        client = SocketClient()
        async with accepted(client) as stream:
            client.text('["ä"]')
            with assert_checkpoints():
                assert await stream.receive() == '["ä"]'.encode()
            with assert_checkpoints():
                await stream.send('{"\U0001f408": 1}'.encode())
            assert await client.next() == {"type": "websocket.send", "text": '{"\U0001f408": 1}'}

    async def test_limit_is_in_bytes(self, autojump_clock):
        client = SocketClient()
        async with accepted(client) as stream:
            client.text("ä" * 500)
            assert len(await stream.receive()) == 1000

    async def test_client_that_does_not_read_makes_the_sender_wait(self, autojump_clock):
        """One message is under way, none is held."""
        client = SocketClient()
        async with accepted(client) as stream:
            client.is_stalled = True
            await stream.send(b"taken")
            with trio.move_on_after(100) as scope:
                await stream.send(b"waits")
            assert scope.cancelled_caught

    async def test_cancelled_sender_does_not_cut_the_connection(self, autojump_clock):
        """A server resets it when its ``send`` is cancelled: ours never is."""
        client = SocketClient()
        async with accepted(client) as stream:
            with trio.CancelScope() as scope:
                await stream.send(b"whole")
                scope.cancel()
                await stream.send(b"never")
            await stream.send(b"next")
            assert [await client.next_text(), await client.next_text()] == ["whole", "next"]

    async def test_cancelled_receiver_loses_nothing(self, autojump_clock):
        client = SocketClient()
        async with accepted(client) as stream:
            with trio.move_on_after(1):
                await stream.receive()
            client.text("[]")
            assert await stream.receive() == b"[]"


async def assert_broken(stream, words):
    for _ in range(2):
        with assert_checkpoints(), pytest.raises(StreamBroken, match=words):
            await stream.receive()
        with assert_checkpoints(), pytest.raises(StreamBroken, match=words):
            await stream.send(b"[]")


class TestEnds:
    @pytest.mark.parametrize(
        ("end", "words"),
        [
            ({}, "^the client has left$"),
            ({"code": 1005}, "^the client has left$"),
            ({"code": 1006, "reason": ""}, "^the client has left$"),
            ({"code": 1000}, "^the client closed the WebSocket with code 1000$"),
            ({"code": 4000, "reason": "so\nwhat" * 100}, r"^the client .* 4000: '(so\\nwhat)+s?o?'$"),
        ],
    )
    async def test_client_leaves(self, autojump_clock, end, words):
        """What it sent before is received; it is not told goodbye."""
        client = SocketClient()
        async with accepted(client) as stream:
            client.text("last")
            client.leave(**end)
            assert await stream.receive() == b"last"
            await assert_broken(stream, words)
            await stream.close()
        assert [event["type"] for event in client.sent] == ["websocket.accept"]

    async def test_binary_message(self, autojump_clock):
        """RFC 6455, 7.4.1: 1003; whatever the proxy wanted to say."""
        client = SocketClient()
        async with accepted(client) as stream:
            client.binary(b"[]")
            await assert_broken(stream, "as text")
            await stream.close(1000)
        assert client.closed == (1003, "send messages as text")

    @pytest.mark.parametrize("text", ["x" * 1001, "ä" * 501])
    async def test_message_that_is_too_long(self, autojump_clock, text):
        """RFC 6455, 7.4.1: 1009, with the limit."""
        client = SocketClient()
        async with accepted(client) as stream:
            client.text(text)
            await assert_broken(stream, "up to 1000 bytes")
            await stream.close(1000)
        assert client.closed == (1009, "send messages of up to 1000 bytes")

    async def test_we_close(self, autojump_clock):
        """After what was sent."""
        client = SocketClient()
        async with accepted(client) as stream:
            await stream.send(b"last")
            with assert_checkpoints():
                await stream.close(1001, "shutting down")
            with assert_checkpoints():
                await stream.close()
            await assert_broken(stream, "closed")
        assert client.closed == (1001, "shutting down")
        assert client.sent[1]["text"] == "last"

    async def test_stalled_client_is_not_waited_for(self, autojump_clock):
        """The connection is cut then: the message under way cannot be finished."""
        client = SocketClient()
        async with accepted(client) as stream:
            client.is_stalled = True
            await stream.send(b"last")
            await stream.close()
        assert trio.current_time() == CLOSE_TIMEOUT
        assert len(client.sent) == 1

    async def test_block_that_fails_leaves_the_close_to_the_server(self, autojump_clock):
        """It says 1011, internal error, when the app has failed."""
        client = SocketClient()
        with pytest.RaisesGroup(KeyError):
            async with accepted(client):
                raise KeyError
        assert len(client.sent) == 1

    async def test_block_can_be_cancelled(self, autojump_clock):
        """While it waits for the client, and while it closes."""
        for is_stalled in (False, True):
            client = SocketClient()
            with trio.move_on_after(1) as scope:
                async with accepted(client) as stream:
                    client.is_stalled = is_stalled
                    if is_stalled:
                        await stream.send(b"[]")
                        await stream.close()
                    await stream.receive()
            assert scope.cancelled_caught
        assert trio.current_time() == 2

    async def test_senders_are_told(self, autojump_clock, nursery):
        """Those that wait when it is closed."""
        client = SocketClient()
        told = []

        async def send():
            with pytest.raises(StreamBroken):
                await stream.send(b"[]")
            told.append(True)

        async with accepted(client) as stream:
            client.is_stalled = True
            await stream.send(b"taken")
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await stream.close()
            await wait_all_tasks_blocked()
            assert told == [True]
