"""Calling the application, whose failures are its own."""

from __future__ import annotations

import logging

from ..asgi import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)


async def call_app(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call *app*; what it raises is logged, and ends nothing but the call.

    Safe to cancel: the cancellation passes through the application.
    """
    try:
        await app(scope, receive, send)
    except* Exception:
        log.exception("the application failed")
