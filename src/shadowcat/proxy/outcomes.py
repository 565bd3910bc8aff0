"""What an error says of how an exchange ended: the only such table."""

from __future__ import annotations

from collections.abc import Mapping

from .. import errors
from ..record import Outcome

OUTCOMES: Mapping[type[Exception], Outcome] = {
    Exception: Outcome.FAILED,
    errors.ProtocolError: Outcome.REFUSED,
    errors.RemoteProtocolError: Outcome.BROKEN,
    errors.StreamBroken: Outcome.BROKEN,
    errors.RequestError: Outcome.REFUSED,
    errors.TooManyRequests: Outcome.LIMITED,
    errors.ClientDisconnected: Outcome.CLIENT_LEFT,
    errors.SessionError: Outcome.NO_SESSION,
    errors.SessionLimitReached: Outcome.LIMITED,
    errors.StoreError: Outcome.STORE_ERROR,
    errors.Draining: Outcome.SHUTDOWN,
    errors.UpstreamError: Outcome.UPSTREAM_ERROR,
    errors.UpstreamUnavailable: Outcome.UNAVAILABLE,
    errors.UpstreamDisconnected: Outcome.BROKEN,
    errors.UpstreamTimeout: Outcome.TIMEOUT,
    errors.UpstreamAbandoned: Outcome.SHUTDOWN,
    errors.UpstreamRedirected: Outcome.BROKEN,
}


def outcome_of(error: Exception) -> Outcome:
    """Return the outcome for the nearest ancestor of *error* that has one."""
    return next(OUTCOMES[cls] for cls in type(error).__mro__ if cls in OUTCOMES)
