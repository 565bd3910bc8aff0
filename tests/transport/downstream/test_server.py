"""Serving, and stopping while clients do as they like."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from shadowcat.errors import ConfigError

REQUEST = b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
ANSWER = b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello"


def get(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


async def test_url_has_the_real_port(serve, app):
    async with serve(app) as server:
        assert f"http://127.0.0.1:{server.address[1]}" == server.url
        await server.assert_alive()


async def test_ipv6(serve, app):
    try:
        async with serve(app, bind="[::1]:0") as server:
            assert f"http://[::1]:{server.address[1]}" == server.url
            await server.assert_alive()
    except ConfigError:
        pytest.skip("no IPv6 here")


async def test_many_requests_on_one_connection(serve, app):
    """More than hypercorn's default of a thousand."""
    async with serve(app) as server, server.connect() as client:
        for _ in range(1100):
            await client.send(REQUEST)
            assert ANSWER == await client.read_until(b"hello")
    assert {"http"} == {scope["type"] for scope in app.calls}


async def test_server_says_nothing(serve, app, capfd, caplog):
    """Neither hypercorn's banner nor its access log, and no ``Server`` header."""
    caplog.set_level(logging.INFO)
    async with serve(app) as server:
        answer = await server.exchange(REQUEST, b"", REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        server.shutdown.set()
        await server.stopped.wait()
    assert b"server:" not in answer.lower()
    assert ("", "") == capfd.readouterr()
    assert [] == caplog.records


async def test_shutdown_closes_idle_connections_at_once(serve, app):
    """Whether they have been used, have sent half a header, or nothing at all."""
    async with serve(app, graceful_timeout=60) as server:
        async with server.connect() as used, server.connect() as half, server.connect() as fresh:
            await used.send(REQUEST)
            await used.read_until(b"hello")
            await half.send(b"GET / HT")
            await trio.testing.wait_all_tasks_blocked()
            server.shutdown.set()
            with trio.fail_after(1):
                await server.stopped.wait()
            for client in (used, half, fresh):
                assert b"" == await client.read_to_end()
        with pytest.raises(OSError, match="refused"):
            async with server.connect():
                pass


async def test_shutdown_lets_a_call_finish(serve):
    """The answer is whole, and says that no further request is taken."""
    is_called, may_answer = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        is_called.set()
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app, graceful_timeout=60) as server, server.connect() as client:
        await client.send(get("ok"))
        await is_called.wait()
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not server.stopped.is_set()

        may_answer.set()
        assert (await client.read_to_end()).endswith(b"connection: close\r\n\r\nok")
        await client.stream.aclose()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_shutdown_closes_after_a_stream_that_ends(serve):
    """Its head was sent before, so it could not announce the close."""
    may_end = trio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await may_end.wait()
        await send({"type": "http.response.body", "body": b"end"})

    async with serve(app, graceful_timeout=60) as server, server.connect() as client:
        await client.send(get("ok"))
        await client.read_until(b"\r\n\r\n")
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        may_end.set()
        assert b"3\r\nend\r\n0\r\n\r\n" == await client.read_to_end()


async def test_shutdown_resets_a_stream_that_ends_by_closing(serve, app):
    """In HTTP/1.0 an orderly close would pass for the end."""
    async with serve(app, graceful_timeout=0) as server, server.connect() as client:
        await client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        await client.read_until(b"first")
        server.shutdown.set()
        with pytest.raises(trio.BrokenResourceError):
            await client.read_to_end()


async def test_shutdown_ends_endless_streams_after_graceful_timeout(serve, app):
    """The app is cancelled, and the client can tell the stream was cut."""
    async with serve(app, graceful_timeout=0.3) as server, server.connect() as client:
        await client.send(get("stream"))
        await client.read_until(b"first\r\n")
        started = trio.current_time()
        server.shutdown.set()
        with trio.fail_after(1):
            await server.stopped.wait()
        assert 0.3 <= trio.current_time() - started
        assert app.cancelled.is_set()
        assert b"" == await client.read_to_end()


async def test_shutdown_is_not_delayed_by_a_client_that_does_not_read(serve, app):
    """hypercorn's own writes are shielded, and wait for such a client for ever."""
    async with serve(app, graceful_timeout=0.3) as server, server.connect(receive_buffer=4096) as client:
        await client.send(get("flood"))
        await app.is_streaming.wait()
        await trio.testing.wait_all_tasks_blocked()
        server.shutdown.set()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_cancellation_stops_at_once(serve, app):
    """Also with an idle client, an endless stream, and one that does not read."""
    with trio.fail_after(1):
        async with serve(app, graceful_timeout=60) as server:
            async with server.connect(), server.connect() as streaming, server.connect(receive_buffer=4096) as stalled:
                await streaming.send(get("stream"))
                await streaming.read_until(b"first")
                await stalled.send(get("flood"))
                await trio.testing.wait_all_tasks_blocked()
                server.nursery.cancel_scope.cancel()
                await trio.sleep_forever()
    assert app.cancelled.is_set()
    assert not server.stopped.is_set()


async def test_second_server_can_take_the_port(serve, app):
    """The listening socket is closed, and connections in TIME_WAIT are no obstacle."""
    async with serve(app) as server:
        await server.assert_alive()
    async with serve(app, bind=f"127.0.0.1:{server.address[1]}") as again:
        await again.assert_alive()
