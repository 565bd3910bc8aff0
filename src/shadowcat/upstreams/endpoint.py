"""One of the servers behind a name: whether it is to be had, and what it is doing."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable

import attrs
import trio

from ..resilience import Circuit, CircuitConfig, CircuitState
from ..transport import Upstream

_LEAST_SHARE = 0.1
"""The part of its weight that an endpoint begins with when it starts slowly."""

NEVER_OPEN = CircuitConfig(max_failures=sys.maxsize, max_failure_rate=1.0)
"""Of a circuit that only counts."""


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
    """Calls under way."""
    requests: int
    """Sent so far, whatever they were."""
    failures: int
    """Of those, the ones that failed by the server's fault."""
    listening: int
    """Streams that are listened to, and for a moment notifications."""
    opened: int
    """How often the circuit has opened."""


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
        self.in_flight = 0
        self.listening = 0
        self.requests = 0
        self.failures = 0
        self.on_change: Callable[[Endpoint], None] = _ignore
        """Told when it may be able to take more than before."""
        self.recheck = 5.0
        """Seconds after which more may be known of one that is unhealthy."""
        self._is_draining = False
        self._health = Health.HEALTHY
        self._streak = 0
        self._refused = 0
        self._idle: trio.Event | None = None
        self._circuit_config: CircuitConfig | None = None
        self.configure(weight, health or HealthConfig(), circuit or CircuitConfig())
        self._healthy_since = -self._config.slow_start

    def configure(self, weight: int, health: HealthConfig, circuit: CircuitConfig) -> None:
        """Go on with other settings; what has been seen stays, but for a circuit that is set otherwise."""
        self.weight = weight
        self._config = health
        if circuit != self._circuit_config:
            self._circuit_config = circuit
            self._max_refused = circuit.max_failures
            self.circuit = Circuit(circuit)

    @property
    def is_draining(self) -> bool:
        """Whether it gets no new sessions; those that it has go on.  May be set."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._is_draining = value
        self.on_change(self)

    @property
    def health(self) -> Health:
        """What the checks say."""
        return self._health

    @property
    def is_dead(self) -> bool:
        """Whether its sessions are lost: checks say so, or nobody listens there any more."""
        if self._health is Health.UNHEALTHY:
            return True
        return self._refused >= self._max_refused and self.circuit.state is CircuitState.OPEN

    @property
    def is_available(self) -> bool:
        """Whether a new session or a request without one may go there."""
        return not self._is_draining and self._health is Health.HEALTHY and self.circuit.has_room

    @property
    def retry_after(self) -> float:
        """Seconds after which it may be available; 0 if it is, or nobody knows."""
        return self.recheck if self._health is Health.UNHEALTHY else self.circuit.retry_after

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
            self.on_change(self)
        elif not is_good and self._streak >= self._config.unhealthy_after:
            self._health = Health.UNHEALTHY
            self._streak = 0
            self.on_change(self)

    def forget_checks(self) -> None:
        """Count as healthy: nobody checks any more."""
        self._streak = 0
        self._health = Health.HEALTHY
        self.on_change(self)

    def note_failure(self, *, is_refused: bool) -> None:
        """Count a request that failed by the server's fault.

        Args:
            is_refused: Whether nobody was there to take it.
        """
        self.failures += 1
        self._refused = self._refused + 1 if is_refused else 0

    def note_answer(self) -> None:
        """Take note that somebody is there."""
        self._refused = 0

    def begin(self, is_call: bool = True) -> None:
        """Count a request that is under way from now on."""
        if is_call:
            self.in_flight += 1
        else:
            self.listening += 1

    def finish(self, is_call: bool = True) -> None:
        """Note that a request is over."""
        if not is_call:
            self.listening -= 1
            return
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()
        self.on_change(self)

    async def wait_idle(self) -> None:
        """Wait until no call is under way.  For one task at a time; cancel safe."""
        await trio.lowlevel.checkpoint()
        while self.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    def statistics(self) -> EndpointStatistics:
        """Return a snapshot."""
        return EndpointStatistics(
            self.name,
            self._health,
            self.circuit.state,
            self._is_draining,
            self.in_flight,
            self.requests,
            self.failures,
            self.listening,
            self.circuit.opened,
        )


def _ignore(_endpoint: Endpoint) -> None:
    """Nobody has to be told."""
