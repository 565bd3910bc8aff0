"""A client can end its own connection, and nothing else."""

from __future__ import annotations

import logging
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
