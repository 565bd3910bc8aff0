"""A line of the access log."""

import json
import os

import msgspec
import pytest

from shadowcat.protocol import Notification, Request
from shadowcat.record import CallRecord, Outcome
from shadowcat.telemetry import AccessLogConfig, open_access_log
from shadowcat.telemetry.access import name_of, render, timestamp


async def make_record(**values):
    record = CallRecord("POST", "/mcp", "192.0.2.1", ())
    record.time, record.started_at, record.ended_at = 1700000000.5, 10.0, 10.25
    for name, value in values.items():
        setattr(record, name, value)
    return record


async def test_line_of_a_call_says_all_of_it():
    record = await make_record(
        method="tools/call",
        upstream="default",
        session_id=b"secret",
        handed_at=10.05,
        answered_at=10.15,
        status=504,
        outcome=Outcome.TIMEOUT,
        error="UpstreamTimeout",
        bytes_in=5,
        bytes_out=6,
        events=7,
        trace_id="ab",
    )
    line = render((record, "add"))
    assert line.pop("pid") == os.getpid()
    assert line == {
        "time": "2023-11-14T22:13:20.500Z",
        "client": "192.0.2.1",
        "http_method": "POST",
        "path": "/mcp",
        "status": 504,
        "outcome": "timeout",
        "duration": 0.25,
        "bytes_in": 5,
        "bytes_out": 6,
        "method": "tools/call",
        "upstream": "default",
        "name": "add",
        "session": "2bb80d537b1d",
        "upstream_duration": 0.1,
        "events": 7,
        "error": "UpstreamTimeout",
        "trace_id": "ab",
    }


async def test_line_of_a_request_without_a_message_has_no_more_than_it_knows():
    line = render((await make_record(status=404, outcome=Outcome.REFUSED), ""))
    assert not {"method", "upstream", "name", "session", "upstream_duration", "events", "error"} & set(line)


async def test_hostile_names_are_short_and_can_be_encoded():
    record = await make_record(method="m" * 10000, path="/\ud800" + "p" * 10000, http_method="X" * 10000)
    text = msgspec.json.encode(render((record, "")))
    assert len(text) < 1000
    assert json.loads(text)["path"].startswith("/\\ud800ppp")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (None, ""),
        (Request(b"1", "tools/call", b'{"name":"add"}'), "add"),
        (Request(b"1", "tools/call", b'{"name":"' + b"a" * 1000 + b'"}'), "a" * 128),
        (Notification("notifications/cancelled", b'{"name":"add"}'), ""),
    ],
)
async def test_name_is_that_of_a_tool_or_prompt(message, name):
    assert name_of(await make_record(message=message)) == name


async def test_log_has_a_line_for_each_exchange_that_is_over(tmp_path):
    async with open_access_log(AccessLogConfig(path=str(tmp_path / "a"))) as log:
        for status in (200, 202):
            log.finish(await make_record(status=status))
    assert [json.loads(line)["status"] for line in (tmp_path / "a").read_text().splitlines()] == [200, 202]


def test_times_are_utc_to_the_millisecond():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
