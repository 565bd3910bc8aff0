"""Which web pages and which host names may reach us.

A page of any site can make a browser send requests to a server on the user's own
machine, and by DNS rebinding read the answers.  MCP therefore has servers check
``Origin``; checking ``Host`` as well stops a rebound name even where the browser
sends no ``Origin``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import attrs

from ..errors import ConfigError, ForbiddenOrigin, MisdirectedHost

_LOCAL_NAMES = frozenset({"localhost"})
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/?#%\\\s]+))(?::[0-9]*)?")


def _normal(value: str) -> str:
    return value.strip().rstrip("/").lower()


def _all_normal(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigError(f"{values!r} is one value where several are meant; write [{values!r}]")
    return tuple(map(_normal, values))


def _check_origins(_instance: object, _attribute: object, origins: tuple[str, ...]) -> None:
    for origin in origins:
        if origin not in {"*", "null"} and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"{origin!r} is not an origin; write it as browsers send it, https://app.example.com")


@attrs.frozen(kw_only=True)
class OriginConfig:
    """Who is let in beside this machine itself."""

    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_all_normal, validator=_check_origins)
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
        self._hosts = frozenset([*map(_without_brackets, config.allowed_hosts), *_bound_names(bound_host)])
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
        if not ("*" in self._hosts or text in self._hosts or self._is_known(_host_name(text))):
            raise MisdirectedHost(
                "this Host is not allowed; reach the proxy by a loopback name, or start it with --allow-host NAME"
            )
        if len(self._known_hosts) < 64:
            self._known_hosts.add(host)

    def _is_known(self, name: str | None) -> bool:
        return name is not None and (name in self._hosts or is_local_name(name))

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
        name = _host_name(rest)
        if separator and scheme in {"http", "https"} and name is not None and is_local_name(name):
            return
        raise ForbiddenOrigin("pages of this Origin are not allowed; start the proxy with --allow-origin ORIGIN")


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _bound_names(host: str) -> Iterable[str]:
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return ()
    except ValueError:
        pass
    return (_normal(host),)


def _host_name(host: str) -> str | None:
    """Return *host* without its port, an IPv6 address without its brackets; None if it is malformed."""
    found = _AUTHORITY.fullmatch(host)
    return (found[1] or found[2]) if found else None


def is_local_name(name: str) -> bool:
    """Whether *name* is this machine's loopback, by name or address."""
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
