"""Counts of calls: exact, and with an end to their names."""

import pytest

from shadowcat.protocol import Request
from shadowcat.record import CallRecord, Outcome
from shadowcat.telemetry import CallCounts


async def finish(counts, method="tools/call", status=200, http_method="POST", path="/mcp", **values):
    record = CallRecord(http_method, path, None, [counts])
    if method is not None:
        record.note_message("default", {}, Request(b"1", method, b""), 10)
        record.started_at, record.handed_at, record.answered_at = 0.0, 0.25, 0.75
    record.head_at, record.is_complete = 1.0, True
    for name, value in values.items():
        setattr(record, name, value)
    record.finish(status, {})
    return record


async def test_call_moves_each_count_by_exactly_its_own(autojump_clock):
    counts = CallCounts()
    for _ in range(3):
        await finish(counts, bytes_out=7)
    assert counts.requests == {("POST", "200"): 3}
    assert counts.calls == {("default", "tools/call", Outcome.OK): 3}
    assert (counts.bytes_in, counts.bytes_out) == ({"default": 30}, {"default": 21})
    assert counts.upstream_times["default"].total == 1.5
    assert counts.own_times["default"].total == 1.5
    assert counts.durations["default", "tools/call"].count == 3
    assert counts.store_errors == 0


async def test_stream_that_only_listens_has_no_duration():
    counts = CallCounts()
    await finish(counts, "subscriptions/listen")
    assert counts.calls == {("default", "subscriptions/listen", Outcome.OK): 1}
    assert counts.durations == {}


async def test_notification_has_no_duration():
    counts = CallCounts()
    await finish(counts, is_request=False)
    assert counts.durations == {}


async def test_request_that_was_not_sent_on_has_no_duration():
    counts = CallCounts()
    await finish(counts, handed_at=None)
    assert counts.durations == {}


async def test_request_without_a_message_is_no_call():
    counts = CallCounts()
    await finish(counts, None, 403)
    assert (counts.requests, counts.calls) == ({("POST", "403"): 1}, {})


async def test_message_on_a_pipe_is_a_call_and_no_request():
    counts = CallCounts()
    await finish(counts, path="")
    assert (counts.requests, len(counts.calls)) == ({}, 1)


async def test_failures_of_the_store_are_counted():
    counts = CallCounts()
    await finish(counts, None, 503, outcome=Outcome.STORE_ERROR, error="StoreUnavailable")
    assert counts.store_errors == 1


async def test_events_are_counted_as_they_pass():
    counts = CallCounts()
    counts.pass_events(CallRecord("GET", "/mcp", None, ()), 4)
    assert counts.events == 4


@pytest.mark.parametrize("count", [1000])
async def test_whatever_is_said_there_is_an_end_to_names(count):
    """Hostile methods, HTTP methods and statuses."""
    counts = CallCounts()
    for n in range(count):
        await finish(counts, f"method/{n}", n, f"VERB{n}", f"/path/{n}")
    assert len(counts.requests) < 80
    assert {method for method, _ in counts.requests} == {"other"}
    assert {(upstream, method) for upstream, method, _ in counts.calls} == {("default", "other")}
    assert set(counts.durations) == {("default", "other")}
