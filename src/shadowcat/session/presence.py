"""What one process has under way in a session."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import attrs
import trio

from ..protocol import RawId, mint_id
from .event_stream import EventStream
from .model import Session, SessionId
from .stream import StreamId

_MAX_MINTED = 1000


@attrs.define(eq=False)
class Presence:
    """What this process has under way in one session."""

    created_at: float
    last_used: float
    """By trio's clock."""
    last_stored: float = -math.inf
    """Which use the store is known to have."""
    last_marked: float = -math.inf
    """Which use was handed to the persistence worker."""
    in_use: int = 0
    in_flight: dict[RawId, list[tuple[RawId, RawId]]] = attrs.field(factory=dict)
    """Of requests under way, the client's id and the one that went upstream."""
    minted: dict[RawId, RawId] = attrs.field(factory=dict)
    """The client's id for each of the latest that were replaced."""
    scopes: set[trio.CancelScope] = attrs.field(factory=set)
    """Cancelled when the session ends."""
    streams: dict[StreamId, EventStream] = attrs.field(factory=dict)

    def hold(self, request_id: RawId) -> HeldId:
        """Return the id under which a request goes upstream: its own, or another if that is in flight."""
        pairs = self.in_flight.setdefault(id_key(request_id), [])
        sent_id = request_id
        if pairs:
            sent_id = mint_id()
            self.minted[sent_id] = request_id
            if len(self.minted) > _MAX_MINTED:
                del self.minted[next(iter(self.minted))]
        pairs.append((request_id, sent_id))
        return HeldId(self, request_id, sent_id)


class HeldId:
    """A request's id for as long as the request is under way."""

    def __init__(self, presence: Presence, request_id: RawId, sent_id: RawId) -> None:
        self.request_id = request_id
        self.sent_id = sent_id
        """What the upstream knows it by."""
        self._presence = presence
        self._is_held = True

    def release(self) -> None:
        """Let others have the id.  Safe to call twice."""
        if self._is_held:
            self._is_held = False
            in_flight = self._presence.in_flight
            pairs = in_flight[id_key(self.request_id)]
            pairs.remove((self.request_id, self.sent_id))
            if not pairs:
                del in_flight[id_key(self.request_id)]


class Use:
    """A request in a session, for as long as it is entered.

    A class, because each call has one, and a generator takes longer.

    Args:
        note: Told of the use when it is over.
    """

    __slots__ = ("_note", "_presence", "_session_id")

    def __init__(self, presence: Presence, session_id: SessionId, note: Callable[[SessionId, Presence], None]) -> None:
        self._presence = presence
        self._session_id = session_id
        self._note = note

    def __enter__(self) -> None:
        self._presence.in_use += 1

    def __exit__(self, *_: object) -> None:
        self._presence.in_use -= 1
        self._note(self._session_id, self._presence)


class Presences:
    """What this process has under way, by session."""

    def __init__(self) -> None:
        self._presences: dict[SessionId, Presence] = {}

    def __len__(self) -> int:
        return len(self._presences)

    def __iter__(self) -> Iterator[Presence]:
        return iter(list(self._presences.values()))

    def items(self) -> Sequence[tuple[SessionId, Presence]]:
        """Return them as they are now, with the sessions they are of."""
        return list(self._presences.items())

    def get(self, session_id: SessionId) -> Presence | None:
        """Return what is under way in a session; None if nothing was of late."""
        return self._presences.get(session_id)

    def of(self, session: Session) -> Presence:
        """Return what is under way in *session*."""
        presence = self._presences.get(session.id)
        if presence is None:
            presence = self._presences[session.id] = Presence(session.created_at, trio.current_time())
        return presence

    def pop(self, session_id: SessionId) -> Presence | None:
        """Forget a session; return what was under way in it."""
        return self._presences.pop(session_id, None)


def id_key(request_id: RawId) -> RawId:
    """Return what ids that a careless server takes for the same have in common."""
    return request_id.strip(b'"')
