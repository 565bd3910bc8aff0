"""Serving the admin API beside a proxy."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from socket import socket

import trio

from ..proxy import ReverseProxyApp
from ..transport.downstream import ListenerConfig, bind_socket, is_loopback, parse_bind, serve_asgi, start_listening
from .app import AdminApp
from .config import AdminConfig

log = logging.getLogger(__name__)

_GRACE = 2.0
"""Seconds that requests under way have at the end."""

_MAX_HEADER_BYTES = 8192
_OPTION = "--admin-bind"


@asynccontextmanager
async def open_admin(
    app: ReverseProxyApp, config: AdminConfig, sock: socket | None = None
) -> AsyncGenerator[None, None]:
    """Serve the admin API of *app* for as long as the block lasts, and two seconds longer for what is under way.

    For ``beside`` of `serve_reverse_proxy`: ``functools.partial(open_admin, config=config)``.
    There is a nursery around the block, so what is raised in it comes out in a group.

    Args:
        sock: Bound already, and listened on instead of ``config.bind``; closed at the end.

    Raises:
        ConfigError: The address cannot be bound.
    """
    listener = ListenerConfig(bind=config.bind, backlog=64, max_header_bytes=_MAX_HEADER_BYTES)
    host, _ = parse_bind(config.bind)
    if not is_loopback(host):
        log.warning(
            "the admin API listens on %s, beyond this machine, and without TLS: its token can be read on the way; "
            "put it behind something that encrypts, or bind it to 127.0.0.1",
            host,
        )
    shutdown = trio.Event()
    with sock or bind_socket(listener, _OPTION) as sock:
        start_listening(sock, listener, _OPTION)
        async with trio.open_nursery() as nursery:
            serve = partial(serve_asgi, AdminApp(app, config), sock, listener)
            (url,) = await nursery.start(partial(serve, shutdown=shutdown, graceful_timeout=_GRACE))
            log.info("serving the admin API at %s", url)
            try:
                yield
            finally:
                shutdown.set()
