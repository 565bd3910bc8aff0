"""The admin API beside a proxy, on real sockets."""

import json
import logging
import socket
from functools import partial

import httpx
import pytest
import trio

from shadowcat import HttpUpstreamConfig, ListenerConfig, ReverseProxyConfig, serve_reverse_proxy
from shadowcat.admin import AdminConfig, open_admin
from shadowcat.errors import ConfigError
from shadowcat.testing import open_proxy_kit
from shadowcat.transport.downstream import bind_socket, url_of

from .administering import CONFIG, TOKEN, check_answer

ANYWHERE = ListenerConfig(bind="127.0.0.1:0")
HEADERS = {"authorization": f"Bearer {TOKEN}"}
PROXY = ReverseProxyConfig(upstream=HttpUpstreamConfig(url="http://127.0.0.1:1/mcp"), listener=ANYWHERE)


@pytest.mark.slow
async def test_it_serves_for_as_long_as_the_proxy_does():
    sock = bind_socket(ANYWHERE)
    url = url_of(sock)
    shutdown = trio.Event()
    beside = partial(open_admin, config=CONFIG, sock=sock)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, httpx.AsyncClient() as client:
            (mcp,) = await nursery.start(partial(serve_reverse_proxy, PROXY, shutdown=shutdown, beside=beside))
            listed = await client.get(url + "/v1/sessions", headers=HEADERS)
            refused = await client.get(url + "/v1/sessions")
            elsewhere = await client.get(mcp.replace("/mcp", "/v1/sessions"), headers=HEADERS)
            cut = await client.request("HEAD", url + "/health")
            shutdown.set()
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as client:
            await client.get(url + "/health")

    assert (200, 401, 404, 405) == (listed.status_code, refused.status_code, elsewhere.status_code, cut.status_code)
    check_answer("SessionPage", listed.json())


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET /v1/sessions HTTP/9.9\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
        b"GET /v1/sessions?%ff=%zz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
async def test_garbage_on_the_wire_is_answered_with_a_client_error(data):
    sock = bind_socket(ANYWHERE)
    address = sock.getsockname()
    with trio.fail_after(10):
        async with open_proxy_kit() as kit, open_admin(kit.app, CONFIG, sock):
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                await stream.send_all(data)
                answer = await stream.receive_some(65536)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), answer


@pytest.mark.slow
async def test_a_request_under_way_is_answered_at_the_end():
    sock = bind_socket(ANYWHERE)
    with trio.fail_after(10):
        async with open_proxy_kit() as kit, httpx.AsyncClient() as client, trio.open_nursery() as nursery:
            replies, answered = [], trio.Event()

            async def ask(url):
                replies.append(await client.get(url + "/v1/sessions"))  # without a token: waits for its turn
                answered.set()

            async with open_admin(kit.app, AdminConfig(token=TOKEN, failures_per_second=2.0), sock):
                for _ in range(3):
                    nursery.start_soon(ask, url_of(sock))
                await answered.wait()
    assert [401, 401, 401] == [reply.status_code for reply in replies]
    assert "Authorization" in json.loads(replies[0].content)["detail"]


async def test_an_address_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = AdminConfig(token=TOKEN, bind=f"127.0.0.1:{taken.getsockname()[1]}")
        async with open_proxy_kit() as kit:
            with pytest.raises(ConfigError, match="is in use: .* with --admin-bind$"):
                await enter(kit.app, config)


async def enter(app, config):
    async with open_admin(app, config):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("host", "is_warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_an_address_beyond_this_machine_is_warned_of(host, is_warned, caplog):
    async with open_proxy_kit() as kit:
        with caplog.at_level(logging.INFO):
            await enter(kit.app, AdminConfig(token=TOKEN, bind=f"{host}:0"))
    assert is_warned == ("its token can be read on the way" in caplog.text)
    assert TOKEN not in caplog.text
