"""How sessions are limited and kept."""

from __future__ import annotations

import math

import attrs

from .persistence import PersistenceConfig
from .streams import StreamConfig


@attrs.frozen(kw_only=True)
class SessionConfig:
    """Limits on legacy sessions, and how they are kept."""

    max_sessions: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """How many may be open at once; one more ``initialize`` is answered with 503."""

    max_idle: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0))
    """Seconds without a request or an open stream after which a session is ended."""

    max_age: float = attrs.field(default=math.inf, validator=attrs.validators.gt(0))
    """Seconds after which a session is ended even if it is used."""

    reap_interval: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds between two looks for sessions to end; fewer if ``max_idle`` is short."""

    max_pending_per_session: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    """0 turns writing behind off: last event ids are then not stored, times of use only before expiry."""

    persistence: PersistenceConfig = attrs.field(factory=PersistenceConfig)
    streams: StreamConfig = attrs.field(factory=StreamConfig)

    @property
    def touch_interval(self) -> float:
        """Seconds that the stored time of last use may lag behind."""
        return min(self.reap_interval, self.max_idle / 4)
