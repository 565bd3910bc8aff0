"""The transport that keeps connections, against servers on the loopback interface."""

from __future__ import annotations

import gc
import socket
import ssl
import sys

import httpx
import pytest
import trio
import trio.testing
import trustme

from shadowcat.transport.upstream import Http1Transport
from shadowcat.transport.upstream.http1 import PeerDisconnected

from .loopback import BIG, Server, call, request, run_server


async def test_connection_is_used_again(server, transport):
    for _ in range(3):
        assert b"hi" == await call(transport, server)

    assert [1, 1, 1] == [number for number, _ in server.seen]
    found = transport.statistics()
    assert (1, 1, 1) == (found.open, found.idle, found.opened_total)


async def test_connection_is_back_before_the_response_is_closed(server, transport):
    response = await transport.handle_async_request(request(server, "/parts"))
    stream = aiter(response.stream)
    assert 0 == transport.statistics().idle
    assert b"hi" == b"".join([chunk async for chunk in stream])

    assert 1 == transport.statistics().idle
    await response.aclose()
    assert 1 == transport.statistics().idle


async def test_request_is_sent_exactly_as_given(server, transport):
    headers = [(b"hOST", b"elsewhere"), (b"X-A", b"1"), (b"x-a", b"2"), (b"content-length", b"2")]
    url = f"http://127.0.0.1:{server.port}/mcp?q=%20"
    message = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(b"{}"))
    await (await transport.handle_async_request(message)).aread()

    expected = b"POST /mcp?q=%20 HTTP/1.1\r\nhOST: elsewhere\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\n{}"
    assert [(1, expected)] == server.seen


async def test_missing_host_and_length_are_added(server, transport):
    message = httpx.Request("POST", f"http://127.0.0.1:{server.port}/", stream=httpx.ByteStream(b"{}"))
    await (await transport.handle_async_request(message)).aread()

    expected = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 2\r\n\r\n{}" % server.port
    assert [(1, expected)] == server.seen


async def test_body_of_unknown_length_is_sent_in_chunks(server, transport):
    async def body():
        yield b"ab"
        yield b""
        yield b"c"

    assert b"hi" == await call(transport, server, content=body())
    assert server.seen[0][1].endswith(b"chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nEvil: 1"},
        {"x": "a\0"},
        {"content-length": "1"},
        {"content-length": "2", "transfer-encoding": "chunked"},
        {"transfer-encoding": "gzip"},
    ],
)
async def test_request_that_would_smuggle_is_never_sent(server, transport, headers):
    with pytest.raises(httpx.LocalProtocolError):
        await call(transport, server, headers=headers)

    assert 0 == transport.statistics().opened_total


async def test_only_http_is_spoken(server, transport):
    with pytest.raises(httpx.UnsupportedProtocol):
        await call(transport, server, scheme="ftp")


async def test_idle_connection_closed_by_the_server_is_not_used(server, transport):
    await call(transport, server, "/once")
    await trio.testing.wait_all_tasks_blocked()

    assert b"hi" == await call(transport, server)
    assert [1, 2] == [number for number, _ in server.seen]
    assert 1 == transport.statistics().open


async def test_idle_connection_that_speaks_unasked_is_not_used(server, transport):
    await call(transport, server, "/surplus")
    await trio.testing.wait_all_tasks_blocked(0.001)

    assert b"hi" == await call(transport, server)
    assert [1, 2] == [number for number, _ in server.seen]


async def test_request_is_never_sent_twice(server, transport):
    """The server reads a request on a kept connection and hangs up."""
    await call(transport, server)
    with pytest.raises(PeerDisconnected):
        await call(transport, server, "/bye")

    assert [1, 1] == [number for number, _ in server.seen]
    assert 0 == transport.statistics().open


async def test_answer_to_a_request_that_was_not_read_to_its_end_is_returned(server, transport):
    response = await transport.handle_async_request(request(server, "/refuse", content=b"x" * 2**24))

    assert 413 == response.status_code
    assert 0 == transport.statistics().open


async def test_hanging_up_while_a_request_is_written_is_an_error(server, transport):
    """Reading and writing may be the first to find out."""
    with pytest.raises((httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)):
        await call(transport, server, "/slam", content=b"x" * 2**24)

    assert 1 == server.hits
    assert 0 == transport.statistics().open


async def test_request_whose_body_fails_closes_its_connection(server, transport):
    async def body():
        yield b"ab"
        raise LookupError

    with pytest.raises(LookupError):
        await call(transport, server, content=body())
    assert 0 == transport.statistics().open


async def test_last_connection_used_is_the_first_used_again(server, transport):
    first = await transport.handle_async_request(request(server, "/half"))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call, transport, server, "/parts")
    assert 3 == transport.statistics().idle
    last = server.seen[-1][0]
    for _ in range(5):
        await call(transport, server)

    assert 1 == len({number for number, _ in server.seen[-5:]})
    assert last == server.seen[-1][0]
    await first.aclose()


async def test_idle_connections_expire_after_two_seconds(server, transport, mock_clock):
    await call(transport, server)
    mock_clock.jump(1.9)
    await call(transport, server)
    mock_clock.jump(2)
    await call(transport, server)

    assert [1, 1, 2] == [number for number, _ in server.seen]
    assert 1 == transport.statistics().open


async def test_expired_connections_are_closed_though_others_are_used(server, transport, mock_clock):
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call, transport, server, "/parts")
    assert 8 == transport.statistics().idle
    for _ in range(3):
        mock_clock.jump(1)
        await call(transport, server)

    assert 1 == transport.statistics().open


