"""Ending what is under way when the proxy shuts down."""

from __future__ import annotations

from types import TracebackType

import trio

from ..errors import Draining, UpstreamAbandoned


def draining_error() -> Draining:
    """Return what a client is told whose request cannot be served any more."""
    return Draining("the proxy is shutting down; send the request again in a few seconds")


def abandoned_error() -> UpstreamAbandoned:
    """Return what a client is told whose request the upstream has, and who will not see the answer."""
    return UpstreamAbandoned(
        "the proxy is shutting down and the upstream may still act on the request; check before sending it again"
    )


class Drain:
    """What is under way, and how it ends.

    `begin` ends the streams on which a client merely listens, and has new
    requests refused; `finish` ends the calls that are still not answered.
    Neither waits.  Whoever runs inside `call` or `listen` tells its client and
    returns when its scope is cancelled.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._calls: set[trio.CancelScope] = set()
        self._listeners: set[trio.CancelScope] = set()

    @property
    def under_way(self) -> int:
        """How many calls and listening streams there are now."""
        return len(self._calls) + len(self._listeners)

    @property
    def listening(self) -> int:
        """How many of those are streams on which a client merely listens."""
        return len(self._listeners)

    def begin(self) -> None:
        """Refuse what is new, end what only listens."""
        self.is_draining = True
        _cancel_all(self._listeners)

    def finish(self) -> None:
        """End the calls too."""
        _cancel_all(self._calls)

    def call(self) -> Tracked:
        """Return the scope in which one call is to be answered."""
        return Tracked(self._calls)

    def listen(self) -> Tracked:
        """Return the scope for a stream that may stay open for ever."""
        return Tracked(self._listeners)


class Tracked:
    """A cancel scope that is in a set for as long as it is entered."""

    __slots__ = ("_scope", "_scopes")

    def __init__(self, scopes: set[trio.CancelScope]) -> None:
        self._scopes = scopes
        self._scope = trio.CancelScope()

    def __enter__(self) -> trio.CancelScope:
        self._scopes.add(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._scopes.discard(self._scope)
        return self._scope.__exit__(kind, error, trace)


def _cancel_all(scopes: set[trio.CancelScope]) -> None:
    for scope in scopes:
        scope.cancel()
