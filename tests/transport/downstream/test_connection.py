"""A client can end its own connection, and nothing else."""

from __future__ import annotations

import logging
import random
import socket

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from shadowcat.transport.downstream import ListenerConfig
from shadowcat.transport.downstream.connection import Connection, ServerContext
from shadowcat.transport.downstream.head import parse_head


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /{path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def post(path: str, body: bytes = b"") -> bytes:
    return b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


async def test_unforeseen_error_ends_one_connection_only(serve, app, monkeypatch, caplog):
    """hypercorn lets it end the accept loop, and with it the process."""

    def fail(data):
        if b"boom" in data:
            raise ValueError("unforeseen")
        return parse_head(data)

    monkeypatch.setattr("shadowcat.transport.downstream.connection.parse_head", fail)
    async with serve(app) as server, server.connect() as bystander:
        assert b"" == await server.exchange(get("boom"))
        assert ["a connection failed"] == [record.message for record in caplog.records]
        await bystander.send(post("ok", b"fine"))
        await bystander.read_until(b"fine")
        await server.assert_alive()


async def test_no_task_is_left_when_the_body_is_not_read(serve, app):
    """The app answers a long upload at once; hypercorn's reader then waits for ever."""
    async with serve(app) as server:
        await server.assert_alive()
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        async with server.connect() as client:
            await client.send(post("early", bytes(2_000_000)))
            answer = await client.read_to_end()
        assert answer.startswith(b"HTTP/1.1 413")
        assert answer.endswith(b"\r\nconnection: close\r\n\r\nno")
        await trio.testing.wait_all_tasks_blocked()
        assert before == trio.lowlevel.current_statistics().tasks_living


async def test_early_answer_survives_the_upload(serve, app):
    """We close after it, but not so hard that the client never sees it."""
    async with serve(app) as server, server.connect() as client:
        await client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
        await app.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        await client.send(bytes(8000))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(bytes(500))
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 413")


async def test_client_that_goes_on_uploading_is_cut_off(serve, app):
    """It is given a second to notice that we have closed."""
    async with serve(app) as server, server.connect() as client:
        await client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3):
            await _drip(client, bytes(1000))


async def test_stalled_reader_is_dropped_after_write_timeout(serve, app):
    """Its app learns of it from ``receive``, and the socket does not linger."""
    async with serve(app, write_timeout=0.2) as server, server.connect(receive_buffer=4096) as client:
        await client.send(get("flood"))
        with trio.fail_after(2):
            await app.disconnected.wait()
            await app.ended.wait()
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()
        await server.assert_alive()


async def test_slow_reader_is_not_dropped(serve):
    """One long write may take longer than write_timeout if it makes progress."""
    size = 3_000_000

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with serve(app, write_timeout=0.3) as server, server.connect(receive_buffer=65536) as client:
        await client.send(get("ok"))
        await client.read_until(b"\r\n\r\n")
        started, received = trio.current_time(), 0
        while received < size - 65536:
            received += len(await client.stream.receive_some(65536))
            await trio.sleep(0.01)
        assert 0.3 < trio.current_time() - started


async def test_cancelled_send_closes_the_connection(serve):
    """Part of the data may be out, so nothing can follow it."""
    is_told = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with trio.move_on_after(0.2) as scope:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        assert scope.cancelled_caught
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        is_told.set()

    async with serve(app) as server, server.connect(receive_buffer=4096) as client:
        await client.send(get("ok"))
        with trio.fail_after(2):
            await is_told.wait()
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()


@pytest.mark.parametrize("path", ["wait", "stream"])
@pytest.mark.parametrize("pipelined", [b"", post("ok")], ids=["", "pipelined"])
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_disconnect_reaches_the_app(serve, app, path, pipelined, how):
    """Whether a response has begun or not, and also behind a waiting request."""
    async with serve(app) as server, server.connect() as client:
        await client.send(post(path) + pipelined)
        await app.is_streaming.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not app.disconnected.is_set()

        match how:
            case "close":
                await client.stream.aclose()
            case "reset":
                await client.reset()
            case "half-close":
                await client.stream.send_eof()
        with trio.fail_after(1):
            await app.disconnected.wait()
            await app.ended.wait()


async def test_disconnect_during_an_upload(serve, app):
    """The app sits in ``receive``, waiting for the rest of the body."""
    async with serve(app) as server, server.connect() as client:
        await client.send(post("echo", bytes(100_000))[:-1])
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        with trio.fail_after(1):
            await app.ended.wait()


async def test_pipelined_requests_are_read_up_to_a_limit(serve, app):
    """Behind a call under way, the kernel's buffers hold the rest, and the client has to wait."""
    async with serve(app) as server, server.connect() as client:
        with trio.move_on_after(0.5) as sending:
            await client.send(post("wait") + post("echo", bytes(50_000_000)))
        assert sending.cancelled_caught
        assert 1 == len(app.calls)


