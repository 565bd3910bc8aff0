"""A client in the same process, joined to the app without a socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import trio

from ..protocol import SSEDecoder, SSEEvent
from ..transport import ASGIApp
from .messages import request

_MCP_HEADERS = {
    "host": "localhost",
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}


class ClientResponse:
    """An answer from the app, its body read as it comes.

    Reading raises `trio.BrokenResourceError` if the app gives up before the body
    is complete, as a socket would show an answer that is cut.
    """

    def __init__(self, status: int, headers: Mapping[str, str], exchange: _Exchange) -> None:
        self.status = status
        self.headers = headers
        """By lower-case name."""
        self._exchange = exchange
        self._decoder = SSEDecoder()
        self._events: list[SSEEvent] = []

    async def read(self) -> bytes:
        """Return the rest of the body."""
        chunks = []
        while chunk := await self.read_some():
            chunks.append(chunk)
        return b"".join(chunks)

    async def read_some(self) -> bytes:
        """Return the next piece of the body; empty at its end."""
        try:
            return await self._exchange.body.receive()
        except trio.EndOfChannel:
            if not self._exchange.is_complete:
                raise trio.BrokenResourceError("the answer was cut") from None
            return b""

    async def json(self) -> Any:
        """Return the whole body as a JSON value."""
        return json.loads(await self.read())

    async def next_event(self) -> SSEEvent:
        """Return the next event of an event stream; comments are skipped.

        Raises:
            trio.EndOfChannel: The stream has ended.
        """
        while not self._events:
            chunk = await self.read_some()
            if not chunk:
                raise trio.EndOfChannel
            self._events.extend(self._decoder.feed(chunk))
        return self._events.pop(0)

    async def next_message(self) -> Any:
        """Return the JSON-RPC message in the next event that has data."""
        while not (event := await self.next_event()).data:
            pass
        return json.loads(event.data)

    def leave(self) -> None:
        """Close the connection: the app is told that its client is gone."""
        self._exchange.leave()


class ProxyClient:
    """Sends requests to an ASGI app, each in a task of *nursery*.

    `initialize` opens a session, whose id and version are sent from then on.

    Args:
        address: Where its requests come from.
    """

    def __init__(self, app: ASGIApp, nursery: trio.Nursery, address: str = "127.0.0.1") -> None:
        self.address = address
        self.session_id: str | None = None
        self.protocol_version: str | None = None
        self._app = app
        self._nursery = nursery

    async def initialize(
        self, version: str = "2025-11-25", capabilities: Mapping[str, Any] | None = None
    ) -> ClientResponse:
        """Send ``initialize`` and take the session that the answer opens."""
        params = {
            "protocolVersion": version,
            "capabilities": dict(capabilities or {}),
            "clientInfo": {"name": "shadowcat.testing", "version": "1"},
        }
        response = await self.post(request(0, "initialize", **params))
        self.session_id = response.headers.get("mcp-session-id")
        self.protocol_version = version
        return response

    async def post(self, message: Any, headers: Mapping[str, str] | None = None) -> ClientResponse:
        """POST *message*: bytes as they are, anything else as JSON."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.send("POST", body, headers)

    async def listen(self, last_event_id: str | None = None) -> ClientResponse:
        """GET a listening stream, or resume one after *last_event_id*."""
        headers = {} if last_event_id is None else {"last-event-id": last_event_id}
        return await self.send("GET", b"", headers)

    async def delete(self) -> ClientResponse:
        """DELETE the session."""
        return await self.send("DELETE")

    async def send(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None, path: str = "/mcp"
    ) -> ClientResponse:
        """Send one HTTP request and return when the head of its answer is here.

        Args:
            headers: Beside those that MCP wants; an empty value removes one of them.
            path: May have a query behind it.
        """
        fields = dict(_MCP_HEADERS)
        if self.session_id is not None:
            fields["mcp-session-id"] = self.session_id
        if self.protocol_version is not None:
            fields["mcp-protocol-version"] = self.protocol_version
        fields.update({name.lower(): value for name, value in (headers or {}).items()})
        exchange = _Exchange(method, path, {k: v for k, v in fields.items() if v}, body, self.address)
        self._nursery.start_soon(exchange.run, self._app)
        return await exchange.wait_head()


class _Exchange:
    """The ASGI side of one request."""

    def __init__(self, method: str, path: str, headers: Mapping[str, str], body: bytes, address: str) -> None:
        raw_path, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": (address, 50000),
            "server": ("127.0.0.1", 8080),
        }
        self._request: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        self._left = trio.Event()
        self._head = trio.Event()
        self._response: ClientResponse | None = None
        self._sender, self.body = trio.open_memory_channel[bytes](0)
        self.is_complete = False

    async def run(self, app: ASGIApp) -> None:
        with self._sender:
            await app(self._scope, self._receive, self._send)
        self._head.set()

    async def wait_head(self) -> ClientResponse:
        try:
            await self._head.wait()
        except trio.Cancelled:
            self.leave()
            raise
        assert self._response is not None, "the app returned without an answer"
        return self._response

    def leave(self) -> None:
        self.body.close()
        self._left.set()

    async def _receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if self._request:
            return self._request.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if event["type"] == "http.response.start":
            headers = {name.decode(): value.decode("latin-1") for name, value in event["headers"]}
            self._response = ClientResponse(event["status"], headers, self)
            self._head.set()
            return
        try:
            if event.get("body"):
                await self._sender.send(event["body"])
        except trio.BrokenResourceError:
            return  # the client has left; a server drops the rest as well
        if not event.get("more_body", False):
            self.is_complete = True
            self._sender.close()
