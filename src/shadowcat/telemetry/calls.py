"""Counts of calls, while somebody wants to know them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from ..record import OTHER, CallRecord, Observer, Outcome
from .histogram import SECONDS, SHORT, Histogram

_HTTP_METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD"})
_STATUSES = {int(status): str(int(status)) for status in HTTPStatus}
_NO_STATUS = "none"


class _Calls:
    """Calls of one upstream, method and outcome."""

    __slots__ = ("bytes_in", "bytes_out", "count", "duration", "own", "upstream")

    def __init__(self, duration: Histogram, upstream: Histogram, own: Histogram) -> None:
        self.count = self.bytes_in = self.bytes_out = 0
        self.duration = duration
        self.upstream = upstream
        self.own = own


class CallCounts(Observer):
    """Counts of exchanges.  However many there are, and whatever they say, the counts have few names."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = {}
        """HTTP requests by method and status."""
        self.events = 0
        """Events that clients were sent."""
        self.store_errors = 0
        """Requests that failed because the session store did."""
        self._found: dict[tuple[str, str, str], _Calls] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._upstream_times: dict[str, Histogram] = {}
        self._own_times: dict[str, Histogram] = {}

    @property
    def calls(self) -> dict[tuple[str, str, Outcome], int]:
        """Messages of clients by upstream, method and outcome."""
        return {(*key[:2], Outcome(key[2])): found.count for key, found in self._found.items()}

    @property
    def bytes_in(self) -> dict[str, int]:
        """Bytes of messages, by upstream."""
        return self._by_upstream(lambda found: found.bytes_in)

    @property
    def bytes_out(self) -> dict[str, int]:
        """Bytes of answers, by upstream."""
        return self._by_upstream(lambda found: found.bytes_out)

    @property
    def durations(self) -> dict[tuple[str, str], Histogram]:
        """Seconds to the end of the answer, by upstream and method."""
        return {key: found for key, found in self._durations.items() if found.count}

    @property
    def upstream_times(self) -> dict[str, Histogram]:
        """Seconds that the upstream took, by upstream."""
        return {key: found for key, found in self._upstream_times.items() if found.count}

    @property
    def own_times(self) -> dict[str, Histogram]:
        """Seconds that the proxy took before its answer began, by upstream."""
        return {key: found for key, found in self._own_times.items() if found.count}

    def pass_events(self, record: CallRecord, count: int) -> None:
        """Count events."""
        self.events += count

    def finish(self, record: CallRecord) -> None:
        """Count an exchange."""
        if record.path:
            method = record.http_method if record.http_method in _HTTP_METHODS else OTHER
            key = (method, _STATUSES.get(record.status, OTHER) if record.status else _NO_STATUS)
            self.requests[key] = self.requests.get(key, 0) + 1
        if record.outcome is Outcome.STORE_ERROR:
            self.store_errors += 1
        upstream = record.upstream
        if upstream is None:
            return
        # Not the outcome itself: to hash a member of an enumeration takes longer than all the rest.
        call = (upstream, record.label, record.outcome._value_)
        found = self._found.get(call)
        if found is None:
            found = self._found[call] = self._make(upstream, record.label)
        found.count += 1
        found.bytes_in += record.bytes_in
        found.bytes_out += record.bytes_out
        handed_at, answered_at = record.handed_at, record.answered_at
        if not record.is_request or record.is_listening or handed_at is None:
            return
        ended_at, started_at = record.ended_at, record.started_at
        taken = (ended_at if answered_at is None else answered_at) - handed_at
        found.duration.observe(ended_at - started_at)
        found.upstream.observe(taken)
        found.own.observe((ended_at if record.head_at is None else record.head_at) - started_at - taken)

    def _make(self, upstream: str, method: str) -> _Calls:
        duration = self._durations.setdefault((upstream, method), Histogram(SECONDS))
        taken = self._upstream_times.setdefault(upstream, Histogram(SECONDS))
        return _Calls(duration, taken, self._own_times.setdefault(upstream, Histogram(SHORT)))

    def _by_upstream(self, size: Callable[[_Calls], int]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for (upstream, _, _), found in self._found.items():
            sizes[upstream] = sizes.get(upstream, 0) + size(found)
        return sizes
