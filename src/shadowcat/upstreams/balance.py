"""Which of several endpoints the next request goes to."""

from __future__ import annotations

import enum
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, TypeVar

from ..errors import ConfigError


class Candidate(Protocol):
    """As much of an endpoint as is looked at."""

    @property
    def name(self) -> str:
        """What no other has."""

    @property
    def share(self) -> float:
        """How much it is to have, relative to the others; more than 0."""

    @property
    def in_flight(self) -> int:
        """Requests that it is at work on."""


class Strategy(enum.Enum):
    """How endpoints are chosen."""

    ROUND_ROBIN = "round-robin"
    """By turns, whatever their weights; one that is starting slowly less often."""

    WEIGHTED = "weighted"
    """By turns, as often as their weights say, and evenly mixed."""

    LEAST_IN_FLIGHT = "least-in-flight"
    """The one with the fewest requests for its weight."""

    POWER_OF_TWO = "power-of-two"
    """Of two drawn at random, the one with fewer requests for its weight."""

    RANDOM = "random"
    """At random, as often as their weights say."""

    @classmethod
    def parse(cls, name: str) -> Strategy:
        """Return the strategy called *name*.

        Raises:
            ConfigError: There is none.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(strategy.value for strategy in cls)
            raise ConfigError(f"no strategy is called {name!r}; choose one of: {known}") from None


C = TypeVar("C", bound=Candidate)


class Balancer(ABC):
    """Chooses; not a checkpoint.  Takes time in proportion to the number of endpoints, and of nothing else."""

    @abstractmethod
    def pick(self, candidates: Sequence[C]) -> C:
        """Return one of *candidates*, of which there is at least one."""


class ByTurns(Balancer):
    """Smooth weighted round robin: the one that is owed most gets the request, and then owes all shares."""

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def pick(self, candidates: Sequence[C]) -> C:
        """Return the one whose turn it is."""
        credit = self._credit = {each.name: self._credit.get(each.name, 0.0) + each.share for each in candidates}
        chosen = max(candidates, key=lambda each: credit[each.name])
        credit[chosen.name] -= sum(each.share for each in candidates)
        return chosen


class LeastInFlight(Balancer):
    """The least burdened; of several alike, one at random, or a new endpoint would get all there is."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def pick(self, candidates: Sequence[C]) -> C:
        """Return the least burdened."""
        return min(candidates, key=lambda each: (burden(each), self._draw.random()))


class PowerOfTwo(Balancer):
    """The less burdened of two; as good as the least of all for many, and never all at the same one."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def pick(self, candidates: Sequence[C]) -> C:
        """Draw two, and return the less burdened."""
        if len(candidates) == 1:
            return candidates[0]
        first, second = self._draw.sample(candidates, 2)
        return first if burden(first) <= burden(second) else second


class AtRandom(Balancer):
    """Any one, as likely as its share."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def pick(self, candidates: Sequence[C]) -> C:
        """Draw one."""
        return self._draw.choices(candidates, [each.share for each in candidates])[0]


def burden(candidate: Candidate) -> float:
    """Return how burdened it would be by one request more."""
    return (candidate.in_flight + 1) / candidate.share


def make_balancer(strategy: Strategy, draw: random.Random | None = None) -> Balancer:
    """Return what chooses by *strategy*.

    Args:
        draw: For what is left to chance.
    """
    draw = random.Random() if draw is None else draw
    match strategy:
        case Strategy.ROUND_ROBIN | Strategy.WEIGHTED:
            return ByTurns()
        case Strategy.LEAST_IN_FLIGHT:
            return LeastInFlight(draw)
        case Strategy.POWER_OF_TWO:
            return PowerOfTwo(draw)
        case Strategy.RANDOM:
            return AtRandom(draw)
