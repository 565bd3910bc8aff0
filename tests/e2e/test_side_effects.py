"""A tool runs once for each call, whatever becomes of the client: seen with a client made of a bare socket."""

import json
import re
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio

from tests.e2e.child import Child

pytestmark = pytest.mark.e2e

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "socket", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Exchange:
    """One POST on a connection of its own, read as far as a test wants to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def read_until(self, mark: bytes) -> str:
        while mark not in self._received:
            data = await self._stream.receive_some()
            assert data, f"the response ended before {mark!r}:\n{self._received.decode()}"
            self._received += data
        return self._received.decode()

    async def read_all(self) -> str:
        while data := await self._stream.receive_some():
            self._received += data
        return self._received.decode()


@asynccontextmanager
async def post(url: str, message: dict, *headers: str):
    """Send *message*; leave the server alone with it when the block ends."""
    where, body = urlsplit(url), json.dumps(message).encode()
    assert where.hostname is not None
    assert where.port is not None
    head = [
        f"POST {where.path} HTTP/1.1",
        f"Host: {where.netloc}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    with trio.fail_after(20):
        async with await trio.open_tcp_stream(where.hostname, where.port) as stream:
            await stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
            yield Exchange(stream)


async def open_session(url: str) -> str:
    """Shake hands as a legacy client does, and return the header that names the session."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "socket", "version": "1"}}
    async with post(url, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}) as exchange:
        named = re.search(r"(?im)^mcp-session-id: *(\S+)", await exchange.read_all())
    assert named is not None
    session = f"Mcp-Session-Id: {named[1]}"
    async with post(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session) as exchange:
        assert " 202 " in await exchange.read_all()
    return session


def legacy_call(name: str, key: str) -> dict:
    params = {"name": name, "arguments": {"key": key}, "_meta": {"progressToken": key}}
    return {"jsonrpc": "2.0", "id": f"{name}-{key}", "method": "tools/call", "params": params}


def modern_call(name: str, key: str) -> tuple[dict, list[str]]:
    message = legacy_call(name, key)
    message["params"]["_meta"] |= MODERN
    return message, ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", f"Mcp-Name: {name}"]


def times(upstream: Child, line: str) -> int:
    return upstream.lines.count(line)


async def wait_for(upstream: Child, line: str) -> None:
    await trio.to_thread.run_sync(upstream.wait_for, f"^{line}$")


async def test_a_legacy_call_runs_once_and_is_answered_once(url: str, upstream: Child) -> None:
    session, key = await open_session(url), "answered"
    async with post(url, legacy_call("hold", key), session) as exchange:
        await exchange.read_until(b"notifications/progress")
        async with post(url, legacy_call("release", key), session) as other:
            await other.read_all()
        answer = await exchange.read_all()
    assert "text/event-stream" in answer
    assert answer.count(f'"text":"released {key}"') == 1
    await wait_for(upstream, f"finished {key}")
    assert (times(upstream, f"started {key}"), times(upstream, f"finished {key}")) == (1, 1)


async def test_a_legacy_call_runs_once_and_to_its_end_though_the_client_has_left(url: str, upstream: Child) -> None:
    """2025-11-25 basic/transports: a disconnect is no cancellation."""
    session, key = await open_session(url), "left-legacy"
    async with post(url, legacy_call("hold", key), session) as exchange:
        await exchange.read_until(b"notifications/progress")
    async with post(url, legacy_call("release", key), session) as exchange:
        await exchange.read_all()
    await wait_for(upstream, f"finished {key}")
    assert (times(upstream, f"started {key}"), times(upstream, f"cancelled {key}")) == (1, 0)


async def test_a_modern_call_runs_once_and_is_cancelled_when_the_client_leaves(url: str, upstream: Child) -> None:
    """2026-07-28 basic/patterns/cancellation: closing the stream is the cancellation."""
    key = "left-modern"
    message, headers = modern_call("hold", key)
    async with post(url, message, *headers) as exchange:
        await exchange.read_until(b"notifications/progress")
    await wait_for(upstream, f"cancelled {key}")
    message, headers = modern_call("release", key)
    async with post(url, message, *headers) as exchange:
        assert "released" in await exchange.read_all()
    assert (times(upstream, f"started {key}"), times(upstream, f"finished {key}")) == (1, 0)


async def test_a_call_whose_client_leaves_before_any_answer_runs_once(url: str, upstream: Child) -> None:
    """The request is whole and has a side effect, so nobody may send it again."""
    session, key = await open_session(url), "unheard"
    async with post(url, legacy_call("hold", key), session):
        await wait_for(upstream, f"started {key}")
    async with post(url, legacy_call("release", key), session) as exchange:
        assert "released" in await exchange.read_all()
    await wait_for(upstream, f"finished {key}")
    assert times(upstream, f"started {key}") == 1
