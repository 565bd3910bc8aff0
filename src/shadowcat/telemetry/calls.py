"""Counts of calls, while somebody wants to know them."""

from __future__ import annotations

from http import HTTPStatus

from ..record import OTHER, CallRecord, Observer, Outcome
from .histogram import SECONDS, SHORT, Histogram

_HTTP_METHODS = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD"})
_STATUSES = {int(status): str(int(status)) for status in HTTPStatus}
_NO_STATUS = "none"


class CallCounts(Observer):
    """Counts of exchanges.  However many there are, and whatever they say, the counts have few names."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = {}
        """HTTP requests by method and status."""
        self.calls: dict[tuple[str, str, Outcome], int] = {}
        """Messages of clients by upstream, method and outcome."""
        self.durations: dict[tuple[str, str], Histogram] = {}
        """Seconds to the end of the answer, by upstream and method."""
        self.upstream_times: dict[str, Histogram] = {}
        """Seconds that the upstream took, by upstream."""
        self.own_times: dict[str, Histogram] = {}
        """Seconds that the proxy took before its answer began, by upstream."""
        self.bytes_in: dict[str, int] = {}
        self.bytes_out: dict[str, int] = {}
        self.events = 0
        """Events that clients were sent."""
        self.store_errors = 0
        """Requests that failed because the session store did."""

    def pass_events(self, record: CallRecord, count: int) -> None:
        """Count events."""
        self.events += count

    def finish(self, record: CallRecord) -> None:
        """Count an exchange."""
        self.store_errors += record.outcome is Outcome.STORE_ERROR
        if record.path:
            method = record.http_method if record.http_method in _HTTP_METHODS else OTHER
            status = _STATUSES.get(record.status, OTHER) if record.status else _NO_STATUS
            self.requests[method, status] = self.requests.get((method, status), 0) + 1
        if record.upstream is not None:
            self._count(record.upstream, record)

    def _count(self, upstream: str, record: CallRecord) -> None:
        label = record.label
        call = (upstream, label, record.outcome)
        self.calls[call] = self.calls.get(call, 0) + 1
        self.bytes_in[upstream] = self.bytes_in.get(upstream, 0) + record.bytes_in
        self.bytes_out[upstream] = self.bytes_out.get(upstream, 0) + record.bytes_out
        taken = record.upstream_time
        if not record.is_request or record.is_listening or taken is None:
            return
        duration = self.durations.get((upstream, label))
        if duration is None:
            duration = self.durations[upstream, label] = Histogram(SECONDS)
        duration.observe(record.duration)
        if upstream not in self.own_times:
            self.upstream_times[upstream], self.own_times[upstream] = Histogram(SECONDS), Histogram(SHORT)
        self.upstream_times[upstream].observe(taken)
        self.own_times[upstream].observe(record.own_time)
