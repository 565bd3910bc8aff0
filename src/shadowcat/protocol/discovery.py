"""Which era a server on a pipe is of (MCP 2026-07-28, stdio, "Backward Compatibility")."""

from __future__ import annotations

from typing import Final

import msgspec

from .headers import VERSION_META_KEY
from .jsonrpc import METHOD_NOT_FOUND, RawId, Response, error_body, read_value
from .methods import DISCOVER
from .versions import LEGACY_VERSIONS, MODERN_VERSIONS, Era

UNSUPPORTED_VERSION: Final = -32022
_MODERN_ERRORS = range(UNSUPPORTED_VERSION, -32019)
"""Codes that MCP itself defines from 2026-07-28 on; an older server uses none of them."""


def discover_request(request_id: RawId) -> bytes:
    """Return the text of a ``server/discover`` in the newest revision known here."""
    meta = {
        VERSION_META_KEY: MODERN_VERSIONS[-1],
        "io.modelcontextprotocol/clientInfo": {"name": "shadowcat", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "id": msgspec.Raw(request_id), "method": DISCOVER, "params": {"_meta": meta}}
    )


def era_of_answer(response: Response) -> Era:
    """Return the era of the server that gave this answer to ``server/discover``.

    Modern are a result that lists versions, and an error that only modern servers
    know.  Anything else is the word of a legacy server that does not know the method.
    """
    if response.is_error:
        error = read_value(response.error)
        code = error.get("code") if isinstance(error, dict) else None
        return Era.MODERN if isinstance(code, int) and code in _MODERN_ERRORS else Era.LEGACY
    result = read_value(response.result)
    is_listed = isinstance(result, dict) and isinstance(result.get("supportedVersions"), list)
    return Era.MODERN if is_listed else Era.LEGACY


def legacy_only_body(request_id: RawId | None, requested: str) -> bytes:
    """Return the error that tells a modern client that the server is legacy: it may send ``initialize``."""
    return error_body(
        request_id,
        UNSUPPORTED_VERSION,
        f"the server behind this proxy does not speak {requested}; send initialize with a version that is supported",
        {"supported": list(LEGACY_VERSIONS), "requested": requested},
    )


def describes_itself(params: bytes) -> bool:
    """Tell whether a request has what 2026-07-28 wants in ``_meta``; not whether that is right."""
    return VERSION_META_KEY.encode() in params and b"io.modelcontextprotocol/clientCapabilities" in params


def http_status_of(response: Response, params: bytes) -> int:
    """Return the HTTP status that a modern answer has (MCP 2026-07-28, streamable HTTP).

    Args:
        params: Of the request.  An error that answers one without its metadata is about that.
    """
    if not response.is_error:
        return 200
    error = read_value(response.error)
    code = error.get("code") if isinstance(error, dict) else None
    if code == METHOD_NOT_FOUND:
        return 404
    is_refused = isinstance(code, int) and code in _MODERN_ERRORS
    return 400 if is_refused or not describes_itself(params) else 200
