"""A legacy session, as it is kept."""

from __future__ import annotations

import enum
import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, NewType

import attrs

from ..protocol import ResponseMode

EPOCH = "shadowcat.epoch"
"""The key in a session's metadata that counts the upstream sessions it has had."""

_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]{1,256}")

SessionId = NewType("SessionId", str)
"""Our id for a session: the one the client sees."""

UpstreamSessionId = NewType("UpstreamSessionId", str)
"""The upstream's id for a session.  Opaque: never parsed, never shown to a client."""


class TransportType(enum.Enum):
    """How the client reached us."""

    STREAMABLE_HTTP = "streamable_http"
    HTTP_SSE = "http_sse"
    WEBSOCKET = "websocket"
    STDIO = "stdio"


class SessionState(enum.Enum):
    """How far a session has come."""

    INITIALIZING = "initializing"
    """``initialize`` has been answered, ``notifications/initialized`` not been seen."""

    ACTIVE = "active"


def new_session_id() -> SessionId:
    """Return an id that cannot be guessed: 192 random bits, in visible ASCII."""
    return SessionId(secrets.token_urlsafe(24))


def parse_session_id(value: bytes) -> SessionId | None:
    """Return the id in a client's header, or None if no session can have it."""
    return SessionId(value.decode("ascii")) if _VISIBLE_ASCII.fullmatch(value) else None


@attrs.frozen(kw_only=True)
class Session:
    """What two requests of one client have in common.

    Never changed: an update is another value with the same id (`attrs.evolve`).
    """

    id: SessionId
    upstream_session_id: UpstreamSessionId | None = None
    """None if the upstream keeps no sessions."""

    transport_type: TransportType = TransportType.STREAMABLE_HTTP
    response_mode: ResponseMode | None = None
    """How the last answer was relayed; None before the first."""

    protocol_version: str = ""
    """The revision that ``initialize`` settled on."""

    initialize_params: Mapping[str, Any] = attrs.field(factory=dict)
    """What the client said: version, capabilities, client info and the rest."""

    initialize_result: Mapping[str, Any] = attrs.field(factory=dict)
    """What the upstream answered."""

    state: SessionState = SessionState.INITIALIZING
    upstream_name: str = "default"
    """Which of several upstreams serves it."""

    principal: str | None = None
    """Whom the client spoke for when it opened the session; None if nobody asked."""

    created_at: float = 0.0
    """Seconds since the Unix epoch."""

    last_activity: float = 0.0
    """Seconds since the Unix epoch.  Not under `revision`: see `SessionStore.touch_sessions`."""

    expires_at: float = math.inf
    """Seconds since the Unix epoch, after which anybody may end it.  Not under `revision`."""

    metadata: Mapping[str, str] = attrs.field(factory=dict)
    """Whatever else is to be remembered; keys of ours begin with ``shadowcat.``."""

    revision: int = 0
    """Counts updates.  The store compares it, so that none is lost."""

    unknown: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields that a newer version wrote, kept as they are."""


def epoch_of(session: Session) -> int:
    """Return how many upstream sessions *session* had before the present one."""
    value = session.metadata.get(EPOCH, "0")
    return int(value) if value.isdecimal() else 0
