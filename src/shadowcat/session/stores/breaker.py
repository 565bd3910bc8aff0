"""When to stop asking a store that does not answer, and when to ask again.

Closed, every call goes through.  Enough failures in a row open the breaker: no
call goes through for a while.  Then it is half open: a few at once are let
through to probe, enough answers in a row close it, one failure opens it again.

All of it is synchronous, so nothing comes between a look at the state and the
change of it.  Each change of state begins a new generation; how a call ends
that was let through in an earlier one says nothing about this one.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from contextlib import contextmanager

import attrs
import trio

from ...errors import StoreUnavailable


class BreakerOpen(StoreUnavailable):
    """The call was not made: calls before it failed."""


class BreakerState(enum.Enum):
    """What a breaker lets through: everything, nothing, or probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@attrs.frozen(kw_only=True)
class BreakerConfig:
    """When a breaker opens and closes."""

    max_failures: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """Failures in a row that open it."""

    reset_timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds that it stays open before it lets probes through."""

    max_probes: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    """Probes let through at once, and answers in a row that close it."""


class CircuitBreaker:
    """Keeps calls away from a store that is down, by trio's clock."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._failures = 0
        self._answers = 0
        self._probes = 0
        self._probe_at = 0.0

    @property
    def state(self) -> BreakerState:
        """What it lets through now."""
        if self._state is BreakerState.OPEN and self.retry_after == 0.0:
            self._enter(BreakerState.HALF_OPEN)
        return self._state

    @property
    def retry_after(self) -> float:
        """Seconds until probes are let through; 0 if calls are already."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._probe_at - trio.current_time())

    def probe_now(self) -> None:
        """Let probes through without waiting any longer."""
        if self._state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)

    @contextmanager
    def guard(self) -> Generator[None, None, None]:
        """Let one call through, and learn from how it ends.

        `StoreUnavailable` is a failure.  Any other exception is an answer, but for
        a cancellation, which is neither.

        Raises:
            BreakerOpen: The call must not be made.
        """
        generation = self._admit()
        try:
            yield
        except StoreUnavailable:
            self._fail(generation)
            raise
        except Exception:
            self._answer(generation)
            raise
        else:
            self._answer(generation)
        finally:
            if generation == self._generation and self._state is BreakerState.HALF_OPEN:
                self._probes -= 1

    def _admit(self) -> int:
        state = self.state
        if state is BreakerState.OPEN:
            raise BreakerOpen("the session store is unavailable; try again later")
        if state is BreakerState.HALF_OPEN:
            if self._probes >= self._config.max_probes:
                raise BreakerOpen("the session store is being tried again; try again later")
            self._probes += 1
        return self._generation

    def _answer(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures = 0
        self._answers += 1
        if self._state is BreakerState.HALF_OPEN and self._answers >= self._config.max_probes:
            self._enter(BreakerState.CLOSED)

    def _fail(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures += 1
        if self._state is BreakerState.HALF_OPEN or self._failures >= self._config.max_failures:
            self._enter(BreakerState.OPEN)
            self._probe_at = trio.current_time() + self._config.reset_timeout

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
        self._failures = self._answers = self._probes = 0
