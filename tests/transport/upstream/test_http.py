"""The seam to httpx: what an upstream's HTTP becomes for the relay."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from shadowcat import errors
from shadowcat.protocol import ResponseMode
from shadowcat.transport import UpstreamRequest
from shadowcat.transport.upstream import Http1Transport, HttpUpstream, HttpUpstreamConfig

URL = "http://secret-host.internal:8123/mcp?key=hidden"
SECRETS = ("secret-host", "8123", "hidden", "127.0.0.1")
POST = UpstreamRequest("POST", [(b"content-type", b"application/json")], b"{}")
GET = UpstreamRequest("GET", [(b"accept", b"text/event-stream")])


class Scripted(httpx.AsyncBaseTransport):
    """A transport that answers with what it is given, or raises it."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.is_closed = False

    async def handle_async_request(self, request):
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await trio.sleep_forever()
        return self.answer

    async def aclose(self):
        self.is_closed = True


class Generated(httpx.AsyncByteStream):
    """A stream of the kind httpx's own transports return."""

    def __init__(self, *steps):
        self.steps = steps
        self.closed = []

    async def __aiter__(self):
        try:
            for step in self.steps:
                match step:
                    case bytes():
                        await trio.lowlevel.checkpoint()
                        yield step
                    case float():
                        await trio.sleep(step)
                    case _:
                        raise step
        finally:
            self.closed.append("iterator")

    async def aclose(self):
        await trio.lowlevel.checkpoint()
        self.closed.append("stream")


def respond(*steps, status=200, content_type="application/json", **headers):
    return httpx.Response(status, headers={"Content-Type": content_type, **headers}, stream=Generated(*steps))


def upstream_to(answer, **config):
    transport = Scripted(answer)
    return HttpUpstream(HttpUpstreamConfig(url=URL, **config), transport), transport


async def read(response):
    try:
        return [chunk async for chunk in response.body]
    finally:
        await response.aclose()


