"""One of the servers behind a name: whether it is to be had, and what it is doing."""

from __future__ import annotations

import enum

import attrs
import trio

from ..resilience import Circuit, CircuitConfig, CircuitState
from ..transport import Upstream

_LEAST_SHARE = 0.1
"""The part of its weight that an endpoint begins with when it starts slowly."""


class Health(enum.Enum):
    """What is known of an endpoint."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@attrs.frozen(kw_only=True)
class HealthConfig:
    """When an endpoint counts as dead or alive."""

    unhealthy_after: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    """Checks in a row that must fail."""

    healthy_after: int = attrs.field(default=2, validator=attrs.validators.ge(1))
    """Checks in a row that must succeed, once it is unhealthy."""

    slow_start: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """Seconds over which one that has become healthy gets its share; 0: at once."""


@attrs.frozen
class EndpointStatistics:
    """A snapshot of an endpoint."""

    name: str
    health: Health
    circuit: CircuitState
    is_draining: bool
    in_flight: int
    requests: int
    failures: int


class Endpoint:
    """A server, and what we have seen of it.

    Args:
        name: What no other endpoint of the set has; letters, digits, ``-``, ``_`` and ``.``.
        weight: How much of the requests it gets, relative to the others.
    """

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        *,
        weight: int = 1,
        health: HealthConfig | None = None,
        circuit: CircuitConfig | None = None,
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.weight = weight
        self.circuit = Circuit(circuit or CircuitConfig())
        self.is_draining = False
        """Whether it gets no new sessions; those that it has go on."""
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self._config = health or HealthConfig()
        self._health = Health.HEALTHY
        self._streak = 0
        self._healthy_since = -self._config.slow_start

    @property
    def health(self) -> Health:
        """What the checks say."""
        return self._health

    @property
    def is_dead(self) -> bool:
        """Whether its sessions are lost."""
        return self._health is Health.UNHEALTHY

    @property
    def is_available(self) -> bool:
        """Whether a new session or a request without one may go there."""
        return not self.is_draining and not self.is_dead and self.circuit.has_room

    @property
    def share(self) -> float:
        """Its weight; less for some time after it has become healthy."""
        slow_start = self._config.slow_start
        if slow_start == 0:
            return float(self.weight)
        age = (trio.current_time() - self._healthy_since) / slow_start
        return self.weight * min(1.0, max(_LEAST_SHARE, age))

    def note_check(self, *, is_good: bool) -> None:
        """Take note of what a check said."""
        if is_good == (self._health is Health.HEALTHY):
            self._streak = 0
            return
        self._streak += 1
        if is_good and self._streak >= self._config.healthy_after:
            self._health = Health.HEALTHY
            self._healthy_since = trio.current_time()
            self._streak = 0
        elif not is_good and self._streak >= self._config.unhealthy_after:
            self._health = Health.UNHEALTHY
            self._streak = 0

    def begin(self) -> None:
        """Count a request that is under way from now on."""
        self.in_flight += 1
        self.requests += 1

    def finish(self) -> None:
        """Note that a request is over."""
        self.in_flight -= 1

    def statistics(self) -> EndpointStatistics:
        """Return a snapshot."""
        return EndpointStatistics(
            self.name,
            self._health,
            self.circuit.state,
            self.is_draining,
            self.in_flight,
            self.requests,
            self.failures,
        )
