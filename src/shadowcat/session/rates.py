"""Counting what several proxies let through together: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs


@attrs.frozen
class RateTake:
    """What a request takes from an allowance, which is a bucket: each request fills it, and it leaks."""

    key: str
    """Whose allowance this is; the bucket of a new key is empty."""

    ticks: int
    """How much leaks in a microsecond."""

    step: int
    """How much the request adds."""

    span: int
    """How much there is room for."""


@attrs.frozen
class RateTaken:
    """What became of it."""

    is_taken: bool
    levels: Sequence[int]
    """How full each bucket was before, in the order of the takes."""


class RateCounter(ABC):
    """Keeps allowances that several processes use up together, by a clock that they share."""

    @abstractmethod
    async def take(self, takes: Sequence[RateTake]) -> RateTaken:
        """Take from all allowances, or, if one has too little left, from none.

        Atomic: however many processes ask at once, no bucket is ever filled beyond its span.
        If cancelled, it may have happened.

        Raises:
            StoreUnavailable: The backend cannot be reached, or does not answer in time; it may have happened.
        """
