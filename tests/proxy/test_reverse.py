"""The composition, on real sockets."""

import json
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

import shadowcat
from shadowcat import (
    HttpUpstreamConfig,
    InMemoryStore,
    ListenerConfig,
    OriginConfig,
    ReverseProxyConfig,
    ReverseProxyServerBuilder,
    SessionConfig,
    run_reverse_proxy,
    serve_reverse_proxy,
)
from shadowcat.errors import ConfigError
from shadowcat.testing import ScriptedUpstream, modern_headers, modern_request, request, result

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
LISTENER = ListenerConfig(bind="127.0.0.1:0")


class Wire:
    """A client on a real socket, as plain as can be."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""

    async def send(self, method, message=None, headers=()):
        body = b"" if message is None else json.dumps(message).encode()
        fields = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        fields |= dict(headers) | {"Content-Length": len(body)}
        head = f"{method} /mcp HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        await self.stream.send_all(head.encode() + b"\r\n" + body)

    async def read_until(self, mark):
        while mark not in self.buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def answer(self):
        """Return status, headers and the body, if it has a length."""
        status, *lines = (await self.read_until(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            self.buffer += await self.stream.receive_some(65536)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(status.split()[1]), headers, body

    async def open_session(self, upstream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.answer_initialize)
            await self.send("POST", request(0, "initialize", protocolVersion="2025-11-25"))
            _, headers, _ = await self.answer()
        return {"Mcp-Session-Id": headers["mcp-session-id"]}


@pytest.fixture
async def connect():
    async with AsyncExitStack() as stack:

        async def connect(url):
            host, port = url.removeprefix("http://").partition("/")[0].rsplit(":", 1)
            return Wire(await stack.enter_async_context(await trio.open_tcp_stream(host, int(port))))

        yield connect


@pytest.fixture
async def served(nursery):
    upstream = ScriptedUpstream()
    shutdown = trio.Event()
    ended = trio.Event()
    config = ReverseProxyConfig(upstream=UPSTREAM, listener=LISTENER, shutdown_timeout=1.0)

    async def serve(*, task_status):
        await serve_reverse_proxy(config, upstream=upstream, shutdown=shutdown, task_status=task_status)
        ended.set()

    (url,) = await nursery.start(serve)
    yield url, upstream, shutdown, ended
    nursery.cancel_scope.cancel()


async def test_calls_pass_over_one_kept_alive_connection(served, connect):
    """Port 0 reports the real address; the path is part of it."""
    url, upstream, _, _ = served
    assert url.endswith("/mcp")
    with trio.fail_after(5):
        wire = await connect(url)
        session = await wire.open_session(upstream)
        for number in range(3):
            await wire.send("POST", request(number, "ping"), session)
            (await upstream.next_call()).answer(result(number))
            status, _, body = await wire.answer()
            assert (status, json.loads(body)) == (200, result(number))


async def test_shutdown_lets_calls_finish_and_ends_listeners(served, connect):
    """Nothing new is accepted; what is under way ends well."""
    url, upstream, shutdown, ended = served
    with trio.fail_after(5):
        caller, listener = await connect(url), await connect(url)
        session = await caller.open_session(upstream)
        await listener.send("GET", headers=session)
        (await upstream.next_call()).open_events()
        await listener.read_until(b"\r\n\r\n")
        await caller.send("POST", request(1, "x"), session)
        call = await upstream.next_call()
        shutdown.set()

        assert (await listener.read_until(b"\r\n0\r\n\r\n")).endswith(b"data: \n\n")
        with pytest.raises(OSError, match="connect"):
            await connect(url)
        call.answer(result(1))
        assert json.loads((await caller.answer())[2]) == result(1)
        await ended.wait()


async def test_shutdown_tells_calls_that_do_not_finish(served, connect):
    """At the end of the timeout the caller has an answer all the same."""
    url, upstream, shutdown, ended = served
    with trio.fail_after(5):
        wire = await connect(url)
        session = await wire.open_session(upstream)
        await wire.send("POST", request("late", "x"), session)
        await upstream.next_call()
        shutdown.set()

        status, headers, body = await wire.answer()
        assert (status, json.loads(body)["id"]) == (504, "late")
        assert "retry-after" not in headers
        await ended.wait()


async def test_client_that_leaves_a_modern_stream_cancels_it(served, connect):
    """The close of a socket reaches the upstream."""
    url, upstream, _, _ = served
    message = modern_request("s", "subscriptions/listen")
    with trio.fail_after(5):
        wire = await connect(url)
        await wire.send("POST", message, modern_headers(message))
        call = await upstream.next_call()
        call.open_events()
        await wire.read_until(b"\r\n\r\n")
        await wire.stream.aclose()
        await call.cancelled.wait()


@pytest.mark.parametrize(
    ("headers", "status", "hint"),
    [
        ({"Origin": "http://evil.example"}, 403, "--allow-origin"),
        ({"Host": "evil.example"}, 421, "--allow-host"),
        ({"X-Long": "x" * 33_000}, 431, ""),
    ],
)
async def test_requests_from_elsewhere_are_refused(served, connect, headers, status, hint):
    """DNS rebinding ends here, and the error names the way in."""
    url, upstream, _, _ = served
    with trio.fail_after(5):
        wire = await connect(url)
        await wire.send("POST", request(1, "x"), headers)
        answer = await wire.answer()
        assert answer[0] == status
        assert hint in answer[2].decode()
        assert upstream.hits == 0


async def test_builder_uses_the_store_it_is_given(nursery, connect):
    """An injected store sees the sessions, and is left as it is."""
    store, upstream = InMemoryStore(), ScriptedUpstream()
    server = (
        ReverseProxyServerBuilder("127.0.0.1:0", UPSTREAM.url)
        .with_session_store(store)
        .with_upstream(upstream)
        .with_sessions(SessionConfig(max_sessions=2))
        .with_origin(OriginConfig(allowed_hosts=["proxy.example"]))
        .with_shutdown_timeout(1)
        .build()
    )
    with trio.fail_after(5):
        (url,) = await nursery.start(server.run)
        wire = await connect(url)
        await wire.open_session(upstream)
        assert await store.count_sessions() == 1
        server.shutdown()
        with pytest.raises(EOFError):
            await wire.read_until(b"never")
    assert await store.count_sessions() == 1


async def test_run_reverse_proxy_serves_until_cancelled(nursery, connect):
    """The one-line way in."""
    with trio.fail_after(5):
        (url,) = await nursery.start(
            partial(run_reverse_proxy, "127.0.0.1:0", "http://127.0.0.1:1/mcp", InMemoryStore())
        )
        wire = await connect(url)
        await wire.send("POST", request(1, "initialize"))
        status, _, body = await wire.answer()
        assert status == 502
        assert "127.0.0.1" not in body.decode()
        nursery.cancel_scope.cancel()


async def test_address_in_use_is_a_config_error(served):
    """It is found before anything is served."""
    url = served[0]
    bind = url.removeprefix("http://").partition("/")[0]
    with pytest.raises(ConfigError, match="in use"):
        await serve_reverse_proxy(ReverseProxyConfig(upstream=UPSTREAM, listener=ListenerConfig(bind=bind)))


@pytest.mark.parametrize("path", ["mcp", "/health", ""])
def test_impossible_paths_are_config_errors(path):
    """Checked when the config is made."""
    with pytest.raises(ConfigError):
        ReverseProxyConfig(upstream=UPSTREAM, path=path)


def test_version_is_the_installed_one():
    """The package knows its version."""
    assert shadowcat.__version__.count(".") == 2
