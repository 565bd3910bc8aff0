"""W3C trace context, as HTTP headers and the ``_meta`` of a message carry it (MCP 2026-07-28, ``_meta``)."""

from __future__ import annotations

import re
from typing import Final

import attrs
import msgspec

from .methods import TARGET_PARAMS

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
TRACE_CONTEXT: Final = (TRACEPARENT, TRACESTATE, b"baggage")
"""The headers that carry it.  No credentials."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MAX_STATE = 512
"""Characters of ``tracestate`` that are passed on, as the recommendation has it."""


@attrs.frozen
class SpanContext:
    """Where a trace comes from."""

    trace_id: int
    span_id: int
    flags: int
    state: str = ""
    """The value of ``tracestate``; empty if there is none, or it is too long."""


class _Meta(msgspec.Struct):
    traceparent: str = ""
    tracestate: str = ""


class _TracedParams(msgspec.Struct):
    meta: _Meta | None = msgspec.field(default=None, name="_meta")


class _NamedParams(msgspec.Struct):
    name: str = ""


_decode_traced = msgspec.json.Decoder(_TracedParams).decode
_decode_named = msgspec.json.Decoder(_NamedParams).decode


def parse_traceparent(value: str, state: str = "") -> SpanContext | None:
    """Return what *value* says; None if it is malformed, and a new trace is to be begun."""
    found = _TRACEPARENT.fullmatch(value.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    kept = state if len(state) <= _MAX_STATE else ""
    return SpanContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), kept)


def context_in_meta(params: bytes) -> SpanContext | None:
    """Return the context in the ``_meta`` of a message's params; None if there is none, or it is malformed."""
    if b"traceparent" not in params:
        return None
    try:
        meta = _decode_traced(params).meta
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if meta is None else parse_traceparent(meta.traceparent, meta.tracestate)


def target_of(method: str, params: bytes) -> str:
    """Return the tool or prompt that a message is for; empty if it is for none.

    Never the URI of a resource, which may have a secret in it.
    """
    if method not in TARGET_PARAMS:
        return ""
    try:
        return _decode_named(params).name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
