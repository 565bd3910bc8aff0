"""How many calls are under way at once, and who is next.

A place that becomes free is given to whoever waits for it at that moment, so nobody
who comes later can be faster.  Calls of a session wait for their endpoint; others for
any.  Giving is synchronous: there are never more places taken than there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from ..errors import UpstreamBusy
from .endpoint import Endpoint

_LATER = 1.0
"""Seconds after which it is worth to try again where too much is under way."""


@attrs.frozen(kw_only=True)
class ConcurrencyConfig:
    """How many calls are made at once.  A stream that is listened to is no call."""

    max_in_flight: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    """Calls at one endpoint; None for as many as come."""

    max_queue: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    """Calls that wait for their turn, in the whole set; 503 for more."""

    queue_timeout: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Seconds that each of them waits; then 503."""


@attrs.define(eq=False)
class _Waiter:
    number: int
    wanted: Endpoint | None
    given: Endpoint | None = None
    woken: trio.Event = attrs.field(factory=trio.Event)


class CallQueue:
    """Calls that wait for a place at an endpoint, first come, first served.

    A place is counted in `Endpoint.in_flight`; whoever is given one calls `Endpoint.finish`.

    Args:
        members: Returns the endpoints that calls without a session may go to.
    """

    def __init__(self, config: ConcurrencyConfig, members: Callable[[], Sequence[Endpoint]]) -> None:
        self.config = config
        self.refused = 0
        self.timed_out = 0
        self._members = members
        self._number = 0
        self._waiting: dict[Endpoint | None, dict[int, _Waiter]] = {}
        self._count = 0

    @property
    def waiting(self) -> int:
        """How many calls wait now."""
        return self._count

    def has_room(self, endpoint: Endpoint) -> bool:
        """Whether one call more may be made at *endpoint*."""
        limit = self.config.max_in_flight
        return limit is None or endpoint.in_flight < limit

    async def wait(self, wanted: Endpoint | None) -> Endpoint | None:
        """Wait for a place at *wanted*, or at any endpoint that is available; return where it is.

        None if there is nothing to wait for any more.  Cancel safe: a place that was
        given meanwhile goes to the next.

        Raises:
            UpstreamBusy: Too many wait, or it took too long.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._count >= self.config.max_queue:
            self.refused += 1
            raise UpstreamBusy(
                f"{self._count} calls wait for the server behind this proxy already, and nothing was sent; "
                "send it again in a few seconds",
                _LATER,
            )
        waiter = self._join(wanted)
        try:
            with trio.move_on_after(self.config.queue_timeout):
                await waiter.woken.wait()
        except BaseException:
            if waiter.given is not None:
                waiter.given.finish()
            raise
        finally:
            self._part(waiter)
        if waiter.given is None and not waiter.woken.is_set():
            self.timed_out += 1
            raise UpstreamBusy(
                f"the server behind this proxy had no time for the call in {self.config.queue_timeout:g} s, "
                "and nothing was sent; send it again in a few seconds",
                _LATER,
            )
        return waiter.given

    def _join(self, wanted: Endpoint | None) -> _Waiter:
        self._number += 1
        waiter = _Waiter(self._number, wanted)
        self._waiting.setdefault(wanted, {})[waiter.number] = waiter
        self._count += 1
        return waiter

    def _part(self, waiter: _Waiter) -> None:
        line = self._waiting.get(waiter.wanted, {})
        if line.pop(waiter.number, None) is not None:
            self._count -= 1
            if not line:
                del self._waiting[waiter.wanted]

    def serve(self, endpoint: Endpoint) -> None:
        """Give the places that *endpoint* has to those who wait for them; takes no time if nobody does."""
        while self._count and self.has_room(endpoint):
            first = self._first(endpoint)
            if endpoint.is_available and endpoint in self._members():
                first = min((one for one in (first, self._first(None)) if one), key=_number, default=None)
            if first is None:
                break
            first.given = endpoint
            endpoint.begin()
            self._wake(first)
        if None in self._waiting and not any(member.is_available for member in self._members()):
            self.send_away(None)

    def send_away(self, wanted: Endpoint | None) -> None:
        """Let those who wait for *wanted* know that there is nothing to wait for."""
        for waiter in list(self._waiting.get(wanted, {}).values()):
            self._wake(waiter)

    def serve_all(self) -> None:
        """Give all places there are: something has changed."""
        for endpoint in self._members():
            self.serve(endpoint)

    def _first(self, wanted: Endpoint | None) -> _Waiter | None:
        return next(iter(self._waiting.get(wanted, {}).values()), None)

    def _wake(self, waiter: _Waiter) -> None:
        self._part(waiter)
        waiter.woken.set()


def _number(waiter: _Waiter) -> int:
    return waiter.number
