"""JSON-RPC messages as Python values, short to write."""

from __future__ import annotations

import base64
import re
from typing import Any


def request(id: int | str | None, method: str, **params: Any) -> dict[str, Any]:
    """Return a request with these params."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def notification(method: str, **params: Any) -> dict[str, Any]:
    """Return a notification with these params."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def result(id: int | str | None, **members: Any) -> dict[str, Any]:
    """Return an answer whose result has these members."""
    return {"jsonrpc": "2.0", "id": id, "result": members}


def error(id: int | str | None, code: int, message: str) -> dict[str, Any]:
    """Return an answer that is an error."""
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


def modern_request(id: int | str, method: str, **params: Any) -> dict[str, Any]:
    """Return a request that describes itself as MCP 2026-07-28 wants it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "shadowcat.testing", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return request(id, method, **params, _meta=meta)


def modern_headers(message: dict[str, Any]) -> dict[str, str]:
    """Return the headers that mirror *message* (a modern request)."""
    params = message["params"]
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": message["method"]}
    if message["method"] in {"tools/call", "prompts/get", "resources/read"}:
        headers["mcp-name"] = _encode(params["uri"] if message["method"] == "resources/read" else params["name"])
    return headers


def _encode(value: str) -> str:
    if re.fullmatch(r"[!-~]([ -~]*[!-~])?", value) and not re.fullmatch(r"=\?base64\?.*\?=", value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="
