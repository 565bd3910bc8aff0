"""Which web pages and which host names may reach us.

A page of any site can make a browser send requests to a server on the user's own
machine, and by DNS rebinding read the answers.  MCP therefore has servers check
``Origin``; checking ``Host`` as well stops a rebound name even where the browser
sends no ``Origin``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import attrs

from ..errors import ForbiddenOrigin, MisdirectedHost

_LOCAL_NAMES = frozenset({"localhost"})


def _normal(value: str) -> str:
    return value.strip().rstrip("/").lower()


def _all_normal(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_normal, values))


@attrs.frozen(kw_only=True)
class OriginConfig:
    """Who is let in beside this machine itself."""

    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_all_normal)
    """Origins as browsers send them, ``https://app.example.com``; ``*`` lets in every page."""

    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_all_normal)
    """Host names, with a port or without (then any port); ``*`` stands for every host."""


class OriginPolicy:
    """Decides on the ``Origin`` and ``Host`` of each request.

    Loopback names and addresses pass on any port, as *bound_host* does when the
    listener is bound to one address.  Verdicts are remembered, a bounded number.
    """

    def __init__(self, config: OriginConfig, bound_host: str = "127.0.0.1") -> None:
        self._origins = frozenset(config.allowed_origins)
        self._hosts = frozenset([*config.allowed_hosts, *_bound_names(bound_host)])
        self._known_hosts: set[bytes] = set()

    def check_host(self, host: bytes | None) -> None:
        """Check a ``Host`` header.

        Raises:
            MisdirectedHost: It is missing, or names a host that is not allowed.
        """
        if host in self._known_hosts:
            return
        if host is None:
            raise MisdirectedHost("the Host header is missing")
        text = _normal(host.decode("latin-1"))
        name = _host_name(text)
        if not ("*" in self._hosts or text in self._hosts or name in self._hosts or is_local_name(name)):
            raise MisdirectedHost(
                "this Host is not allowed; reach the proxy by a loopback name, or start it with --allow-host NAME"
            )
        if len(self._known_hosts) < 64:
            self._known_hosts.add(host)

    def check_origin(self, origin: bytes | None) -> None:
        """Check an ``Origin`` header; a request without one does not come from a page.

        Raises:
            ForbiddenOrigin: Pages of this origin are not let in.
        """
        if origin is None:
            return
        text = _normal(origin.decode("latin-1"))
        if "*" in self._origins or text in self._origins:
            return
        scheme, separator, rest = text.partition("://")
        if separator and scheme in {"http", "https"} and is_local_name(_host_name(rest)):
            return
        raise ForbiddenOrigin("pages of this Origin are not allowed; start the proxy with --allow-origin ORIGIN")


def _bound_names(host: str) -> Iterable[str]:
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return ()
    except ValueError:
        pass
    return (_normal(host),)


def _host_name(host: str) -> str:
    """Return *host* without its port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") <= 1 else host


def is_local_name(name: str) -> bool:
    """Whether *name* is this machine's loopback, by name or address."""
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
