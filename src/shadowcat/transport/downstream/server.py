"""Serving an ASGI application: the accept loop, and how it stops."""

from __future__ import annotations

import logging
import socket
from functools import partial

import trio
from hypercorn.config import Config

from ..asgi import ASGIApp
from .connection import Connection, ServerContext
from .listener import ListenerConfig, url_of
from .tls import ServerTls

log = logging.getLogger(__name__)


async def serve_asgi(
    app: ASGIApp,
    sock: socket.socket,
    config: ListenerConfig,
    *,
    shutdown: trio.Event,
    retire: trio.Event | None = None,
    graceful_timeout: float,
    tls: ServerTls | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* over HTTP/1.1 and WebSocket on the listening socket *sock*, which is closed at the end.

    *app* sees ``http`` and ``websocket`` scopes, no lifespan.  The head of a
    response that declares its ``content-length`` is sent together with the
    first body event, any other head at once.  A ``send`` to a client that has
    gone does nothing; ``receive`` tells that it has.

    Setting *shutdown* stops the listener and closes idle connections; requests
    under way have *graceful_timeout* seconds before their app call is cancelled.
    Cancel to stop at once instead: no client can delay that.  Setting *retire* some
    time before *shutdown* only stops the listener, and closes each connection after its
    next response: no client is left in doubt about a request.

    Passes the bound URLs to ``task_status``.

    Args:
        tls: Used in place of ``config.tls``, for a certificate that can be changed.

    Raises:
        ConfigError: The files of ``config.tls`` cannot be used.
    """
    tls = tls or (ServerTls(config.tls) if config.tls else None)
    context = ServerContext(_as_hypercorn(config))

    async def handle(stream: trio.SocketStream) -> None:
        # trio's own socket methods yield more often than a short request can afford.
        own = stream.socket
        plain = socket.socket(own.family, own.type, own.proto, own.detach())
        served = plain if tls is None else await _encrypt(tls, plain, context)
        if served is not None:
            await Connection(app, served, config, context).run()

    async with (
        trio.SocketListener(trio.socket.from_stdlib_socket(sock)) as listener,
        trio.open_nursery() as connections,
    ):
        async with trio.open_nursery() as accepting:
            await accepting.start(partial(trio.serve_listeners, handle, [listener], handler_nursery=connections))
            url = url_of(sock, "http" if tls is None else "https")
            log.debug("serving on %s", url)
            task_status.started([url])
            await (shutdown if retire is None else retire).wait()
            accepting.cancel_scope.cancel()
        log.debug("stopped accepting on %s", url)
        context.retire()
        await shutdown.wait()
        context.drain()
        connections.cancel_scope.deadline = trio.current_time() + graceful_timeout


async def _encrypt(tls: ServerTls, sock: socket.socket, context: ServerContext) -> socket.socket | None:
    """Return *sock* encrypted; None if the client does not agree, or the server drains meanwhile."""
    with trio.CancelScope() as waiting:
        context.idle.add(waiting)
        try:
            return await tls.accept(sock)
        finally:
            context.idle.discard(waiting)
    return None


def _as_hypercorn(config: ListenerConfig) -> Config:
    """Return what hypercorn's WebSocket reads of *config*; its own logging stays silent."""
    hypercorn = Config()
    hypercorn.accesslog = None
    hypercorn.errorlog = None
    hypercorn.include_date_header = False
    hypercorn.include_server_header = False
    hypercorn.websocket_max_message_size = config.max_message_bytes
    return hypercorn
