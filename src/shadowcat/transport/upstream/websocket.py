"""An MCP server reached by WebSocket."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import attrs
import httpx
import trio
from trio.abc import Stream

from ...errors import ConfigError, UpstreamUnavailable
from ..base import Connector, MessageStream, RawHeaders
from .http import HttpUpstreamConfig

log = logging.getLogger(__name__)

_NOT_IN_A_HANDSHAKE = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"keep-alive",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that belong to one connection, or to one message of many."""
_NOT_IN_A_HANDSHAKE_PREFIXES = (b"sec-websocket-", b"mcp-param-")

_UNAVAILABLE = "the upstream server cannot be reached; try again later"

_positive = attrs.validators.gt(0.0)


def _is_of_the_handshake(name: bytes) -> bool:
    return name not in _NOT_IN_A_HANDSHAKE and not name.startswith(_NOT_IN_A_HANDSHAKE_PREFIXES)


def _convert_headers(fields: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in fields)


def _as_http(url: str) -> str:
    return "http" + url.removeprefix("ws")


@attrs.frozen(kw_only=True)
class WebSocketUpstreamConfig:
    """An MCP server reached by WebSocket.  Durations are in seconds."""

    url: str = attrs.field()
    """``ws`` or ``wss``, a host, maybe port, path and query."""

    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_convert_headers, repr=False)
    """Fields sent with every handshake, in place of the client's of the same name."""

    connect_timeout: float = attrs.field(default=5.0, validator=_positive)
    """How long it may take to make a connection, TLS and handshake included."""

    ca_file: str | None = None
    """PEM file with the authorities to trust instead of the system's."""

    max_message_size: int = attrs.field(default=16 * 1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of one message from the server; a longer one ends the connection with code 1009."""

    ping_interval: float = attrs.field(default=20.0, validator=_positive)
    """Time between two pings."""

    ping_timeout: float = attrs.field(default=20.0, validator=_positive)
    """How long after a ping the server may be silent before it is given up."""

    @url.validator
    def _check_url(self, _: object, value: str) -> None:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as exc:
            # Without its text, which may quote a piece of a password.
            raise ConfigError("write the upstream's url as ws://host/path; what is set is not a URL") from exc
        if url.scheme not in ("ws", "wss") or not url.host or not value.startswith(("ws:", "wss:")):
            raise ConfigError("write the upstream's url with its scheme and host, as ws://host/path")
        HttpUpstreamConfig(url=_as_http(value))

    @headers.validator
    def _check_headers(self, _: object, fields: tuple[tuple[str, str], ...]) -> None:
        HttpUpstreamConfig(url="http://checks.invalid", headers=fields)
        for name, _value in fields:
            if name.lower().startswith("sec-websocket-"):
                raise ConfigError(f"remove the upstream header {name!r}: the proxy sets it itself")


class WebSocketConnector(Connector):
    """Opens WebSockets to an MCP server, with subprotocol ``mcp``.

    Redirects are not followed.

    Raises:
        ConfigError: ``config.ca_file`` cannot be read.
    """

    takes_headers = True

    def __init__(self, config: WebSocketUpstreamConfig) -> None:
        self._config = config
        self._url = httpx.URL(_as_http(config.url))
        fields = {name.lower().encode(): value.encode() for name, value in config.headers}
        self._host = fields.pop(b"host", self._url.netloc).decode("ascii")
        self._fields = fields
        self._trust = _trust(config.ca_file) if self._url.scheme == "https" else None
        # Not before: the library behind it takes a tenth of the start of a proxy that has no WebSocket to open.
        from .websocket_link import LinkLimits, open_link

        self._open_link = open_link
        self._limits = LinkLimits(
            max_message_size=config.max_message_size,
            ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout,
        )

    @asynccontextmanager
    async def open(self, headers: RawHeaders) -> AsyncGenerator[MessageStream, None]:
        """Open a WebSocket for as long as the block lasts; see `Connector.open`."""
        deadline = trio.current_time() + self._config.connect_timeout
        passing = [(name, value) for name, value in headers if _is_of_the_handshake(name) and name not in self._fields]
        stream = await self._dial(deadline)
        try:
            try:
                target = self._url.raw_path.decode("ascii")
                fields = [*self._fields.items(), *passing]
                async with self._open_link(stream, self._host, target, fields, self._limits, deadline) as link:
                    yield link
            except UpstreamUnavailable as error:
                log.warning("%s: %s", self._url.netloc.decode("ascii"), error)
                raise
        finally:
            await trio.aclose_forcefully(stream)

    async def _dial(self, deadline: float) -> Stream:
        """Return a connection, over TLS if the URL says so."""
        problem: object = f"no connection in {self._config.connect_timeout:g} s"
        try:
            with trio.move_on_at(deadline):
                return await self._connect()
        except (OSError, trio.BrokenResourceError) as error:
            problem = error.__cause__ or error
        log.warning("%s: %s", self._url.netloc.decode("ascii"), problem)
        raise UpstreamUnavailable(_UNAVAILABLE)

    async def _connect(self) -> Stream:
        host = self._url.raw_host.decode("ascii")
        socket = await trio.open_tcp_stream(host, self._url.port or (80 if self._trust is None else 443))
        return socket if self._trust is None else await _secure(socket, self._trust, host)


async def _secure(socket: trio.SocketStream, trust: ssl.SSLContext, host: str) -> Stream:
    """Return *socket* after the TLS handshake; closed if that fails."""
    stream = trio.SSLStream(socket, trust, server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(socket)
        raise
    return stream


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(f"name a readable PEM file as the upstream's ca_file: {exc}") from exc
