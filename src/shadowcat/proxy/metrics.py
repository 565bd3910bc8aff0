"""Prometheus metrics, on a listener of their own."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..auth import OriginConfig, OriginPolicy
from ..errors import ConfigError, MethodNotAllowed, PathNotFound, StoreError
from ..protocol import collect_headers
from ..telemetry import MetricsConfig
from ..transport import Exchange, Receive, Scope, Send, Upgrade
from ..transport.downstream import ListenerConfig, bind_socket, is_loopback, parse_bind, serve_asgi, start_listening
from .app import ReverseProxyApp
from .boundary import serve_safely

if TYPE_CHECKING:
    from ..telemetry import CallCounts, LoopLag

log = logging.getLogger(__name__)

_NO_LIBRARY = "to serve metrics, install Shadowcat with them: pip install 'shadowcat[metrics]'"

_STORE_TIMEOUT = 1.0
"""Seconds that the store has to say how many sessions it has."""

_BIND_INTERVAL = 1.0
"""Seconds between two attempts of a worker to bind the port of the one whose place it takes."""

_PATIENCE = 60.0
"""Seconds after which a port is not that of a worker that ends, but another program's."""

_OPTION = "--metrics-bind"

PATH = "/metrics"


class MetricsApp:
    """An ASGI application that answers with the metrics of a proxy.

    Args:
        host: Where it is bound; on loopback, only loopback names are answered.
    """

    def __init__(self, app: ReverseProxyApp, calls: CallCounts, lag: LoopLag, host: str) -> None:
        from importlib.metadata import version

        self._app = app
        self._calls = calls
        self._lag = lag
        # A collector elsewhere may know the machine by any name.
        self._origins = OriginPolicy(OriginConfig(allowed_hosts=() if is_loopback(host) else ("*",)), host)
        self._version = version("shadowcat")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = (Upgrade if scope["type"] == "websocket" else Exchange)(scope, receive, send)
        await serve_safely(exchange, lambda: self._serve(exchange))

    async def _serve(self, exchange: Exchange) -> None:
        headers = collect_headers(exchange.raw_headers)
        self._origins.check_host(headers.get(b"host"))
        self._origins.check_origin(headers.get(b"origin"))
        if exchange.path != PATH or isinstance(exchange, Upgrade):
            raise PathNotFound(f"nothing is served here; metrics are at {PATH}")
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("this path answers GET and HEAD only", "GET, HEAD")
        content_type, body = await self.scrape(headers.get(b"accept", b"").decode("latin-1"))
        await exchange.respond(200, [(b"content-type", content_type.encode())], body)

    async def scrape(self, accept: str = "") -> tuple[str, bytes]:
        """Return the metrics as they are now, and the type of the text.  Cancel safe.

        Args:
            accept: The types that are wanted, as an ``Accept`` header has them.
        """
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        from .collector import ProxyCollector

        stored = await self._count_stored()
        registry = CollectorRegistry()
        registry.register(ProxyCollector(self._app, self._calls, self._lag, self._version, stored))
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return content_type, encode(registry)

    async def _count_stored(self) -> int | None:
        with trio.move_on_after(_STORE_TIMEOUT):
            try:
                return await self._app.sessions.store.count_sessions()
            except StoreError as error:
                log.debug("the sessions in the store cannot be counted: %s", error)
                await trio.lowlevel.checkpoint()
        return None


@asynccontextmanager
async def open_metrics(app: ReverseProxyApp, config: MetricsConfig) -> AsyncGenerator[None, None]:
    """Serve the metrics of *app* for as long as the block lasts; logs where.

    One of several workers waits in the background for its port, which the one whose place it takes
    may still have.  Give it to ``serve_reverse_proxy`` as ``beside``.

    Raises:
        ConfigError: The address cannot be bound, or what metrics need is not installed.
    """
    try:
        import prometheus_client  # noqa: F401 - only to see that it is there
    except ImportError as error:
        raise ConfigError(_NO_LIBRARY) from error
    from ..telemetry import CallCounts, LoopLag

    listener = ListenerConfig(bind=address_of(config))
    counts, lag = CallCounts(), LoopLag()
    served = MetricsApp(app, counts, lag, parse_bind(listener.bind)[0])
    sock = _try_bind(listener, may_be_taken=config.worker > 0)
    with app.observers.observing(counts):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lag.run)
            if sock is None:
                nursery.start_soon(_serve_when_free, served, listener)
            else:
                await nursery.start(_serve, served, sock, listener)
            yield
            nursery.cancel_scope.cancel()


def address_of(config: MetricsConfig) -> str:
    """Return the address and port of this worker.

    Raises:
        ConfigError: There is no such port.
    """
    host, port = parse_bind(config.bind)
    return f"[{host}]:{_port(port, config)}" if ":" in host else f"{host}:{_port(port, config)}"


def _port(port: int, config: MetricsConfig) -> int:
    return port + config.worker if port else 0


def _try_bind(listener: ListenerConfig, *, may_be_taken: bool) -> socket.socket | None:
    """Return a socket that listens; None if another process has the address, and may have it."""
    try:
        sock = bind_socket(listener, _OPTION)
        start_listening(sock, listener, _OPTION)
    except ConfigError as error:
        if may_be_taken and isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            return None
        raise
    return sock


async def _serve_when_free(served: MetricsApp, listener: ListenerConfig) -> None:
    log.info(
        "%s is taken, by the worker that is replaced perhaps; metrics are served as soon as it is free", listener.bind
    )
    sock: socket.socket | None = None
    with trio.move_on_after(_PATIENCE):
        sock = await _bind_when_free(listener)
    if sock is None:
        log.warning(
            "%s is still taken, so there are no metrics of this worker; stop the other program, or choose other ports "
            "with %s",
            listener.bind,
            _OPTION,
        )
        sock = await _bind_when_free(listener)
    await _serve(served, sock, listener)


async def _bind_when_free(listener: ListenerConfig) -> socket.socket:
    while (sock := _try_bind(listener, may_be_taken=True)) is None:  # noqa: ASYNC110 - nobody tells when it is free
        await trio.sleep(_BIND_INTERVAL)
    return sock


async def _serve(
    served: MetricsApp,
    sock: socket.socket,
    listener: ListenerConfig,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_asgi, served, sock, listener, shutdown=trio.Event(), graceful_timeout=0.0)
        (url,) = await nursery.start(serve)
        log.info("metrics are served at %s%s", url, PATH)
        task_status.started()
