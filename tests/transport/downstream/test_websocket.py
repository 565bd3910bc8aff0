"""A WebSocket client gets what the protocol promises, and can harm its own connection only."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage

from shadowcat.transport.downstream import ListenerConfig

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
ASKING = ["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"]


def handshake(*headers: str) -> bytes:
    return "\r\n".join(["GET /ws?x=1 HTTP/1.1", "Host: a", *headers, "", ""]).encode()


HANDSHAKE = handshake(*ASKING, VERSION, KEY)


class WebSocket:
    """The client's end of one."""

    def __init__(self, client) -> None:
        self.client = client
        self._protocol = Connection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    async def open(self, *headers: str, along: bytes = b"") -> bytes:
        await self.client.send(handshake(*ASKING, VERSION, KEY, *headers) + along)
        head = await self.client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return head

    def frame(self, event: Event) -> bytes:
        return self._protocol.send(event)

    async def send(self, event: Event) -> None:
        await self.client.send(self.frame(event))

    async def receive(self) -> Event:
        with trio.fail_after(5):
            while not self._events:
                data = await self.client.read_some()
                self._protocol.receive_data(data or None)
                self._events.extend(self._protocol.events())
        return self._events.pop(0)

    async def receive_text(self) -> str:
        event, text = await self.receive(), ""
        assert isinstance(event, TextMessage)
        while not event.message_finished:
            text += event.data
            event = await self.receive()
            assert isinstance(event, TextMessage)
        return text + event.data


@pytest.fixture
def connect():
    """Return a function that makes a `WebSocket` of a connection."""
    return WebSocket


async def test_messages_go_both_ways(serve, app, connect):
    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        await websocket.send(TextMessage("héllo"))
        assert "héllo" == await websocket.receive_text()
        await websocket.send(BytesMessage(b"\0\xff"))
        assert BytesMessage(b"\0\xff") == await websocket.receive()
        await websocket.send(TextMessage("hel", message_finished=False))
        await websocket.send(TextMessage("", message_finished=False))
        await websocket.send(TextMessage("lo"))
        assert "hello" == await websocket.receive_text()
        (scope,) = app.calls
        assert ("websocket", "/ws", b"x=1", "ws") == tuple(
            scope[key] for key in ("type", "path", "query_string", "scheme")
        )
        assert client.stream.socket.getsockname() == scope["client"]


async def test_frame_along_with_its_handshake(serve, app, connect):
    """It waits until the application has accepted; hypercorn ends the process here."""
    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open(along=websocket.frame(TextMessage("early")))
        assert "early" == await websocket.receive_text()


async def test_application_chooses_the_subprotocol(serve, connect):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1], "headers": [(b"x-a", b"b")]})

    async with serve(app) as server, server.connect() as client:
        head = await connect(client).open("Sec-WebSocket-Protocol: soap, mcp")
    assert b"\r\nsec-websocket-protocol: mcp\r\n" in head
    assert b"\r\nx-a: b\r\n" in head


async def test_compression_is_not_agreed_to(serve, app, connect):
    """A small message could unpack to a very large one before it is counted."""
    async with serve(app) as server, server.connect() as client:
        head = await connect(client).open("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    assert b"extensions" not in head


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([VERSION, KEY, "Sec-WebSocket-Protocol: é"], 400),
        ([VERSION, KEY, "Sec-WebSocket-Extensions: é"], 400),
        ([VERSION], 400),
        ([VERSION, "Sec-WebSocket-Key: short"], 400),
        ([KEY], 426),
        ([KEY, "Sec-WebSocket-Version: 8"], 426),
    ],
    ids=["subprotocol", "extension", "no key", "bad key", "no version", "other version"],
)
async def test_bad_handshake_is_refused(serve, app, caplog, headers, status):
    """The first two end hypercorn's process."""
    async with serve(app) as server:
        answer = await server.exchange(handshake(*ASKING, *headers))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in answer
        assert (b"sec-websocket-version: 13" in answer) is (status == 426)
        await server.assert_alive()
    assert [] == caplog.records
    assert ["http"] == [scope["type"] for scope in app.calls]


