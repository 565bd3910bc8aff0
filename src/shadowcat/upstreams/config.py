"""Which servers stand behind one name, and how they are treated."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from ..errors import ConfigError
from ..resilience import CircuitConfig
from .balance import Strategy
from .endpoint import HealthConfig
from .health import CheckConfig
from .queue import ConcurrencyConfig
from .reach import UpstreamConfig, check_upstream

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_name(name: str) -> bool:
    """Whether a server or an endpoint can have *name*, which may stand in a path."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def _check_name(_instance: object, _attribute: object, name: str) -> None:
    if not is_name(name):
        raise ConfigError(f"{name!r} cannot be the name of an endpoint; use up to 64 letters, digits and -_.")


@attrs.frozen(kw_only=True)
class UpstreamEndpointConfig:
    """One of the servers of a set."""

    name: str = attrs.field(validator=_check_name)
    """What no other endpoint of the set is called; sessions that are kept name it, so it should stay."""

    upstream: UpstreamConfig
    weight: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """How much of the requests it gets, relative to the others."""


def _as_strategy(strategy: Strategy | str) -> Strategy:
    return Strategy.parse(strategy) if isinstance(strategy, str) else strategy


def _as_endpoints(endpoints: Iterable[UpstreamEndpointConfig]) -> tuple[UpstreamEndpointConfig, ...]:
    return tuple(endpoints)


@attrs.frozen(kw_only=True)
class UpstreamSetConfig:
    """Several MCP servers that can do the same, behind one name."""

    endpoints: tuple[UpstreamEndpointConfig, ...] = attrs.field(converter=_as_endpoints)
    strategy: Strategy = attrs.field(default=Strategy.ROUND_ROBIN, converter=_as_strategy)
    """Which of them gets a new session, or a request without one."""

    health: HealthConfig = attrs.field(factory=HealthConfig)
    check: CheckConfig | None = attrs.field(factory=CheckConfig)
    """How they are checked while nobody asks for anything; None if they are not."""

    circuit: CircuitConfig | None = attrs.field(factory=CircuitConfig)
    """When an endpoint that fails is given a rest; None if it never is."""

    concurrency: ConcurrencyConfig = attrs.field(factory=ConcurrencyConfig)
    drain_timeout: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))
    """Seconds that calls at an endpoint have to finish when it is taken out of the set."""

    @endpoints.validator
    def _check_endpoints(self, _: object, endpoints: tuple[UpstreamEndpointConfig, ...]) -> None:
        names = [endpoint.name for endpoint in endpoints]
        if not names:
            raise ConfigError("give the set of upstream servers at least one endpoint")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"two endpoints are called {twice[0]!r}; give each a name of its own")

    @check.validator
    def _check_check(self, _: object, check: CheckConfig | None) -> None:
        if check is not None:
            for endpoint in self.endpoints:
                check.refuse_for(endpoint.upstream)


def as_set(name: str, config: UpstreamConfig | UpstreamSetConfig) -> UpstreamSetConfig:
    """Return *config*, or the set that has a single server, called *name*, and leaves it alone."""
    if isinstance(config, UpstreamSetConfig):
        return config
    endpoint = UpstreamEndpointConfig(name=name, upstream=config)
    return UpstreamSetConfig(endpoints=[endpoint], check=None, circuit=None)


def check_servers(config: UpstreamConfig | UpstreamSetConfig) -> None:
    """See whether commands can be run and certificates be read, before anybody is let in.

    Raises:
        ConfigError: They cannot.
    """
    for endpoint in as_set("default", config).endpoints:
        check_upstream(endpoint.upstream)