async def test_idle_connection_is_closed(serve, app):
    async with serve(app, keep_alive_timeout=0.2) as server, server.connect() as fresh, server.connect() as used:
        for _ in range(2):
            await used.send(post("echo", b"hello"))
            await used.read_until(b"hello")
        with trio.fail_after(1):
            assert b"" == await fresh.read_to_end()
            assert b"" == await used.read_to_end()


async def test_open_stream_is_not_idle(serve, app):
    """No timeout of ours ends a stream that has nothing to say."""
    async with serve(app, keep_alive_timeout=0.05, header_timeout=0.05, write_timeout=0.05) as server:
        async with server.connect() as client:
            await client.send(get("stream"))
            await client.read_until(b"first\r\n")
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
                await client.stream.receive_some(1)
            assert not app.disconnected.is_set()


async def test_connection_accepted_too_late_is_closed(app):
    """It was accepted before the listener closed, but starts after `ServerContext.drain`."""
    context = ServerContext(Config())
    context.drain()
    ours, theirs = socket.socketpair()
    with theirs, trio.fail_after(1):
        await Connection(app, ours, ListenerConfig(), context).run()
        assert b"" == theirs.recv(1)


async def test_slow_header_times_out(serve, app):
    """However often a little more of it arrives."""
    async with serve(app, header_timeout=0.2, keep_alive_timeout=60) as server, server.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drip, client, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(5000))
            answer = await client.read_to_end()
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert [] == app.calls


async def _drip(client, data):
    for byte in data:
        await client.send(bytes([byte]))
        await trio.sleep(0.01)


async def test_abandoned_connection_is_no_error(serve, app, caplog):
    """Clients come and go; that is nothing to report."""
    caplog.set_level(logging.INFO)
    async with serve(app) as server:
        for data in (b"", b"GET", get("wait"), get("stream"), post("echo", b"hello")[:-2]):
            async with server.connect() as client:
                await client.send(data)
                await client.reset()
        await server.assert_alive()
    assert [] == caplog.records


SEEDS = [
    post("echo", b'{"jsonrpc":"2.0","id":1,"method":"ping"}'),
    post("early", bytes(300)),
    post("fail", b"hello"),
    get("stream", "Accept: text/event-stream"),
    get("fail_late"),
    get("wait"),
    get("echo") + get("stream") + get("echo"),
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n world\r\n0\r\n\r\n",
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n world\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /echo HTTP/1.0\r\n\r\n",
    get("echo", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    get(
        "echo", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: mcp",
    )
    + b"\x81\x85\x00\x00\x00\x00hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip
SPICES = [b"\r\n", b"\n", b" ", b":", b"\x00", b"\xff", b"\xc3\xa9", b"chunked", b"HTTP/2.0", b"Content-Length: 9\r\n"]


def mutate(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 4, 20]))
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.choice(SPICES)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * rng.choice([1, 2, 50])
            case 3:
                data[at:end] = rng.randbytes(end - at)
            case 4:
                data[at:] = rng.choice(SEEDS)
            case 5:
                data = bytearray(data.swapcase())
    return bytes(data)


async def misbehave(server, rng: random.Random) -> None:
    """Send something mutated, in one piece or several, and leave in some way."""
    async with server.connect() as client:
        data = mutate(rng)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
        try:
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                await client.send(data[start:end])
                await trio.lowlevel.checkpoint()
            match rng.randrange(4):
                case 0:
                    await client.reset()
                case 1:
                    await client.stream.aclose()
                case _:
                    await client.stream.send_eof()
                    await client.read_to_end()
        except trio.BrokenResourceError:
            pass  # we were cut off, which is the server's right


async def fuzz(serve, app, caplog, seed: int, connections: int) -> None:
    rng = random.Random(seed)
    async with serve(app, graceful_timeout=60) as server, server.connect() as bystander:
        for number in range(connections):
            with trio.fail_after(10):
                await misbehave(server, rng)
                message = b"still-here-%d." % number
                await bystander.send(post("echo", message))
                await bystander.read_until(message)
        server.shutdown.set()
        with trio.fail_after(5):
            await server.stopped.wait()
    assert {"the application failed"} >= {record.message for record in caplog.records}


@pytest.mark.parametrize("seed", range(3))
async def test_fuzz(serve, app, caplog, seed):
    """No request brings the server down, leaves a task behind or surprises the guard."""
    await fuzz(serve, app, caplog, seed, connections=150)


@pytest.mark.slow
async def test_long_fuzz(serve, app, caplog):
    """Five thousand connections; every one used to have a chance of 1.5 % to end the server."""
    await fuzz(serve, app, caplog, seed=1000, connections=5000)
