"""The composition, on real sockets."""

import json

import pytest
import trio

import shadowcat
from shadowcat import (
    HttpUpstreamConfig,
    ListenerConfig,
    ReverseProxyConfig,
    serve_reverse_proxy,
)
from shadowcat.errors import ConfigError
from shadowcat.testing import ScriptedUpstream, modern_headers, modern_request, request, result

from .wire import open_wires

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
LISTENER = ListenerConfig(bind="127.0.0.1:0")


@pytest.fixture
async def connect():
    async with open_wires() as connect:
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
