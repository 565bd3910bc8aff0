"""What a `FailoverStore` is told, and what it tells."""

from __future__ import annotations

import attrs

from .breaker import BreakerConfig


@attrs.frozen(kw_only=True)
class FailoverConfig:
    """How long to wait for the primary, and how much to keep without it."""

    primary_timeout: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """Seconds after which a call that the primary does not answer has failed."""

    retry_interval: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """Seconds between two attempts to write what is pending, while the breaker is not open."""

    flush_timeout: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    """Seconds that writing what is pending may take at the end."""

    max_copies: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """Sessions that are remembered in case the primary fails."""

    max_pending: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    """Sessions, times, event ids and frames that wait for the primary; beyond, writes raise `StoreUnavailable`."""

    breaker: BreakerConfig = attrs.field(factory=BreakerConfig)


@attrs.frozen
class FailoverStatistics:
    """What has gone wrong so far, and what was done about it."""

    is_degraded: bool
    """Whether the primary is not asked, or has yet to be told something."""
    failures: int
    """Calls that the primary did not answer."""
    fallbacks: int
    """Calls that were answered from memory instead."""
    pushed: int
    """Writes that reached the primary later."""
    conflicts: int
    """Sessions that somebody else had updated or ended meanwhile, or that the primary would not take."""
    pending: int
    """Writes that the primary has yet to be told of."""
