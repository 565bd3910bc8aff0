"""When to stop sending to a server that fails, and when to try it again.

Closed, everything goes through.  Enough failures, in a row or as a part of the calls
of late, open it: nothing goes through for a while.  Then it is half open: a few calls
are let through as probes, as many as there are places and not one more until those
have ended; if all are answered it closes, and one failure opens it again.  Probes of
which nothing has come for as long as it was open are given up, and others take their places.

All of it is synchronous, so nothing comes between a look and the change that follows.
How a call ends that was let through before the last change says nothing any more.
"""

from __future__ import annotations

import enum

import attrs
import trio

_SLICES = 10
"""Parts of the window; the oldest is forgotten as a whole."""

_SOON = 1.0
"""Seconds after which probes that are under way may have been answered."""


class CircuitState(enum.Enum):
    """What a breaker lets through: everything, nothing, or probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen(kw_only=True)
class CircuitConfig:
    """When a breaker opens and closes."""

    max_failures: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """Failures in a row that open it."""

    max_failure_rate: float = attrs.field(default=0.5, validator=[attrs.validators.gt(0), attrs.validators.le(1)])
    """The part of the calls in the window that may fail before it opens."""

    min_calls: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    """Calls in the window below which their rate says nothing."""

    window: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds over which the rate is counted, to a tenth."""

    open_time: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that it stays open before probes are let through."""

    max_probes: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    """Probes that are let through, and have to be answered for it to close."""


@attrs.frozen
class Permit:
    """Leave to make one call.  Whoever has it says how the call ended, once."""

    generation: int
    is_probe: bool


class Circuit:
    """A circuit breaker, by trio's clock.  What a call costs does not grow with anything."""

    def __init__(self, config: CircuitConfig) -> None:
        self._config = config
        self._state = CircuitState.CLOSED
        self._generation = 0
        self._since = 0.0
        """When it opened, or let the last probe through."""
        self._failures = 0
        self._probes = 0
        self._answers = 0
        self._window = _Window(config.window / _SLICES)
        self.opened = 0
        """How often it has opened."""

    @property
    def state(self) -> CircuitState:
        """What it lets through now."""
        if self._state is CircuitState.CLOSED:
            return CircuitState.CLOSED
        if not self._has_place and self._rest == 0.0:
            self._enter(CircuitState.HALF_OPEN)
        return self._state

    @property
    def retry_after(self) -> float:
        """Seconds until probes are let through; 0 if calls or probes are already.

        While probes are under way, their answers may come at any time: a second at most.
        """
        if self._state is CircuitState.CLOSED or self._has_place:
            return 0.0
        return self._rest if self._state is CircuitState.OPEN else min(_SOON, self._rest)

    @property
    def _rest(self) -> float:
        return max(0.0, self._since + self._config.open_time - trio.current_time())

    @property
    def has_room(self) -> bool:
        """Whether `admit` would give a permit now."""
        if self._state is CircuitState.CLOSED:
            return True
        return self.state is CircuitState.HALF_OPEN and self._has_place

    @property
    def _has_place(self) -> bool:
        return self._state is CircuitState.HALF_OPEN and self._probes < self._config.max_probes

    def admit(self) -> Permit | None:
        """Let one call through; None if it must not be made."""
        if not self.has_room:
            return None
        is_probe = self._state is CircuitState.HALF_OPEN
        if is_probe:
            self._probes += 1
            self._since = trio.current_time()
        return Permit(self._generation, is_probe)

    def succeed(self, permit: Permit) -> None:
        """Note that a call was answered."""
        if permit.generation != self._generation:
            return
        self._failures = 0
        self._window.add(is_failure=False)
        if permit.is_probe:
            self._answers += 1
            if self._answers >= self._config.max_probes:
                self._enter(CircuitState.CLOSED)

    def fail(self, permit: Permit) -> None:
        """Note that a call failed by the server's fault."""
        if permit.generation != self._generation:
            return
        self._failures += 1
        self._window.add(is_failure=True)
        if permit.is_probe or self._failures >= self._config.max_failures or self._is_rate_exceeded():
            self._enter(CircuitState.OPEN)
            self._since = trio.current_time()
            self.opened += 1

    def release(self, permit: Permit) -> None:
        """Note that a call ended without saying anything of the server: it was cancelled, say."""
        if permit.generation == self._generation:
            self._probes -= permit.is_probe

    def _is_rate_exceeded(self) -> bool:
        calls, failures = self._window.counts()
        return calls >= self._config.min_calls and failures > calls * self._config.max_failure_rate

    def _enter(self, state: CircuitState) -> None:
        self._state = state
        self._generation += 1
        self._failures = self._probes = self._answers = 0
        self._window.clear()


class _Window:
    """Calls and failures of late, in slices of *length* seconds."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._slice = 0
        self.clear()

    def clear(self) -> None:
        self._calls = [0] * _SLICES
        self._failures = [0] * _SLICES

    def add(self, *, is_failure: bool) -> None:
        self._forget_old()
        self._calls[self._slice % _SLICES] += 1
        self._failures[self._slice % _SLICES] += is_failure

    def counts(self) -> tuple[int, int]:
        self._forget_old()
        return sum(self._calls), sum(self._failures)

    def _forget_old(self) -> None:
        now = self._number()
        for number in range(max(self._slice, now - _SLICES) + 1, now + 1):
            self._calls[number % _SLICES] = self._failures[number % _SLICES] = 0
        self._slice = now

    def _number(self) -> int:
        return int(trio.current_time() / self._length)