async def test_no_more_idle_connections_than_allowed_are_kept(server):
    transport = Http1Transport(max_idle_per_origin=2)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call, transport, server, "/parts")

    assert 2 == transport.statistics().open
    await transport.aclose()
    await transport.aclose()
    assert 0 == transport.statistics().open


async def test_connection_in_use_is_closed_when_released_after_close(server):
    transport = Http1Transport()
    response = await transport.handle_async_request(request(server, "/parts"))
    await transport.aclose()

    assert b"hi" == await response.aread()
    assert 0 == transport.statistics().open


async def test_connections_that_are_broken_off_are_errors_for_who_uses_them(server, transport):
    """As if the server had hung up, wherever they are."""
    failures = []
    async with trio.open_nursery() as calls:

        async def use(path):
            try:
                response = await transport.handle_async_request(request(server, path))
                async for _ in response.stream:
                    pass
            except httpx.TransportError as error:
                failures.append(type(error))

        for path in ("/hang", "/events"):
            calls.start_soon(use, path)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert transport.statistics().open == 2
        transport.break_off()
        transport.break_off()
    assert failures == [httpx.ReadError] * 2
    assert transport.statistics().open == 0


async def test_open_streams_do_not_starve_calls(server, transport):
    streams = [await transport.handle_async_request(request(server, "/events")) for _ in range(200)]
    for _ in range(10):
        assert b"hi" == await call(transport, server)

    found = transport.statistics()
    assert (201, 1, 201) == (found.open, found.idle, found.opened_total)
    for stream in streams:
        await stream.aclose()
    assert 1 == transport.statistics().open


async def test_call_costs_the_same_however_many_streams_are_open(server, transport):
    """Counted in Python and C calls, of both ends, so that no clock is needed."""

    async def cost():
        count = 0

        def profile(frame, event, arg):
            nonlocal count
            count += 1

        # What else runs, as a finalizer, would be counted too.
        await trio.testing.wait_all_tasks_blocked()
        gc.disable()
        sys.setprofile(profile)
        try:
            await call(transport, server)
        finally:
            sys.setprofile(None)
            gc.enable()
        return count

    alone = min([await cost() for _ in range(10)])
    streams = [await transport.handle_async_request(request(server, "/events")) for _ in range(200)]
    together = min([await cost() for _ in range(10)])
    for stream in streams:
        await stream.aclose()

    # Looking at each open stream once would cost 200 more; how packets fall costs some.
    assert together < alone + 150


async def test_slow_reader_slows_the_server_down(server, transport):
    response = await transport.handle_async_request(request(server, "/big"))
    stream = aiter(response.stream)
    assert 2**16 >= len(await anext(stream))
    await trio.testing.wait_all_tasks_blocked(0.01)
    held_back = server.bytes_sent

    assert held_back < BIG / 4  # what the kernel holds for both ends
    received = 65536
    while received < BIG / 2:
        received += len(await anext(stream))
    assert server.bytes_sent > held_back
    await response.aclose()
    assert 0 == transport.statistics().open


async def test_read_timeout_limits_the_wait_for_the_head(server, transport, autojump_clock):
    with pytest.raises(httpx.ReadTimeout):
        await call(transport, server, "/hang", timeout={"read": 7.0})

    assert 7.0 == trio.current_time()
    assert 0 == transport.statistics().open


async def test_read_timeout_limits_each_silence_in_the_body(server, transport, autojump_clock):
    with pytest.raises(httpx.ReadTimeout):
        await call(transport, server, "/half", timeout={"read": 7.0})

    assert 7.0 == trio.current_time()
    assert 0 == transport.statistics().open


class HangingResolver(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *args):
        await trio.sleep_forever()

    async def getnameinfo(self, *args):
        raise NotImplementedError


async def test_connect_timeout_limits_name_resolution(transport, autojump_clock):
    trio.socket.set_custom_hostname_resolver(HangingResolver())
    message = httpx.Request("GET", "http://mcp.example/", extensions={"timeout": {"connect": 5.0}})
    with pytest.raises(httpx.ConnectTimeout):
        await transport.handle_async_request(message)

    assert 5.0 == trio.current_time()
    assert 0 == transport.statistics().opened_total


async def test_refused_connection_is_a_connect_error(transport):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server()
        server.port = free.getsockname()[1]
        with pytest.raises(httpx.ConnectError):
            await call(transport, server)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
async def tls_server(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with run_server(context) as server:
        yield server


async def test_tls_connections_are_verified_and_used_again(tls_server, authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport = Http1Transport(ssl_context=context)
    for _ in range(3):
        assert b"hi" == await call(transport, tls_server, scheme="https")
    assert ["http/1.1"] * 3 == tls_server.alpn
    await call(transport, tls_server, "/once", scheme="https")
    await trio.testing.wait_all_tasks_blocked()
    await call(transport, tls_server, scheme="https")

    assert [1, 1, 1, 1, 2] == [number for number, _ in tls_server.seen]
    await transport.aclose()


async def test_tls_body_may_end_without_a_farewell(tls_server, authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport = Http1Transport(ssl_context=context)

    assert b"hi" == await call(transport, tls_server, "/to-the-end", scheme="https")
    assert 0 == transport.statistics().open


async def test_untrusted_certificate_is_a_connect_error(tls_server):
    transport = Http1Transport()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await call(transport, tls_server, scheme="https")

    assert 0 == tls_server.hits
    assert 0 == transport.statistics().opened_total


async def test_connect_timeout_limits_the_tls_handshake(server, transport, autojump_clock):
    """The server speaks no TLS and waits for the end of a request."""
    with pytest.raises(httpx.ConnectTimeout):
        await call(transport, server, scheme="https", timeout={"connect": 5.0})
    await trio.testing.wait_all_tasks_blocked()

    assert 5.0 == trio.current_time()
    assert 0 == server.open