@pytest.mark.parametrize("name", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_handshake_with_a_body_is_a_request(serve, app, name):
    """Where it ends would otherwise be in doubt."""
    body = b"hello" if "Length" in name else b"5\r\nhello\r\n0\r\n\r\n"
    async with serve(app) as server, server.connect() as client:
        await client.send(handshake(*ASKING, VERSION, KEY, name) + body)
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["text", "bytes", "pieces"])
async def test_message_that_is_too_long_closes_with_1009(serve, app, connect, caplog, kind):
    """The limit is in bytes; nothing that follows is served."""
    frames: dict[str, list[Event]] = {
        "text": [TextMessage("é" * 501)],
        "bytes": [BytesMessage(bytes(1001))],
        "pieces": [BytesMessage(bytes(100), message_finished=False)] * 11,
    }
    async with serve(app, max_message_bytes=1000) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        await websocket.send(BytesMessage(bytes(1000)))
        assert BytesMessage(bytes(1000)) == await websocket.receive()
        for frame in [*frames[kind], Ping()]:
            await websocket.send(frame)
        event = await websocket.receive()
        assert isinstance(event, CloseConnection)
        assert 1009 == event.code
        assert b"" == await client.read_to_end()
        await app.ended.wait()
        assert 1009 == app.events[0]["code"]
    assert [] == caplog.records


def test_long_messages_are_taken_by_default():
    assert 16 * 1024 * 1024 == ListenerConfig().max_message_bytes


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x81\x05hello", 1002), (b"\xff\x80\0\0\0\0", 1002), (b"\x81\x81\0\0\0\0\xff", 1007)],
    ids=["not masked", "reserved bits", "not UTF-8"],
)
async def test_broken_frame_closes_the_connection(serve, app, connect, caplog, data, code):
    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        await client.send(data)
        event = await websocket.receive()
        assert isinstance(event, CloseConnection)
        assert code == event.code
        assert b"" == await client.read_to_end()
        await app.ended.wait()
        assert code == app.events[0]["code"]
        await server.assert_alive()
    assert [] == caplog.records


async def test_ping_is_answered(serve, app, connect):
    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        await websocket.send(Ping(b"hi"))
        event = await websocket.receive()
        assert isinstance(event, Pong)
        assert b"hi" == event.payload


async def test_client_that_answers_pings_may_be_silent(serve, app, connect):
    async with serve(app, ping_interval=0.05) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        for _ in range(6):
            event = await websocket.receive()
            assert isinstance(event, Ping)
            await websocket.send(event.response())
        assert not app.ended.is_set()


async def test_client_that_answers_no_ping_is_given_up(serve, app, connect):
    """Its machine may be off: nothing else would tell."""
    async with serve(app, ping_interval=0.05) as server, server.connect() as client:
        await connect(client).open()
        with trio.fail_after(2):
            await app.disconnected.wait()
        assert 1006 == app.events[0]["code"]


@pytest.mark.parametrize("how", ["close", "close without a code", "end", "reset"])
async def test_disconnect_reaches_the_app(serve, app, connect, how):
    """With the code and the reason of the client, which hypercorn forgets."""
    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        match how:
            case "close":
                await websocket.send(CloseConnection(4002, "enough"))
                assert CloseConnection(4002, "enough") == await websocket.receive()
                assert b"" == await client.read_to_end()
            case "close without a code":
                await client.send(b"\x88\x80\0\0\0\0")
            case "end":
                await client.stream.send_eof()
            case "reset":
                await client.reset()
        with trio.fail_after(1):
            await app.ended.wait()
    code = {"close": 4002, "close without a code": 1005}.get(how, 1006)
    assert [{"type": "websocket.disconnect", "code": code, "reason": "enough" * (how == "close")}] == app.events


@pytest.mark.parametrize("along", [b"", b"\x81\x85\0\0\0\0hello"], ids=["", "with a frame"])
async def test_disconnect_before_the_answer_reaches_the_app(serve, along):
    """Also behind frames that nobody can read yet."""
    is_called, is_told = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        assert {"type": "websocket.connect"} == await receive()
        is_called.set()
        assert "websocket.disconnect" == (await receive())["type"]
        is_told.set()

    async with serve(app) as server, server.connect() as client:
        await client.send(HANDSHAKE + along)
        await is_called.wait()
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        with trio.fail_after(1):
            await is_told.wait()


