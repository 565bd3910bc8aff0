"""Those who observe the exchanges of a proxy, and a record for each while there are any."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..record import CallRecord, Observer
from ..transport import Exchange


class Observers:
    """Who observes, for now.  Changes hold for exchanges that begin later."""

    __slots__ = ("present",)

    def __init__(self) -> None:
        self.present: tuple[Observer, ...] = ()
        """Empty when nobody does, and nothing is noted."""

    @contextmanager
    def observing(self, observer: Observer) -> Generator[None, None, None]:
        """Have *observer* told of exchanges for as long as the block lasts."""
        self.present = (*self.present, observer)
        try:
            yield
        finally:
            self.present = tuple(other for other in self.present if other is not observer)

    def begin(self, exchange: Exchange, path: str, client: str | None) -> None:
        """Begin to take note of *exchange*."""
        exchange.observe(CallRecord(exchange.method, path, client, self.present))
