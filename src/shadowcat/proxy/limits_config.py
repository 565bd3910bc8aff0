"""How many requests clients may make, as it is set."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..errors import ConfigError
from ..resilience import RateLimit, read_rate_limit
from .client_address import FORWARDED_HEADERS, Network, read_networks

OTHERS = "*"
"""The name in a table that stands for all that have no limit of their own there."""

_MAX_NAME = 128


def _read(value: str | RateLimit | None) -> RateLimit | None:
    return None if value is None else _read_limit(value)


def _read_limit(value: str | RateLimit) -> RateLimit:
    # From a file comes anything; what is no text either has no unit.
    return value if isinstance(value, RateLimit) else read_rate_limit(str(value))


def _read_table(table: Mapping[str, str | RateLimit]) -> Mapping[str, RateLimit]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{table!r} has no names; write a table of names and limits")
    limits = {}
    for name, value in table.items():
        if not 0 < len(name) <= _MAX_NAME:
            raise ConfigError(f"{name[:40]!r} cannot be limited; give the name of a method or a tool, or {OTHERS!r}")
        limits[name] = _read_limit(value)
    return limits


def _read_header(name: str) -> str:
    if name.lower() not in FORWARDED_HEADERS:
        raise ConfigError(f"{name!r} cannot say who the client is; write {' or '.join(FORWARDED_HEADERS)}")
    return name.lower()


@attrs.frozen(kw_only=True)
class LimitsConfig:
    """How many messages clients may send.  By default there are no limits.

    A limit is written as ``100/s``, ``60/min burst 20`` or ``1000/h``: so many in the long run, and
    so many at once, by default as many as in a whole period.  A message must pass all limits that
    it comes under, and uses up none of them if it does not.
    """

    total: RateLimit | None = attrs.field(default=None, converter=_read)
    """Messages of all clients together."""

    per_client: RateLimit | None = attrs.field(default=None, converter=_read)
    """Messages from one address, and its ``GET`` and ``DELETE`` requests.  IPv6 addresses count by their /64."""

    per_session: RateLimit | None = attrs.field(default=None, converter=_read)
    """Messages in one legacy session; ``initialize`` is not yet in one."""

    per_method: Mapping[str, RateLimit] = attrs.field(factory=dict, converter=_read_table)
    """By JSON-RPC method: messages of all clients together.  ``*`` is for each method that is not named."""

    per_tool: Mapping[str, RateLimit] = attrs.field(factory=dict, converter=_read_table)
    """By tool: calls of all clients together.  ``*`` is for each tool that is not named."""

    trusted_proxies: tuple[Network, ...] = attrs.field(default=(), converter=read_networks)
    """Networks, as ``10.0.0.0/8``, of proxies whose word is taken for where a request comes from."""

    client_header: str = attrs.field(default=FORWARDED_HEADERS[0], converter=_read_header)
    """The header in which they say it, ``x-forwarded-for`` or ``forwarded``; they must set it themselves."""

    max_keys: int = attrs.field(default=100_000, validator=attrs.validators.ge(1))
    """Clients, sessions, methods or tools that one limit keeps count of in this process, the latest of them."""

    def by_name(self) -> Mapping[str, RateLimit]:
        """Return all limits that are set, by the names under which clients are told of them."""
        single = {"total": self.total, "per_client": self.per_client, "per_session": self.per_session}
        return {
            **{name: limit for name, limit in single.items() if limit is not None},
            **{f"per_method.{name}": limit for name, limit in self.per_method.items()},
            **{f"per_tool.{name}": limit for name, limit in self.per_tool.items()},
        }