async def test_request_goes_to_the_configured_url_with_host_and_length():
    upstream, transport = upstream_to(respond(b"{}"))
    await read(await upstream.send(POST))

    (sent,) = transport.requests
    assert URL == str(sent.url)
    assert [
        (b"host", b"secret-host.internal:8123"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
    ] == sent.headers.raw
    assert b"{}" == b"".join(sent.stream)


async def test_request_without_body_has_no_length():
    upstream, transport = upstream_to(respond())
    await read(await upstream.send(GET))

    assert "content-length" not in transport.requests[0].headers


async def test_configured_headers_replace_the_clients():
    upstream, transport = upstream_to(respond(), headers=[("Authorization", "Bearer ours"), ("X-A", "1"), ("x-a", "2")])
    await read(await upstream.send(UpstreamRequest("GET", [(b"authorization", b"Bearer theirs"), (b"x-b", b"3")])))

    sent = transport.requests[0].headers
    assert ["Bearer ours"] == sent.get_list("authorization")
    assert ["1", "2"] == sent.get_list("x-a")
    assert "3" == sent["x-b"]


async def test_configured_host_is_sent_instead_of_that_of_the_url():
    upstream, transport = upstream_to(respond(), headers=[("Host", "mcp.example")])
    await read(await upstream.send(GET))

    assert ["mcp.example"] == transport.requests[0].headers.get_list("host")


async def test_headers_of_the_other_hop_are_not_sent():
    theirs = [(b"host", b"proxy"), (b"connection", b"close"), (b"transfer-encoding", b"x"), (b"content-length", b"9")]
    upstream, transport = upstream_to(respond())
    await read(await upstream.send(UpstreamRequest("POST", theirs, b"{}")))

    assert {"host": "secret-host.internal:8123", "content-length": "2"} == dict(transport.requests[0].headers)


async def test_answer_has_lower_case_headers_mode_and_no_empty_chunks():
    upstream, _ = upstream_to(respond(b"a", b"", b"b", Mcp_Session_Id="s"))
    response = await upstream.send(POST)

    assert (200, b"s", ResponseMode.JSON) == (response.status, response.header(b"mcp_session_id"), response.mode)
    assert [b"a", b"b"] == await read(response)


ERRORS = [
    (httpx.ConnectError, errors.UpstreamUnavailable),
    (httpx.ConnectTimeout, errors.UpstreamUnavailable),
    (httpx.PoolTimeout, errors.UpstreamUnavailable),
    (httpx.ProxyError, errors.UpstreamUnavailable),
    (httpx.UnsupportedProtocol, errors.UpstreamUnavailable),
    (httpx.ReadError, errors.UpstreamDisconnected),
    (httpx.WriteError, errors.UpstreamDisconnected),
    (httpx.CloseError, errors.UpstreamDisconnected),
    (httpx.ReadTimeout, errors.UpstreamTimeout),
    (httpx.WriteTimeout, errors.UpstreamTimeout),
    (httpx.RemoteProtocolError, errors.RemoteProtocolError),
    (httpx.LocalProtocolError, errors.InvalidRequest),
    (
        partial(httpx.RemoteProtocolError, "Server disconnected without sending a response."),
        errors.UpstreamDisconnected,
    ),
    (
        partial(httpx.RemoteProtocolError, "peer closed connection without sending complete message body"),
        errors.UpstreamDisconnected,
    ),
]


@pytest.mark.slow
async def test_what_the_system_says_of_a_connection_is_logged(caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        upstream = HttpUpstream(HttpUpstreamConfig(url=url), Http1Transport())
        with pytest.raises(errors.UpstreamUnavailable):
            await upstream.send(POST)
        await upstream.aclose()
    assert "refused" in caplog.text
    assert "attempts" not in caplog.text


@pytest.mark.parametrize(("foreign", "ours"), ERRORS)
async def test_failure_names_what_to_do_and_never_the_upstream(foreign, ours, caplog):
    detail = "secret-host.internal:8123 refused"
    exc = foreign() if isinstance(foreign, partial) else foreign(detail)
    upstream, _ = upstream_to(exc)
    with pytest.raises(errors.ShadowcatError) as excinfo:
        await upstream.send(POST)

    assert ours is type(excinfo.value)
    assert not str(excinfo.value).endswith(".")
    assert not [secret for secret in SECRETS if secret in str(excinfo.value)]
    ((_, level, text),) = caplog.record_tuples
    assert logging.WARNING == level
    assert "secret-host.internal:8123" in text
    assert "hidden" not in text


@pytest.mark.parametrize(("foreign", "ours"), ERRORS)
async def test_failure_within_the_body_is_translated_and_lasting(foreign, ours):
    exc = foreign() if isinstance(foreign, partial) else foreign("secret-host")
    upstream, _ = upstream_to(respond(b"a", exc))
    response = await upstream.send(POST)
    assert b"a" == await anext(response.body)

    with pytest.raises(errors.ShadowcatError) as excinfo:
        await anext(response.body)
    assert ours is type(excinfo.value)
    assert "secret-host" not in str(excinfo.value)
    with pytest.raises(errors.UpstreamDisconnected):
        await anext(response.body)
    await response.aclose()


async def test_answer_timeout_limits_the_wait_for_the_head(autojump_clock):
    upstream, _ = upstream_to(None, answer_timeout=30.0)
    with pytest.raises(errors.UpstreamTimeout):
        await upstream.send(POST)

    assert 30.0 == trio.current_time()


async def test_event_stream_may_be_silent_for_ever(autojump_clock):
    upstream, _ = upstream_to(respond(b"a", 1e6, b"b", content_type="text/event-stream; charset=utf-8"))

    assert [b"a", b"b"] == await read(await upstream.send(GET))


async def test_any_other_body_may_not_be_silent_for_long(autojump_clock):
    upstream, _ = upstream_to(respond(b"a", 9.0, b"b", 11.0, b"c"), idle_timeout=10.0)
    response = await upstream.send(POST)
    assert [b"a", b"b"] == [await anext(response.body), await anext(response.body)]
    with pytest.raises(errors.UpstreamTimeout):
        await anext(response.body)

    assert 19.0 == trio.current_time()
    await response.aclose()


async def test_idle_timeout_can_be_switched_off(autojump_clock):
    upstream, _ = upstream_to(respond(b"a", 1e6, b"b"), idle_timeout=None)

    assert [b"a", b"b"] == await read(await upstream.send(POST))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_refused_and_closed(status):
    answer = respond(b"moved", status=status, Location="http://secret-host.internal/elsewhere")
    upstream, transport = upstream_to(answer)
    with pytest.raises(errors.UpstreamRedirected) as excinfo:
        await upstream.send(POST)

    assert "secret-host" not in str(excinfo.value)
    assert ["stream"] == answer.stream.closed
    assert 1 == len(transport.requests)


async def test_cancelled_read_of_a_generator_is_not_taken_for_the_end(autojump_clock):
    upstream, _ = upstream_to(respond(b"a", 60.0, b"b"))
    response = await upstream.send(POST)
    await anext(response.body)
    with trio.move_on_after(1):
        await anext(response.body)

    with pytest.raises(errors.UpstreamDisconnected):
        await anext(response.body)
    await response.aclose()


async def test_close_reaches_iterator_and_stream_once_though_cancelled():
    answer = respond(b"a", b"b")
    upstream, _ = upstream_to(answer)
    response = await upstream.send(POST)
    await anext(response.body)
    with trio.CancelScope() as scope:
        scope.cancel()
        await response.aclose()
    await response.aclose()

    assert ["iterator", "stream"] == answer.stream.closed


async def test_close_of_a_transport_that_hangs_is_limited(autojump_clock):
    answer = respond(b"a")
    answer.stream.aclose = trio.sleep_forever
    upstream, _ = upstream_to(answer)
    await (await upstream.send(POST)).aclose()

    assert 1.0 == trio.current_time()


async def test_injected_transport_stays_open():
    upstream, transport = upstream_to(respond())
    await upstream.aclose()

    assert not transport.is_closed


async def test_httpx_mock_transport_can_be_injected():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"method": request.method}))
    upstream = HttpUpstream(HttpUpstreamConfig(url=URL), transport)

    assert [b'{"method":"POST"}'] == await read(await upstream.send(POST))


