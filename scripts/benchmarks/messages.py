"""The messages that are sent, as text."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, NamedTuple

ID_MARK = "@id@"

LEGACY_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-11-25",
}
_MODERN_HEADERS = {
    **LEGACY_HEADERS,
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "search",
}
_ARGUMENTS = {"query": "what a reverse proxy costs for one call, in microseconds of processor time", "limit": 20}
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Call(NamedTuple):
    """A POST to send over and over, each time with another id."""

    headers: dict[str, str]
    head: str
    """The body up to the id."""
    tail: str


def legacy_call(session_id: str) -> Call:
    """Return a call of some 300 bytes in a session."""
    params = {"name": "search", "arguments": {**_ARGUMENTS, "filter": "x" * 90}}
    return _call({**LEGACY_HEADERS, "Mcp-Session-Id": session_id}, params)


def modern_call() -> Call:
    """Return a call that describes itself."""
    return _call(_MODERN_HEADERS, {"name": "search", "arguments": _ARGUMENTS, "_meta": _META})


def events_call(session_id: str, stream: int) -> tuple[dict[str, str], str]:
    """Return headers and body of a call that is answered with events, in a session; without one if it is empty."""
    params: dict[str, Any] = {"name": "events", "arguments": {"stream": stream}}
    if session_id:
        call = _call({**LEGACY_HEADERS, "Mcp-Session-Id": session_id}, params)
    else:
        call = _call({**_MODERN_HEADERS, "Mcp-Name": "events"}, {**params, "_meta": _META})
    return call.headers, f"{call.head}{1000 + stream}{call.tail}"


def initialize() -> str:
    """Return the body that opens a session."""
    info = {"name": "bench", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})


def open_session(url: str) -> str:
    """Return the id of a new session."""
    request = urllib.request.Request(url, initialize().encode(), LEGACY_HEADERS)
    with urllib.request.urlopen(request) as response:
        return str(response.headers["mcp-session-id"])


def _call(headers: dict[str, str], params: dict[str, Any]) -> Call:
    body = json.dumps({"jsonrpc": "2.0", "id": ID_MARK, "method": "tools/call", "params": params})
    head, _, tail = body.partition(f'"{ID_MARK}"')
    return Call(headers, head, tail)
