"""The access log: a line for each exchange that is over."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from ..protocol import Batch, Response, target_of
from ..record import CallRecord, Observer, digest, printable
from .config import AccessLogConfig
from .json_lines import JsonLines, open_json_lines

_PID = os.getpid()


class AccessLog(Observer):
    """Writes down exchanges: none of their bodies, headers and queries, and no session id."""

    def __init__(self, lines: JsonLines[tuple[CallRecord, str]]) -> None:
        self.lines = lines

    def finish(self, record: CallRecord) -> None:
        """Have a line written."""
        self.lines.put((record, name_of(record)))


def name_of(record: CallRecord) -> str:
    """Return the tool or prompt that was asked for; empty if there is none.  Only before the exchange is over."""
    message = record.message
    if message is None or isinstance(message, Batch | Response):
        return ""
    return printable(target_of(message.method, message.params))


def render(entry: tuple[CallRecord, str]) -> dict[str, object]:
    """Return the line for an exchange; see docs/reference/logs.md."""
    record, name = entry
    line: dict[str, object] = {
        "time": timestamp(record.time),
        "pid": _PID,
        "client": record.client,
        "http_method": printable(record.http_method, 16),
        "path": printable(record.path, 256),
        "status": record.status,
        "outcome": record.outcome.value,
        "duration": round(record.duration, 6),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
    }
    if record.method is not None:
        line["method"] = printable(record.method)
        line["upstream"] = record.upstream
    if name:
        line["name"] = name
    if record.session_id is not None:
        line["session"] = digest(record.session_id)
    if record.upstream_time is not None:
        line["upstream_duration"] = round(record.upstream_time, 6)
    if record.events:
        line["events"] = record.events
    if record.error is not None:
        line["error"] = record.error
    if record.trace_id is not None:
        line["trace_id"] = record.trace_id
    return line


def timestamp(seconds: float) -> str:
    """Return a time in seconds since the Unix epoch for people, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@asynccontextmanager
async def open_access_log(config: AccessLogConfig) -> AsyncGenerator[AccessLog, None]:
    """Open the log for as long as the block lasts; what waits is then written.

    Raises:
        ConfigError: The file cannot be opened.
    """
    async with open_json_lines(config, render, is_kept=False) as lines:
        yield AccessLog(lines)
