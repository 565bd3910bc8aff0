"""Values of ours, as JSON that says no more than somebody outside may know."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import trio

from ..session import EventStream, Session, SessionManager
from ..upstreams import Endpoint
from .key import key_of

_MAX_TEXT = 200
"""Characters of what a client or a server says about itself."""


def plain(value: Any) -> Any:
    """Return a snapshot, of whatever fields, as JSON."""
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def time_of(seconds: float) -> str | None:
    """Return seconds since the Unix epoch as RFC 3339 has it; None if that is never."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return None


def view_session(session: Session, sessions: SessionManager) -> dict[str, Any]:
    """Return what a listing shows of *session*."""
    presence = sessions.presence_of(session.id)
    last_activity = last_activity_of(session, sessions)
    return {
        "key": key_of(session.id),
        "server": session.upstream_name,
        "protocol_version": session.protocol_version[:_MAX_TEXT],
        "client": _view_software(session.initialize_params.get("clientInfo")),
        "created_at": time_of(session.created_at),
        "last_activity": time_of(last_activity),
        "idle_seconds": round(max(0.0, sessions.now() - last_activity), 3),
        "expires_at": time_of(session.expires_at),
        "is_here": presence is not None,
        "streams": 0 if presence is None else len(presence.streams),
    }


def view_session_in_full(session: Session, sessions: SessionManager) -> dict[str, Any]:
    """Return everything that may be known of *session*."""
    presence = sessions.presence_of(session.id)
    return {
        **view_session(session, sessions),
        "server_info": _view_software(session.initialize_result.get("serverInfo")),
        "client_capabilities": _names(session.initialize_params.get("capabilities")),
        "server_capabilities": _names(session.initialize_result.get("capabilities")),
        "principal": None if session.principal is None else _text(session.principal),
        "has_upstream_session": session.upstream_session_id is not None,
        "response_mode": None if session.response_mode is None else session.response_mode.value,
        "transport": session.transport_type.value,
        "revision": session.revision,
        "requests_under_way": None if presence is None else presence.in_use,
        "open_streams": [] if presence is None else [view_stream(stream) for stream in presence.streams.values()],
    }


def last_activity_of(session: Session, sessions: SessionManager) -> float:
    """Return when *session* was last used, as far as the store and this process know."""
    presence = sessions.presence_of(session.id)
    if presence is None:
        return session.last_activity
    if presence.in_use:
        return sessions.now()
    return max(session.last_activity, sessions.now() - trio.current_time() + presence.last_used)


def view_stream(stream: EventStream) -> dict[str, Any]:
    """Return what may be known of *stream*."""
    log = stream.log
    return {
        "key": key_of(stream.key.stream_id),
        "session": key_of(stream.key.session_id),
        "kind": stream.kind.value,
        "position": log.position,
        "events_kept": log.position - log.floor,
        "bytes_kept": log.size,
        "is_attended": stream.is_attended,
        "is_parked": stream.is_parked,
        "is_ended": stream.is_ended,
    }


def view_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Return how *endpoint* is doing."""
    return {
        "name": endpoint.name,
        "health": endpoint.health.value,
        "circuit": endpoint.circuit.state.value,
        "circuit_opened": endpoint.circuit.opened,
        "retry_after_seconds": round(endpoint.circuit.retry_after, 3),
        "is_draining": endpoint.is_draining,
        "weight": endpoint.weight,
        "in_flight": endpoint.in_flight,
        "requests": endpoint.requests,
        "failures": endpoint.failures,
    }


def _view_software(info: object) -> dict[str, str | None] | None:
    if not isinstance(info, Mapping):
        return None
    return {"name": _text_or_none(info.get("name")), "version": _text_or_none(info.get("version"))}


def _names(capabilities: object) -> list[str]:
    return sorted(_text(name) for name in list(capabilities)[:100]) if isinstance(capabilities, Mapping) else []


def _text_or_none(value: object) -> str | None:
    return _text(value) if isinstance(value, str) else None


def _text(value: object) -> str:
    """Return what somebody else has written, short, and with what JSON cannot hold escaped."""
    return str(value)[:_MAX_TEXT].encode(errors="backslashreplace").decode()
