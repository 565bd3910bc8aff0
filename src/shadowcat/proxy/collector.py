"""The metrics of a proxy, read from its statistics when they are asked for.

Imported only where they are: see `open_metrics`.  Whatever clients and servers say, there is an
end to the time series: labels are names from the configuration, or from closed sets.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import trio
from prometheus_client.core import InfoMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from ..session import FailoverStatistics, PersistenceStatistics, SessionStatistics, StreamStatistics
from ..telemetry import AccessLog, CallCounts, JsonLines, LoopLag
from .app import ReverseProxyApp
from .families import counter, counters, gauge, gauges, histogram, histograms
from .limits import LimitStatistics
from .upstream_metrics import upstream_metrics

_NOTHING_WRITTEN = PersistenceStatistics(0, 0, 0, 0, 0, False, 0, 0.0)


@attrs.frozen
class ProxyCollector(Collector):
    """Yields the metrics of a proxy."""

    app: ReverseProxyApp
    calls: CallCounts
    lag: LoopLag
    version: str
    stored: int | None = None
    """Sessions in the store; None if it could not be asked."""

    def collect(self) -> Iterator[Metric]:
        """Yield each metric there is, some without any value yet."""
        began = time.perf_counter()
        statistics = self.app.statistics()
        yield gauge("calls_under_way", "Calls and listening connections now", statistics.under_way)
        yield gauge("listening", "Of those, the connections on which a client merely listens", statistics.listening)
        yield from _calls(self.calls)
        yield from _sessions(statistics.sessions, self.stored)
        yield counter("session_recoveries", "Upstream sessions that replaced lost ones", statistics.recoveries)
        yield from _streams(statistics.streams, self.calls.events)
        written = statistics.persistence or _NOTHING_WRITTEN
        yield from _persistence(written)
        errors = {
            ("call",): self.calls.store_errors,
            ("persistence",): written.failures,
            ("housekeeping",): statistics.sessions.failures,
        }
        yield counters("store_errors", "Times that the session store failed", ["during"], errors)
        yield from _fallback(statistics.fallback)
        yield from upstream_metrics(self.app.upstream_sets)
        yield from _limits(statistics.limits, statistics.limit_failures)
        yield from _logs(self.app)
        yield from _runtime(self.lag)
        yield InfoMetricFamily(
            "shadowcat_build", "What runs", {"version": self.version, "python": platform.python_version()}
        )
        yield gauge("scrape_seconds", "Seconds that these metrics took to gather", time.perf_counter() - began)


def _calls(calls: CallCounts) -> Iterator[Metric]:
    yield counters("http_requests", "HTTP requests, refused ones too", ["method", "status"], calls.requests)
    outcomes = {(upstream, method, outcome.value): n for (upstream, method, outcome), n in calls.calls.items()}
    yield counters("calls", "Messages of clients that were read", ["upstream", "method", "outcome"], outcomes)
    yield histograms(
        "call_duration_seconds",
        "Seconds from a request to the end of its answer",
        ["upstream", "method"],
        calls.durations,
    )
    yield histograms(
        "call_upstream_seconds",
        "Of those, seconds until the server had answered",
        ["upstream"],
        {(name,): found for name, found in calls.upstream_times.items()},
    )
    yield histograms(
        "call_own_seconds",
        "Of those, seconds that the proxy took itself until its answer began",
        ["upstream"],
        {(name,): found for name, found in calls.own_times.items()},
    )
    received = {(name,): n for name, n in calls.bytes_in.items()}
    yield counters("call_received_bytes", "Bytes of messages of clients", ["upstream"], received)
    sent = {(name,): n for name, n in calls.bytes_out.items()}
    yield counters("call_sent_bytes", "Bytes of answers to those", ["upstream"], sent)


def _sessions(sessions: SessionStatistics, stored: int | None) -> Iterator[Metric]:
    yield gauge("sessions_here", "Sessions that this process has had to do with of late", sessions.here)
    rows: dict[tuple[()], int] = {} if stored is None else {(): stored}
    yield gauges("sessions_stored", "Sessions in the store, which others may share", [], rows)
    yield counter("sessions_opened", "Sessions opened here", sessions.opened)
    ended = {(reason.value,): n for reason, n in sessions.ended.items()}
    yield counters("sessions_ended", "Sessions ended here", ["reason"], ended)


def _streams(streams: StreamStatistics, sent: int) -> Iterator[Metric]:
    yield gauge("streams_open", "Event streams that are read from a server", streams.open)
    yield gauge("streams_left", "Of those, the ones whose client has left and may come back", streams.left)
    yield gauge("streams_kept", "Event streams kept for clients that come back", streams.kept)
    yield gauge("streams_kept_bytes", "Bytes of memory that those take", streams.kept_bytes)
    yield counter("streams_opened", "Event streams begun here", streams.opened)
    yield counter("streams_claimed", "Event streams taken over", streams.claimed)
    resumes = {("client",): streams.resumed, ("upstream",): streams.reconnected}
    yield counters("stream_resumes", "Times that a stream went on after a cut", ["side"], resumes)
    yield counter("stream_losses", "Times that a client was told that events are lost", streams.losses)
    yield counter("events_received", "Events of sessions from servers, kept for a while", streams.events)
    yield counter("events_duplicate", "Events that a server sent twice, and that were dropped", streams.duplicates)
    yield counter("events_sent", "Events sent to clients", sent)


def _limits(limits: Mapping[str, LimitStatistics], failures: int) -> Iterator[Metric]:
    allowed = {(name,): limit.allowed for name, limit in limits.items()}
    yield counters("limit_allowed", "Messages that came under a rate limit, and passed", ["limit"], allowed)
    refused = {(name,): limit.refused for name, limit in limits.items()}
    yield counters("limit_refused", "Messages that a rate limit refused", ["limit"], refused)
    keys = {(name,): limit.keys for name, limit in limits.items()}
    yield gauges("limit_keys", "Clients, sessions, methods or tools counted here now", ["limit"], keys)
    yield counter("limit_store_failures", "Times that the store did not count, and this process did", failures)


def _persistence(written: PersistenceStatistics) -> Iterator[Metric]:
    yield gauge("persistence_pending", "Updates that are not in the store yet", written.pending)
    yield gauge("persistence_degraded", "Whether the store did not take the last batch", written.is_degraded)
    yield counter("persistence_written", "Updates written", written.written)
    yield counter("persistence_coalesced", "Updates that newer ones replaced", written.coalesced)
    yield counter("persistence_failures", "Batches that the store did not take", written.failures)
    yield counter("persistence_lost", "Updates given up", written.lost)
    yield SummaryMetricFamily(
        "shadowcat_persistence_flush_seconds",
        "Seconds that batches took, taken or not",
        count_value=written.batches,
        sum_value=written.flush_time,
    )


def _fallback(found: FailoverStatistics | None) -> Iterator[Metric]:
    degraded: dict[tuple[()], bool] = {} if found is None else {(): found.is_degraded}
    yield gauges("store_fallback_degraded", "Whether memory stands in for the store", [], degraded)
    pending: dict[tuple[()], int] = {} if found is None else {(): found.pending}
    yield gauges("store_fallback_pending", "Writes that the store has yet to be told of", [], pending)
    rows: dict[tuple[str], int] = {}
    if found is not None:
        rows = {
            ("failed",): found.failures,
            ("answered",): found.fallbacks,
            ("pushed",): found.pushed,
            ("conflict",): found.conflicts,
        }
    text = "Calls of the store that failed, were answered from memory, reached it later, or came too late"
    yield counters("store_fallback", text, ["what"], rows)


def _logs(app: ReverseProxyApp) -> Iterator[Metric]:
    files: list[tuple[str, JsonLines[Any]]] = [
        ("access", observer.lines) for observer in app.observers.present if isinstance(observer, AccessLog)
    ]
    if app.audit is not None:
        files.append(("audit", app.audit.lines))
    lines = {(name, "written"): file.written for name, file in files}
    lines |= {(name, "dropped"): file.dropped for name, file in files}
    yield counters("log_lines", "Lines of the access and audit logs", ["log", "result"], lines)
    queued = {(name,): file.queued for name, file in files}
    yield gauges("log_queued", "Lines that wait for the disk", ["log"], queued)


def _runtime(lag: LoopLag) -> Iterator[Metric]:
    yield histogram("event_loop_lag_seconds", "Seconds by which sleeps were too long", lag.histogram)
    now = trio.lowlevel.current_statistics()
    tasks = {("living",): now.tasks_living, ("runnable",): now.tasks_runnable}
    yield gauges("trio_tasks", "Tasks of the event loop", ["state"], tasks)
