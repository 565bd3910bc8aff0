"""Which of several servers a client means that names none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from ..errors import ConfigError

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@attrs.frozen(kw_only=True)
class ServerRule:
    """Sends the requests that it matches to one server.

    What is set must all be so.  A client has to send the same in each of its requests:
    its session is known at its own server only.
    """

    server: str
    """A key of ``ReverseProxyConfig.servers``, or ``default`` for the one without a name."""

    host: str | None = None
    """The ``Host`` header, in any case; without a port it matches any."""

    header: str | None = attrs.field(default=None)
    """The name of a request header."""

    value: str | None = attrs.field(default=None)
    """What the header has to be, exactly."""

    @header.validator
    def _check_header(self, _: object, header: str | None) -> None:
        if header is not None and not _TOKEN.fullmatch(header):
            raise ConfigError(f"{header!r} is no header name; write for example X-Tenant")

    @value.validator
    def _check_value(self, _: object, value: str | None) -> None:
        if (value is None) != (self.header is None):
            raise ConfigError(f"the rule for {self.server!r} needs both, header and value, or neither")
        if self.host is None and self.header is None:
            raise ConfigError(
                f"the rule for {self.server!r} matches nothing; give it a host, or a header and its value"
            )

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        """Tell whether a request with *headers* is meant."""
        if self.host is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            if self.host.lower() not in (host, _without_port(host)):
                return False
        if self.header is None or self.value is None:
            return True
        return headers.get(self.header.lower().encode()) == self.value.encode()


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def choose_server(rules: Sequence[ServerRule], headers: Mapping[bytes, bytes], otherwise: str | None) -> str | None:
    """Return the server of the first rule that matches, or else *otherwise*."""
    for rule in rules:
        if rule.matches(headers):
            return rule.server
    return otherwise
