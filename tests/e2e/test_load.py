"""Many at once, one that does not read, and many that make no sense."""

import random
from itertools import count

import pytest
import trio

from tests.e2e.child import proxy_command, running
from tests.e2e.rawhttp import RawConnection, open_raw, serve_raw

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
MiB = 1024 * 1024


class ConfusableServer:
    """Finds the caller of an answer by session and id alone, as real servers do.

    Two calls with one id at once in one session: the later takes the earlier's answer.
    """

    def __init__(self) -> None:
        self._names = count()
        self._waiting: dict[tuple[str, str], trio.MemorySendChannel] = {}
        self.hits = 0

    async def serve(self, connection: RawConnection) -> None:
        while message := await connection.read_message():
            if not message.body:  # the end of a session whose client left, or a stream
                await connection.answer({})
                continue
            call = message.json
            if call["method"] == "initialize":
                result = {"protocolVersion": "2025-11-25", "capabilities": {}}
                await connection.answer(
                    {"jsonrpc": "2.0", "id": call["id"], "result": result}, mcp_session_id=f"u{next(self._names)}"
                )
                continue
            self.hits += 1
            key = (message.headers["mcp-session-id"], str(call["id"]))
            self._waiting[key], receiver = trio.open_memory_channel(1)
            for _ in range(random.randrange(4)):
                await trio.lowlevel.checkpoint()
            self._waiting[key].send_nowait({"echo": call["params"], "by": key[0]})
            answer = await receiver.receive()
            await connection.answer({"jsonrpc": "2.0", "id": call["id"], "result": answer})


@pytest.mark.parametrize("id_of", [lambda number: number, lambda number: 1], ids=["own ids", "all use id 1"])
async def test_ten_thousand_calls_over_a_hundred_sessions_each_get_their_own_answer(id_of, nursery):
    server = ConfusableServer()
    upstream = await serve_raw(nursery, server.serve)
    answered = 0

    async def call(url: str, session: str, numbers) -> None:
        nonlocal answered
        connection = await open_raw(url)
        async with connection.stream:
            for number in numbers:
                request = {"jsonrpc": "2.0", "id": id_of(number), "method": "x", "params": {"n": number, "s": session}}
                answer = (await connection.request("POST", "/mcp", request, mcp_session_id=session)).json
                assert answer["id"] == id_of(number)
                assert answer["result"]["echo"] == request["params"]
                answered += 1

    with running(proxy_command(upstream)) as proxy, trio.fail_after(90):
        url = await trio.to_thread.run_sync(proxy.wait_for_url)
        async with trio.open_nursery() as calls:
            for _ in range(100):
                opener = await open_raw(url)
                async with opener.stream:
                    session = (await opener.request("POST", "/mcp", INITIALIZE)).headers["mcp-session-id"]
                for lane in range(4):
                    calls.start_soon(call, url, session, range(lane * 25, lane * 25 + 25))
        assert answered == server.hits == 10_000
    nursery.cancel_scope.cancel()


EVENT = b"data: " + b"x" * 65_528 + b"\n\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"content-type: text/event-stream\r\ntransfer-encoding: chunked", b"10000\r\n" + EVENT + b"\r\n"),
        (b"content-type: text/event-stream\r\ntransfer-encoding: chunked", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        (b"content-type: application/json\r\ncontent-length: 67108864", b"x" * 65_536),
    ],
    ids=["events", "one event", "one document"],
)
async def test_reader_that_stops_costs_little_memory(head, piece, nursery):
    """64 MiB are on their way to it, and the proxy grows by less than 16 MiB."""
    sent = 0

    async def handler(connection: RawConnection) -> None:
        nonlocal sent
        await connection.read_message()
        await connection.stream.send_all(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        for _ in range(1024):
            await connection.stream.send_all(piece)
            sent += len(piece)

    upstream = await serve_raw(nursery, handler)
    with running(proxy_command(upstream)) as proxy, trio.fail_after(60):
        url = await trio.to_thread.run_sync(proxy.wait_for_url)
        before = proxy.resident
        connection = await open_raw(url)
        async with connection.stream:
            modern = {"jsonrpc": "2.0", "id": 1, "method": "x"}
            await connection.send_request("POST", "/mcp", modern, mcp_protocol_version="2026-07-28", mcp_method="x")
            await settle(lambda: sent)
            assert proxy.resident - before < 16 * MiB
            assert 0 < sent < 32 * MiB
            total = 0
            while total < 64 * MiB:
                total += len(await connection.stream.receive_some(MiB))
            assert proxy.resident - before < 16 * MiB
    nursery.cancel_scope.cancel()


async def settle(value):
    """Return when *value* has stopped changing for half a second."""
    last, since = value(), trio.current_time()
    while trio.current_time() - since < 0.5:
        await trio.sleep(0.02)
        if value() != last:
            last, since = value(), trio.current_time()


PARTS = [
    b"POST",
    b"GET",
    b"DELETE",
    b"OPTIONS",
    b"HEAD",
    b"PRI",
    b"\xff",
    b"/mcp",
    b"/health",
    b"/%ff",
    b"*",
    b"http://a/b",
    b"/mcp?x=%00",
    b"/" + b"a" * 5000,
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b"Host: localhost",
    b"Host: evil.example",
    b"Host: localhost\r\nHost: b",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999",
    b"Transfer-Encoding: chunked",
    b"Content-Type: application/json",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Upgrade: h2c",
    b"Mcp-Session-Id: \xe9",
    b"Mcp-Session-Id: " + b"x" * 300,
    b"Mcp-Protocol-Version: 2026-07-28",
    b"Mcp-Protocol-Version: \xff",
    b"Mcp-Name: =?base64?!?=",
    b"Mcp-Param-A: \x01",
    b"Last-Event-ID: \xf0\x9f",
    b"Origin: null",
    b"X: " + b"y" * 40_000,
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
    b"[" * 500,
    b'{"id":{}}',
    b"\xef\xbb\xbf{}",
    b"A: b\r\n" * 150,
]


async def test_five_thousand_senseless_connections_change_nothing(nursery):
    """Whatever a stranger sends, a well-behaved client on another connection is served."""
    server = ConfusableServer()
    upstream = await serve_raw(nursery, server.serve)
    rng = random.Random(20261121)
    request = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n"

    async def misbehave(url: str) -> None:
        data = bytearray(request + b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
        for _ in range(rng.randrange(1, 6)):
            where = rng.randrange(len(data) + 1)
            data[where : where + rng.randrange(12)] = rng.choice(PARTS)
        stranger = await open_raw(url)
        async with stranger.stream:
            await stranger.stream.send_all(data)
            if rng.random() < 0.5:
                await stranger.stream.send_eof()
                with trio.move_on_after(0.05):
                    await stranger.read_message()

    async def lane(url: str) -> None:
        for _ in range(250):
            try:
                await misbehave(url)
            except (trio.BrokenResourceError, AssertionError, ValueError):
                continue

    with running(proxy_command(upstream)) as proxy, trio.fail_after(100):
        url = await trio.to_thread.run_sync(proxy.wait_for_url)
        friend = await open_raw(url)
        async with friend.stream:
            session = (await friend.request("POST", "/mcp", INITIALIZE)).headers["mcp-session-id"]
            async with trio.open_nursery() as strangers:
                for _ in range(20):
                    strangers.start_soon(lane, url)
            call = {"jsonrpc": "2.0", "id": 7, "method": "x", "params": {}}
            assert (await friend.request("POST", "/mcp", call, mcp_session_id=session)).json["id"] == 7
        assert "Traceback" not in proxy.output
    nursery.cancel_scope.cancel()
