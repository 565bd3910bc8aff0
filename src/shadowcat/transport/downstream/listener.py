"""Where clients connect: the address, the listening socket and its options."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys

import attrs

from ...errors import ConfigError
from .tls import TlsConfig

KEEPALIVE_IDLE = 60
KEEPALIVE_INTERVAL = 15
KEEPALIVE_PROBES = 4

_positive = attrs.validators.gt(0.0)


@attrs.frozen(kw_only=True)
class ListenerConfig:
    """An HTTP listener.  Durations are in seconds."""

    bind: str = attrs.field(default="127.0.0.1:8080")
    """Address and port.  Port 0 lets the system choose."""

    backlog: int = attrs.field(default=1024, validator=attrs.validators.ge(1))
    """Connections the kernel holds until they are accepted."""

    user_timeout: float = attrs.field(default=30.0, validator=_positive)
    """How long sent data may stay unacknowledged before the kernel gives the client up (Linux)."""

    keep_alive_timeout: float = attrs.field(default=75.0, validator=_positive)
    """How long a connection may stay open without a request."""

    header_timeout: float = attrs.field(default=10.0, validator=_positive)
    """How long a request's header section may take from its first byte to its last."""

    write_timeout: float = attrs.field(default=30.0, validator=_positive)
    """How long a response may make no progress because the client does not read it."""

    max_header_bytes: int = attrs.field(default=32768, validator=attrs.validators.ge(1024))
    """Longest request line and header section together."""

    max_message_bytes: int = attrs.field(default=16 * 2**20, validator=attrs.validators.ge(1))
    """Longest message that is taken from a WebSocket."""

    ping_interval: float = attrs.field(default=20.0, validator=_positive)
    """How long a WebSocket may be silent before it is pinged, and then before it is given up."""

    tls: TlsConfig | None = None
    """What clients are shown if they have to use ``https``; None serves ``http``."""

    @bind.validator
    def _check_bind(self, _: attrs.Attribute[str], value: str) -> None:
        parse_bind(value)


def parse_bind(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[ipv6]:port`` into host and port.

    Raises:
        ConfigError: *text* has another form; an empty host is refused because
            it does not say whether every interface is meant.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{text!r} is not an address to listen on: write HOST:PORT, for example 127.0.0.1:8080")
    if int(port) > 65535:
        raise ConfigError(f"{text!r} has no valid port: ports go from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ConfigError(f"{text!r} is ambiguous: put an IPv6 address in brackets, for example [::1]:8080")
    if not host:
        raise ConfigError(
            f"{text!r} names no host: write 127.0.0.1:{port} for this machine only "
            f"or 0.0.0.0:{port} for every interface"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine can connect to *host*."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a bound socket, with the port it really has."""
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def open_listening_socket(config: ListenerConfig) -> socket.socket:
    """Bind and listen, so that a client that connects from now on is only kept waiting.

    The caller owns the socket until it hands it to `serve_asgi`.

    Raises:
        ConfigError: The address cannot be used.
    """
    sock = bind_socket(config)
    start_listening(sock, config)
    return sock


def start_listening(sock: socket.socket, config: ListenerConfig, option: str = "--bind") -> None:
    """Let clients connect to what `bind_socket` returned.

    Args:
        option: What the user says the address with.

    Raises:
        ConfigError: The address is taken after all; the socket is closed.
    """
    try:
        sock.listen(config.backlog)
    except OSError as exc:
        sock.close()
        raise ConfigError(_explain(exc, config.bind, option)) from exc


def bind_socket(config: ListenerConfig, option: str = "--bind") -> socket.socket:
    """Take the address, on which nobody can connect yet.

    Connections accepted later inherit the options set here.

    Args:
        option: What the user says the address with.

    Raises:
        ConfigError: The address cannot be used.
    """
    host, port = parse_bind(config.bind)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as exc:
        raise ConfigError(f"{config.bind} cannot be resolved: check the host name") from exc
    try:
        _set_options(sock, config)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise ConfigError(_explain(exc, config.bind, option)) from exc
    return sock


def _set_options(sock: socket.socket, config: ListenerConfig) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        # Also ends a connection whose client acknowledges but never reads (zero window).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(config.user_timeout * 1000)))


def _explain(exc: OSError, bind: str, option: str) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return f"{bind} is in use: stop the other program or choose another port with {option}"
        case errno.EACCES:
            return f"{bind} is not permitted: choose a port from 1024 up with {option}"
        case errno.EADDRNOTAVAIL:
            return f"{bind} is not an address of this machine: choose another host with {option}"
        case code:
            return f"cannot listen on {bind}: {os.strerror(code or 0)}"