@pytest.mark.parametrize("make_transport", [lambda: None, Http1Transport, httpx.AsyncHTTPTransport])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", errors.UpstreamDisconnected),
        (b"nonsense\r\n\r\n", errors.RemoteProtocolError),
        (b"", errors.UpstreamDisconnected),
    ],
)
async def test_any_transport_gives_the_same_result(make_transport, answer, expected, nursery):
    async def handler(stream):
        async with stream:
            head = b""
            while not head.endswith(b"{}"):
                head += await stream.receive_some()
            await stream.send_all(answer)

    listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    transport = make_transport()
    upstream = HttpUpstream(HttpUpstreamConfig(url=f"http://127.0.0.1:{port}/mcp"), transport)
    if isinstance(expected, bytes):
        assert expected == b"".join(await read(await upstream.send(POST)))
    else:
        with pytest.raises(expected):
            await read(await upstream.send(POST))
    await upstream.aclose()
    if transport is not None:
        await transport.aclose()
    nursery.cancel_scope.cancel()


async def test_unreachable_upstream_is_unavailable():
    upstream = HttpUpstream(HttpUpstreamConfig(url="http://127.0.0.1:9/mcp"))
    with pytest.raises(errors.UpstreamUnavailable) as excinfo:
        await upstream.send(POST)

    assert "127.0.0.1" not in str(excinfo.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mcp.example",
        "/mcp",
        "ftp://mcp.example/",
        "http://",
        "http:///mcp",
        "http://user:hidden@mcp.example/",
        "http://mcp.example/#fragment",
        "http://mcp.example/#",
        "http://mcp.example:99999/",
        "http://mcp.example:0/",
        "http://user:hidden/@mcp.example/",
        "http://mcp.example/\r\nEvil: 1",
        "http://[::1/",
    ],
)
def test_url_that_cannot_be_used_is_refused(url):
    with pytest.raises(errors.ConfigError, match=r"^(write|remove) ") as excinfo:
        HttpUpstreamConfig(url=url)

    assert "hidden" not in str(excinfo.value)


@pytest.mark.parametrize("url", ["http://h", "https://mcp.example:8443/mcp?x=1", "http://[::1]:80/", "HTTP://H/"])
def test_url_with_scheme_and_host_is_accepted(url):
    assert url == HttpUpstreamConfig(url=url).url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("x", "hidden\r\nEvil: 1"),
        ("x", "hidden\0"),
        ("x", " hidden"),
        ("x", "hidden\n"),
        ("x", "hidden\u2713"),
        ("Connection", "close"),
        ("content-length", "1"),
        ("Mcp-Session-Id", "hidden"),
    ],
)
def test_header_that_cannot_be_configured_is_refused(name, value):
    with pytest.raises(errors.ConfigError, match=r"^(correct|remove) ") as excinfo:
        HttpUpstreamConfig(url=URL, headers=[(name, value)])

    assert "hidden" not in str(excinfo.value)


def test_configured_headers_are_not_shown():
    assert "hidden" not in repr(HttpUpstreamConfig(url="http://h", headers=[("authorization", "Bearer hidden")]))


@pytest.mark.parametrize("name", ["connect_timeout", "answer_timeout", "idle_timeout"])
def test_timeouts_are_positive(name):
    settings: dict[str, Any] = {name: 0.0}
    with pytest.raises(ValueError, match=name):
        HttpUpstreamConfig(url=URL, **settings)


def test_missing_ca_file_is_refused(tmp_path):
    with pytest.raises(errors.ConfigError, match="ca_file"):
        HttpUpstream(HttpUpstreamConfig(url=URL, ca_file=str(tmp_path / "missing.pem")))


async def test_it_is_told_when_a_request_is_on_its_way(nursery):
    """Before it is answered: what belongs behind it may be sent then."""
    sent, answer = trio.Event(), trio.Event()

    async def handler(stream):
        await stream.receive_some(65536)
        await answer.wait()
        await stream.send_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(partial(trio.serve_listeners, handler, [listener]))
    port = listener.socket.getsockname()[1]
    upstream = HttpUpstream(HttpUpstreamConfig(url=f"http://127.0.0.1:{port}/mcp"))
    for body in (b"{}", b"x" * 100_000):
        sent, answer = trio.Event(), trio.Event()
        with trio.fail_after(5):
            async with trio.open_nursery() as calls:
                calls.start_soon(upstream.send, UpstreamRequest("POST", [], body, sent.set))
                await sent.wait()
                answer.set()
    await upstream.aclose()
