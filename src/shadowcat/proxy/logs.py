"""What a proxy writes down of itself, and the spans that it sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import ConfigError
from ..record import digest
from ..resilience import CircuitState
from ..session import EndReason, Session, SessionId, SessionJournal
from ..telemetry import AccessLogConfig, AuditLogConfig, TracingConfig
from ..upstreams import UpstreamSet
from .observers import Observers

if TYPE_CHECKING:
    from ..telemetry import AuditLog

_LOOK_INTERVAL = 1.0
"""Seconds between two looks at circuits."""

_NO_OTEL = "to send spans, install Shadowcat with OpenTelemetry: pip install 'shadowcat[otel]'"


@asynccontextmanager
async def open_logs(
    access: AccessLogConfig | None, audit: AuditLogConfig | None, tracing: TracingConfig | None, observers: Observers
) -> AsyncGenerator[AuditLog | None, None]:
    """Have *observers* write down what is to be, for as long as the block lasts; yield the audit log if there is one.

    What waits to be written is written at the end, for a few seconds at most.

    Raises:
        ConfigError: A file cannot be opened, or what spans need is not installed.
    """
    log: AuditLog | None = None
    async with AsyncExitStack() as stack:
        # Imported here, because few proxies have any of them.
        if audit is not None:
            log = await stack.enter_async_context(_open_audit(audit))
            stack.enter_context(observers.observing(log))
        if tracing is not None:
            # Before the access log, which tells the trace.
            try:
                from ..telemetry import open_tracing
            except ImportError as error:
                raise ConfigError(_NO_OTEL) from error
            tracer = await stack.enter_async_context(open_tracing(tracing))
            stack.enter_context(observers.observing(tracer))
        if access is not None:
            from ..telemetry import open_access_log

            access_log = await stack.enter_async_context(open_access_log(access))
            stack.enter_context(observers.observing(access_log))
        yield log


@asynccontextmanager
async def _open_audit(config: AuditLogConfig) -> AsyncGenerator[AuditLog, None]:
    """Open the log, and write down that the proxy starts, and stops."""
    from importlib.metadata import version

    from ..telemetry import AuditEvent, open_audit_log

    async with open_audit_log(config) as log:
        await log.note(AuditEvent.PROXY_STARTED, version=version("shadowcat"))
        try:
            yield log
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + config.wait_timeout):
                await log.note(AuditEvent.PROXY_STOPPED)


@asynccontextmanager
async def auditing_circuits(
    audit: AuditLog | None, sets: Callable[[], Mapping[str, UpstreamSet]]
) -> AsyncGenerator[None, None]:
    """Have circuits written down that open and close, for as long as the block lasts."""
    if audit is None:
        yield
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit_circuits, audit, sets)
        yield
        nursery.cancel_scope.cancel()


async def audit_circuits(audit: AuditLog, sets: Callable[[], Mapping[str, UpstreamSet]]) -> None:
    """Write down how circuits change, until cancelled; what passes within a second is not seen."""
    from ..telemetry import AuditEvent

    known: dict[tuple[str, str], CircuitState] = {}
    while True:
        # A copy, because servers may come and go while one is written down.
        for name, found in list(sets().items()):
            for each in found.statistics().endpoints:
                before = known.setdefault((name, each.name), CircuitState.CLOSED)
                if before is not each.circuit:
                    known[name, each.name] = each.circuit
                    states = {"before": before.value, "after": each.circuit.value}
                    await audit.note(AuditEvent.CIRCUIT_CHANGED, upstream=name, endpoint=each.name, **states)
        await trio.sleep(_LOOK_INTERVAL)


def audit_sessions(audit: AuditLog, journal: SessionJournal) -> None:
    """Have sessions written down when they are opened and ended."""
    from ..telemetry import AuditEvent

    async def opened(session: Session) -> None:
        await audit.note(
            AuditEvent.SESSION_OPENED,
            session=digest(session.id),
            upstream=session.upstream_name,
            version=session.protocol_version[:32],
        )

    async def ended(session_id: SessionId, reason: EndReason) -> None:
        await audit.note(AuditEvent.SESSION_ENDED, session=digest(session_id), reason=reason.value)

    journal.on_opened, journal.on_ended = opened, ended
