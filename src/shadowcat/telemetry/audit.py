"""The audit log: who was let in or not, and what was done to the proxy."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from .. import errors
from ..record import CallRecord, Observer, Outcome, digest, printable
from .access import timestamp
from .config import AuditLogConfig
from .json_lines import JsonLines, open_json_lines

_PID = os.getpid()

Fields = Mapping[str, object]


class AuditEvent(enum.Enum):
    """What is written down.  A closed set."""

    PROXY_STARTED = "proxy_started"
    PROXY_STOPPED = "proxy_stopped"
    SESSION_OPENED = "session_opened"
    SESSION_ENDED = "session_ended"
    REQUEST_REFUSED = "request_refused"
    """By the proxy: for its origin, its host, its credentials or a limit."""
    CIRCUIT_CHANGED = "circuit_changed"
    CONFIGURATION_RELOADED = "configuration_reloaded"
    ADMIN_ACTION = "admin_action"


_PASSING = frozenset({AuditEvent.CIRCUIT_CHANGED})
"""What is left out rather than waited for."""

_LIMIT = "limit"
_REASONS: Mapping[type[Exception], str] = {errors.ForbiddenOrigin: "origin", errors.MisdirectedHost: "host"}


class AuditLog(Observer):
    """Writes down events, and has whoever causes them wait while the disk does not keep up, for a limited time."""

    def __init__(self, lines: JsonLines[Fields], wait_timeout: float) -> None:
        self.lines = lines
        self._wait_timeout = wait_timeout

    async def note(self, event: AuditEvent, **fields: object) -> None:
        """Write down *event*.

        Waits for a limited time while too much waits for the disk; then the event is left out, counted
        and logged.  Cancel safe: the event may not be written down.

        Args:
            fields: What else is to be said: values that JSON has, and no secrets.
        """
        await self._write(event, fields, is_waited_for=event not in _PASSING)

    async def refuse(self, record: CallRecord, error: Exception) -> None:
        """Write down a request that was not let in."""
        if record.outcome is Outcome.LIMITED:
            reason = _LIMIT
        elif (found := _REASONS.get(type(error))) is not None:
            reason = found
        else:
            return
        fields: dict[str, object] = {
            "reason": reason,
            "client": record.client,
            "path": printable(record.path, 256),
            "error": type(error).__name__,
        }
        if record.session_id is not None:
            fields["session"] = digest(record.session_id)
        # Of limits there may be as many as there are requests, which are to cost little.
        await self._write(AuditEvent.REQUEST_REFUSED, fields, is_waited_for=reason != _LIMIT)

    async def _write(self, event: AuditEvent, fields: Fields, *, is_waited_for: bool) -> None:
        line = {"time": timestamp(time.time()), "pid": _PID, "event": event.value, **fields}
        if is_waited_for:
            await self.lines.put_patiently(line, self._wait_timeout)
        else:
            self.lines.put(line)


@asynccontextmanager
async def open_audit_log(config: AuditLogConfig) -> AsyncGenerator[AuditLog, None]:
    """Open the log for as long as the block lasts; what waits is then written.

    Raises:
        ConfigError: The file cannot be opened.
    """
    lines: JsonLines[Fields]
    async with open_json_lines(config, dict, is_kept=True) as lines:
        yield AuditLog(lines, config.wait_timeout)