async def test_application_closes(serve, connect):
    """A drain ends with 1001, which is for the application to say; the client has time to answer."""
    codes = []

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1001, "reason": "going away"})
        while (event := await receive())["type"] != "websocket.disconnect":
            pass
        codes.append(event["code"])

    async with serve(app, graceful_timeout=60) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        server.shutdown.set()
        assert CloseConnection(1001, "going away") == await websocket.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert [] == codes
        await websocket.send(CloseConnection(1001))
        assert b"" == await client.read_to_end()
        await client.stream.aclose()
        with trio.fail_after(0.5):
            await server.stopped.wait()
    assert [1001] == codes


async def test_client_that_does_not_answer_a_close_is_left(serve, connect):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        assert CloseConnection(1000, "") == await websocket.receive()
        with trio.fail_after(3):
            assert b"" == await client.read_to_end()


async def test_refusal_with_a_body(serve):
    """The application answers as to any request; an MCP client sees why."""

    async def app(scope, receive, send):
        headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async with serve(app) as server:
        answer = await server.exchange(HANDSHAKE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nwww-authenticate: Bearer\r\n" in head
    assert b"connection: close" in head
    assert b"4\r\nwho \r\n8\r\nare you?\r\n0\r\n\r\n" == body


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"type": "websocket.close"}, 403),
        ({"type": "websocket.accept", "subprotocol": "other"}, 500),
        ({"type": "websocket.accept", "headers": [(b"x", b"a\r\nb")]}, 500),
        ({"type": "websocket.http.response.start", "status": 401, "headers": []}, 500),
        (None, 500),
    ],
    ids=["closed", "unknown subprotocol", "bad header", "no body", "returned"],
)
async def test_handshake_that_is_not_accepted(serve, event, status):
    async def app(scope, receive, send):
        if event is not None:
            await send(event)

    async with serve(app) as server:
        answer = await server.exchange(HANDSHAKE)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")


async def test_failure_of_the_application_closes_with_1011(serve, connect, caplog):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise RuntimeError("on purpose")

    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        event = await websocket.receive()
        assert isinstance(event, CloseConnection)
        assert 1011 == event.code
    assert ["the application failed"] == [record.message for record in caplog.records]


async def flood(scope, receive, send):
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "bytes": bytes(65536)})


async def test_stalled_reader_is_dropped_after_write_timeout(serve, connect):
    """And sending to a client that has gone lets others run; hypercorn's does not."""
    is_told = trio.Event()

    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, scope, receive, send)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await trio.sleep(0.05)
            is_told.set()
            nursery.cancel_scope.cancel()

    async with serve(app, write_timeout=0.2) as server, server.connect(receive_buffer=4096) as client:
        await connect(client).open()
        with trio.fail_after(2):
            await is_told.wait()


async def test_shutdown_is_not_delayed_by_a_client_that_does_not_read(serve, connect):
    async with serve(flood, graceful_timeout=0.2) as server, server.connect(receive_buffer=4096) as client:
        await connect(client).open()
        await trio.testing.wait_all_tasks_blocked()
        server.shutdown.set()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_client_that_sends_too_fast_has_to_wait(serve, connect):
    """What the application does not take stays in the client's hands."""

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await trio.sleep_forever()

    async with serve(app) as server, server.connect() as client:
        websocket = connect(client)
        await websocket.open()
        with trio.move_on_after(0.5) as sending:
            while True:
                await websocket.send(BytesMessage(bytes(65536)))
        assert sending.cancelled_caught


async def test_nothing_is_left_behind(serve, app, connect, caplog):
    """However a client goes, and wherever in the conversation."""
    caplog.set_level(logging.INFO)
    async with serve(app) as server:
        await server.assert_alive()
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        message: Message = TextMessage("hello")
        for cut in (len(HANDSHAKE) - 1, len(HANDSHAKE), len(HANDSHAKE) + 1, len(HANDSHAKE) + 8):
            for leave in ("reset", "close"):
                async with server.connect() as client:
                    await client.send((HANDSHAKE + connect(client).frame(message))[:cut])
                    await trio.testing.wait_all_tasks_blocked()
                    await (client.reset() if leave == "reset" else client.stream.aclose())
        with trio.fail_after(2):
            while before < trio.lowlevel.current_statistics().tasks_living:  # noqa: ASYNC110 - nobody else is told
                await trio.sleep(0.01)
    assert [] == caplog.records
