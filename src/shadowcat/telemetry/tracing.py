"""A span for each call, by OpenTelemetry.

Imported only where spans are sent: OpenTelemetry takes long to import.  Names and attributes are
those of its semantic conventions for MCP; a session is called by its digest there too.

The trace goes on from the ``_meta`` of the message, as those conventions have it, or else from the
``traceparent`` header.  Upstream it goes in the header alone: bodies pass unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Status, StatusCode, TraceFlags, TraceState

from ..protocol import (
    PROTOCOL_VERSION,
    TOOLS_CALL,
    Batch,
    Message,
    Response,
    SpanContext,
    context_in_meta,
    parse_traceparent,
    target_of,
)
from ..record import CallRecord, Headers, Observer, Outcome, digest, printable
from .config import TracingConfig

_TRACEPARENT, _TRACESTATE = b"traceparent", b"tracestate"

_FINE = frozenset({Outcome.OK, Outcome.CLIENT_LEFT})
"""What is no error of the call."""

_FLUSH_TIMEOUT = 5.0
"""Seconds that the last spans have to be sent when the proxy stops."""


class Tracer(Observer):
    """Makes spans, and has the upstream go on with the trace."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(self, record: CallRecord, headers: Headers, message: Message | Batch) -> Headers:
        """Begin a span for a message, and return the *headers* with its context in them."""
        inner = None if isinstance(message, Batch | Response) else context_in_meta(message.params)
        outer = _context_in(headers)
        parent = outer if inner is None else inner
        is_linked = inner is not None and outer is not None
        span = self._tracer.start_span(
            _name_of(record, message),
            context=None if parent is None else trace.set_span_in_context(NonRecordingSpan(_remote(parent))),
            kind=SpanKind.SERVER,
            attributes=_attributes(record, headers, message),
            links=[Link(_remote(outer))] if is_linked and outer is not None else None,
            start_time=int(record.time * 1e9),
        )
        record.span = span
        own = span.get_span_context()
        record.trace_id = f"{own.trace_id:032x}"
        passed = dict(headers)
        passed[_TRACEPARENT] = b"00-%032x-%016x-%02x" % (own.trace_id, own.span_id, own.trace_flags)
        if state := own.trace_state.to_header():
            passed[_TRACESTATE] = state.encode("latin-1")
        else:
            passed.pop(_TRACESTATE, None)
        return passed

    def finish(self, record: CallRecord) -> None:
        """End the span of an exchange, if it has one."""
        span, record.span = record.span, None
        if span is None:
            return
        if span.is_recording():
            _conclude(span, record)
        span.end(int((record.time + record.duration) * 1e9))


def _conclude(span: trace.Span, record: CallRecord) -> None:
    span.set_attribute("http.response.status_code", record.status)
    span.set_attribute("shadowcat.outcome", record.outcome.value)
    if record.upstream_time is not None:
        span.set_attribute("shadowcat.upstream.duration", record.upstream_time)
    if record.session_id is not None:
        span.set_attribute("mcp.session.id", digest(record.session_id))
    if record.outcome not in _FINE:
        span.set_attribute("error.type", record.error or record.outcome.value)
        span.set_status(Status(StatusCode.ERROR))


def _name_of(record: CallRecord, message: Message | Batch) -> str:
    target = "" if isinstance(message, Batch | Response) else printable(target_of(message.method, message.params))
    return f"{record.label} {target}" if target else record.label


def _attributes(record: CallRecord, headers: Headers, message: Message | Batch) -> dict[str, str]:
    attributes = {
        "mcp.method.name": printable(record.method or ""),
        "network.transport": "tcp" if record.path else "pipe",
        "shadowcat.upstream.name": record.upstream or "",
    }
    if record.client is not None:
        attributes["client.address"] = record.client
    if record.request_id is not None:
        attributes["jsonrpc.request.id"] = printable(record.request_id.decode(errors="replace").strip('"'))
    if (version := headers.get(PROTOCOL_VERSION)) is not None:
        attributes["mcp.protocol.version"] = printable(version.decode("latin-1"), 32)
    if isinstance(message, Batch | Response):
        return attributes
    if target := printable(target_of(message.method, message.params)):
        if message.method == TOOLS_CALL:
            attributes["gen_ai.operation.name"] = "execute_tool"
            attributes["gen_ai.tool.name"] = target
        else:
            attributes["gen_ai.prompt.name"] = target
    return attributes


def _context_in(headers: Headers) -> SpanContext | None:
    value = headers.get(_TRACEPARENT)
    if value is None:
        return None
    return parse_traceparent(value.decode("latin-1"), headers.get(_TRACESTATE, b"").decode("latin-1"))


def _remote(context: SpanContext) -> trace.SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return trace.SpanContext(context.trace_id, context.span_id, True, TraceFlags(context.flags & 3), state)


@asynccontextmanager
async def open_tracing(config: TracingConfig, exporter: SpanExporter | None = None) -> AsyncGenerator[Tracer, None]:
    """Make spans for as long as the block lasts; those that wait are then sent, for a few seconds at most.

    Args:
        exporter: Gets each span at once, instead of a collector now and then.
    """
    processor = _batching(config) if exporter is None else SimpleSpanProcessor(exporter)
    provider = TracerProvider(
        resource=Resource.create({"service.name": config.service_name}),
        sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor)
    try:
        yield Tracer(provider.get_tracer("shadowcat"))
    finally:
        with trio.move_on_after(_FLUSH_TIMEOUT, shield=True):
            flush = partial(provider.force_flush, int(_FLUSH_TIMEOUT * 1000))
            await trio.to_thread.run_sync(flush, abandon_on_cancel=True)
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


def _batching(config: TracingConfig) -> SpanProcessor:
    # It starts a thread of its own, which does all the sending.
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=config.endpoint))
