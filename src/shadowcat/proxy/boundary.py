"""The error boundary: whatever goes wrong with one request stays that request's."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import ClientDisconnected, ProtocolError, ShadowcatError, TooManyRequests, UpstreamError
from ..protocol import error_body
from ..transport import Exchange
from .answers import UNEXPECTED, Answer, answer_to
from .outcomes import outcome_of

log = logging.getLogger(__name__)


Explain = Callable[[Answer, str, Exception, bytes | None], tuple[bytes, bytes]]
"""Returns the content type and the body that tell of an error: its answer, text, itself, and the id of the request."""


def as_jsonrpc(answer: Answer, text: str, error: Exception, request_id: bytes | None) -> tuple[bytes, bytes]:
    """Return an error as MCP has it."""
    data: dict[str, Any] = {}
    if isinstance(error, TooManyRequests) and error.limit is not None:
        data["limit"] = error.limit
    if isinstance(error, ShadowcatError) and error.retry_after is not None:
        data["retryAfter"] = math.ceil(error.retry_after * 1000) / 1000
    return b"application/json", error_body(request_id, answer.code, text, data or None)


async def serve_safely(exchange: Exchange, serve: Callable[[], Awaitable[None]], explain: Explain = as_jsonrpc) -> None:
    """Run *serve*, which answers *exchange*; turn what it raises into the answer, if there is none yet.

    Cancel safe: the answer may then be cut.
    """
    try:
        await serve()
        log.debug("%s %r answered %d", exchange.method, exchange.path, exchange.status)
    except ClientDisconnected as error:
        log.debug("%s", error)
    except Exception as error:  # noqa: BLE001 - the boundary: nothing may reach the server
        await _refuse(exchange, error, explain)
    finally:
        if exchange.record is not None:
            exchange.record.finish(exchange.status, exchange.headers)


async def _refuse(exchange: Exchange, error: Exception, explain: Explain) -> None:
    """Turn *error* into the answer, if there is none yet; otherwise leave it cut."""
    error = _worst(error)
    if isinstance(error, ClientDisconnected):
        return
    answer = answer_to(error)
    text = str(error) if isinstance(error, ShadowcatError) else UNEXPECTED
    if not isinstance(error, ShadowcatError):
        log.error("failed to handle a request", exc_info=error)
    elif isinstance(error, UpstreamError):
        log.warning("%s %r: %s", exchange.method, exchange.path, error)
    else:
        log.debug("%s %r answered %d: %s", exchange.method, exchange.path, answer.status, error)
    if exchange.record is not None:
        exchange.record.note_failure(outcome_of(error), error)
    if exchange.status:
        return
    if exchange.record is not None:
        for observer in exchange.record.observers:
            await observer.refuse(exchange.record, error)
    request_id = exchange.request_id
    if request_id is None and isinstance(error, ProtocolError):
        request_id = error.request_id
    content_type, body = explain(answer, text, error, request_id)
    headers = [(b"content-type", content_type), *answer.headers]
    if allow := getattr(error, "allow", None):
        headers.append((b"allow", allow.encode()))
    await exchange.respond(answer.status, headers, body)


def _worst(error: Exception) -> Exception:
    """Return the one error of a group that is to be told: rather a bug than what a user caused."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_worst(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if not isinstance(leaf, ShadowcatError)), leaves[0])
