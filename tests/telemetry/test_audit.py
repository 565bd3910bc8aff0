"""What is written down, and who waits for it."""

import json

import pytest
import trio

from shadowcat.errors import ForbiddenOrigin, InvalidRequest, MisdirectedHost, SessionLimitReached, TooManyRequests
from shadowcat.record import CallRecord, Outcome
from shadowcat.telemetry import AuditEvent, AuditLog, AuditLogConfig, open_audit_log
from shadowcat.telemetry.config import LogFileConfig
from shadowcat.telemetry.json_lines import JsonLines


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_event_is_written_with_what_is_said_of_it(tmp_path):
    async with open_audit_log(AuditLogConfig(path=str(tmp_path / "a"))) as log:
        await log.note(AuditEvent.ADMIN_ACTION, action="end_session", session="abc")
    (line,) = lines_of(tmp_path / "a")
    assert line.pop("time").endswith("Z")
    assert line.pop("pid") > 0
    assert line == {"event": "admin_action", "action": "end_session", "session": "abc"}


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (ForbiddenOrigin("a"), Outcome.REFUSED, "origin"),
        (MisdirectedHost("a"), Outcome.REFUSED, "host"),
        (TooManyRequests("a"), Outcome.LIMITED, "limit"),
        (SessionLimitReached("a"), Outcome.LIMITED, "limit"),
    ],
)
async def test_request_that_is_not_let_in_is_written_down(tmp_path, error, outcome, reason):
    record = CallRecord("POST", "/mcp", "192.0.2.1", ())
    record.outcome, record.session_id = outcome, b"secret"
    async with open_audit_log(AuditLogConfig(path=str(tmp_path / "a"))) as log:
        await log.refuse(record, error)
    (line,) = lines_of(tmp_path / "a")
    assert {"event": "request_refused", "reason": reason, "client": "192.0.2.1", "path": "/mcp"}.items() <= line.items()
    assert line["session"] == "2bb80d537b1d"


async def test_request_that_is_only_wrong_is_not(tmp_path):
    record = CallRecord("POST", "/mcp", "192.0.2.1", ())
    async with open_audit_log(AuditLogConfig(path=str(tmp_path / "a"))) as log:
        await log.refuse(record, InvalidRequest("a"))
    assert lines_of(tmp_path / "a") == []


@pytest.fixture
def full():
    """A log whose disk does not keep up: nobody writes, and there is no room."""
    lines = JsonLines(LogFileConfig(path="nowhere", max_queued=1), dict, is_kept=True)
    lines.put({})
    return AuditLog(lines, wait_timeout=2.0)


@pytest.mark.parametrize("event", AuditEvent)
async def test_what_matters_waits_for_the_disk_and_what_passes_does_not(autojump_clock, full, event):
    await full.note(event)
    assert trio.current_time() == (0.0 if event is AuditEvent.CIRCUIT_CHANGED else 2.0)
    assert full.lines.dropped == 1


async def test_flood_of_refusals_waits_for_nothing(autojump_clock, full):
    record = CallRecord("POST", "/mcp", "192.0.2.1", ())
    record.outcome = Outcome.LIMITED
    for _ in range(100):
        await full.refuse(record, TooManyRequests("a"))
    assert trio.current_time() == 0.0
    assert full.lines.dropped == 100
