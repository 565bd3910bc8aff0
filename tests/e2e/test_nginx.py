"""The proxy behind nginx, as the documentation sets it up."""

import faulthandler
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
import trustme
from trio_websocket import WebSocketConnection, wrap_client_stream

from shadowcat.testing import request, result
from tests.e2e.nginx import EXAMPLES, adapted, running_nginx, wait_for_port
from tests.e2e.rawhttp import RawConnection, serve_raw
from tests.e2e.storing import running_proxy, until, url_of
from tests.session.stores.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

NAME = "mcp.example.com"
ACCEPT = {"accept": "application/json, text/event-stream"}
INITIALIZE = request(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t"})
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SILENCE = 125.0


class Upstream:
    """A server whose tool ``wait`` says that it has begun, and answers when it is let go."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.seen: list[dict[str, str]] = []

    async def serve(self, connection: RawConnection) -> None:
        while message := await connection.read_message():
            self.seen.append(message.headers)
            if message.start.startswith("GET"):
                await connection.stream.send_all(EVENTS)
                await self.go.wait()
                await self._send(connection, {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                await trio.sleep_forever()
            call = message.json if message.body else {}
            match call.get("method"):
                case "initialize":
                    answer = result(call["id"], protocolVersion="2025-11-25", capabilities={})
                    await connection.answer(answer, mcp_session_id="u1")
                case "tools/call" if call["params"]["name"] == "wait":
                    await connection.stream.send_all(EVENTS)
                    progress = {"progressToken": 1, "progress": 1}
                    await self._send(
                        connection, {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
                    )
                    await self.go.wait()
                    await self._send(connection, result(call["id"], content=[]))
                    await connection.stream.send_all(b"0\r\n\r\n")
                case "tools/call":
                    await connection.answer(result(call["id"], content=[]))
                case _:
                    await connection.stream.send_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    async def _send(self, connection: RawConnection, message) -> None:
        event = b"data: " + httpx.Request("POST", "http://x", json=message).content + b"\n\n"
        await connection.stream.send_all(b"%x\r\n%s\r\n" % (len(event), event))


@attrs.frozen
class Site:
    """What the public sees."""

    base: str
    trust: ssl.SSLContext
    upstream: Upstream

    def client(self) -> httpx.AsyncClient:
        headers = {"host": NAME, **ACCEPT}
        extensions = {"sni_hostname": NAME}
        client = httpx.AsyncClient(base_url=self.base, headers=headers, verify=self.trust, timeout=SILENCE + 60)

        async def name_it(sent: httpx.Request) -> None:
            sent.extensions.update(extensions)

        client.event_hooks = {"request": [name_it]}
        return client


@asynccontextmanager
async def open_site(tmp_path, nursery, changes=(), options=("--allow-host", NAME)) -> AsyncGenerator[Site, None]:
    """Serve the proxy behind nginx, with *changes* to its configuration."""
    authority, upstream = trustme.CA(), Upstream()
    certificate = authority.issue_cert(NAME)
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "site.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = free_port()
    with running_proxy(await serve_raw(nursery, upstream.serve), options) as proxy:
        url = await url_of(proxy)
        site = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "127.0.0.1:8080": url.removeprefix("http://").removesuffix("/mcp"),
            "/etc/ssl/mcp.example.com.pem": str(tmp_path / "site.pem"),
            "/etc/ssl/mcp.example.com.key": str(tmp_path / "site.pem"),
            **dict(changes),
        }
        with running_nginx(tmp_path, adapted((EXAMPLES / "nginx.conf").read_text(), site)) as nginx:
            found = Site(f"https://127.0.0.1:{port}", trust, upstream)
            wait_for_port(port)
            yield found
            nursery.cancel_scope.cancel()
        assert "Traceback" not in proxy.output
        # What nginx has to complain of it says on standard error.
        assert [] == [line for line in nginx.lines if re.search(r"\[(error|crit|alert|emerg)\]", line)]


async def open_session(client: httpx.AsyncClient) -> None:
    answer = await client.post("/mcp", json=INITIALIZE)
    assert answer.status_code == 200, answer.text
    client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]


async def test_calls_pass_and_the_connection_to_the_proxy_is_kept(tmp_path, nursery):
    async with open_site(tmp_path, nursery) as site, site.client() as client:
        with trio.fail_after(30):
            await open_session(client)
            for number in range(2, 30):
                answer = await client.post("/mcp", json=request(number, "tools/call", name="x", arguments={}))
                assert answer.json() == result(number, content=[])
            large = request(30, "tools/call", name="x", arguments={"text": "a" * 3_000_000})
            assert (await client.post("/mcp", json=large)).status_code == 200
            assert (await client.delete("/mcp")).status_code == 200


async def test_events_come_as_they_are_sent(tmp_path, nursery):
    """The first is there while the second has yet to be sent."""
    async with open_site(tmp_path, nursery) as site, site.client() as client:
        with trio.fail_after(30):
            await open_session(client)
            call = request(2, "tools/call", name="wait", arguments={})
            async with client.stream("POST", "/mcp", json=call) as answer:
                # nginx takes it to heart, and does not pass it on.
                assert "x-accel-buffering" not in answer.headers
                said = ""
                async for line in answer.aiter_lines():
                    said += line
                    if "notifications/progress" in line:
                        assert '"result"' not in said
                        site.upstream.go.set()
                assert '"result"' in said


async def test_websocket_passes(tmp_path, nursery):
    async with open_site(tmp_path, nursery) as site:
        with trio.fail_after(30):
            async with open_socket(site) as socket:
                await socket.send_message(request_text(INITIALIZE))
                assert '"protocolVersion":"2025-11-25"' in str(await socket.get_message()).replace(" ", "")
                await socket.send_message(request_text(request(2, "tools/call", name="x", arguments={})))
                assert '"id":2' in str(await socket.get_message()).replace(" ", "")


@asynccontextmanager
async def open_socket(site: Site) -> AsyncGenerator[WebSocketConnection, None]:
    plain = await trio.open_tcp_stream("127.0.0.1", int(site.base.rpartition(":")[2]))
    async with trio.SSLStream(plain, site.trust, server_hostname=NAME) as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, NAME, "/ws")
        nursery.cancel_scope.cancel()


def request_text(message) -> str:
    return httpx.Request("POST", "http://x", json=message).content.decode()


async def test_name_that_was_not_allowed_is_refused(tmp_path, nursery):
    """What the page says of a missing ``--allow-host``."""
    async with open_site(tmp_path, nursery, options=()) as site, site.client() as client:
        assert (await client.post("/mcp", json=INITIALIZE)).status_code == 421


@pytest.mark.parametrize(("options", "told"), [((), None), (("--forward-header", "X-Forwarded-For"), "127.0.0.1")])
async def test_address_of_the_client_reaches_the_server_if_it_is_told_to(options, told, tmp_path, nursery):
    async with open_site(tmp_path, nursery, options=["--allow-host", NAME, *options]) as site, site.client() as client:
        await open_session(client)
        assert told == site.upstream.seen[0].get("x-forwarded-for")


async def test_two_minutes_of_silence_are_survived_by_every_stream(tmp_path, nursery):
    """Heartbeats come faster than the default timeout of nginx, a minute."""
    faulthandler.dump_traceback_later(SILENCE + 90, exit=True)
    comments = {"call": 0, "listening": 0}
    told = []
    async with open_site(tmp_path, nursery, changes={"330s": "60s"}) as site, site.client() as client:
        await open_session(client)

        async def read(name: str, method: str, wanted: str, body=None) -> None:
            async with client.stream(method, "/mcp", json=body) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    comments[name] += line.startswith(":")
                    if wanted in line:
                        told.append(name)

        async def hold_socket() -> None:
            async with open_socket(site) as socket:
                await socket.send_message(request_text(INITIALIZE))
                await socket.get_message()
                await site.upstream.go.wait()
                await socket.send_message(request_text(request(2, "tools/call", name="x", arguments={})))
                while '"result"' not in await socket.get_message():
                    continue
                told.append("socket")

        with trio.fail_after(SILENCE + 60):
            async with trio.open_nursery() as streams:
                call = request(2, "tools/call", name="wait", arguments={})
                streams.start_soon(read, "call", "POST", '"result"', call)
                streams.start_soon(read, "listening", "GET", "list_changed")
                streams.start_soon(hold_socket)
                await trio.sleep(SILENCE)
                assert told == []
                site.upstream.go.set()
                await until(lambda: len(told) == 3, 20)
                streams.cancel_scope.cancel()
    assert {"call", "listening", "socket"} == set(told)
    assert all(8 <= count <= 10 for count in comments.values()), comments
