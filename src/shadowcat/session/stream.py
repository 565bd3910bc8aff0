"""Event streams, as they are kept: what a client may come back for.

A *stream* is the answer to one POST, or what one GET listens to.  It belongs to a
session and outlives the connections that carry it.  At any time one proxy, its
owner, reads it from the upstream and appends to it; others may read what is kept.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Sequence
from typing import NewType

import attrs

from .model import SessionId

StreamId = NewType("StreamId", str)
"""Names a stream in its session; visible ASCII without dots."""

OwnerId = NewType("OwnerId", str)
"""Names a running proxy among those that share a store; a restarted one has another."""


MAX_APPEND = 256 * 1024
"""Bytes of events that are stored at once; the rest follows."""


class StreamKind(enum.Enum):
    """How a stream began, and so when it is over."""

    ANSWER = "answer"
    """With a POST: over when the request is answered."""

    LISTENING = "listening"
    """With a GET: never over while the session lives."""


def new_owner_id() -> OwnerId:
    """Return an id that no other process has."""
    return OwnerId(secrets.token_urlsafe(12))


@attrs.frozen(kw_only=True)
class Ownership:
    """By what right a stream is appended to in the store."""

    owner: OwnerId
    fence: int = 1


@attrs.frozen
class StreamKey:
    """A stream among those of all sessions."""

    session_id: SessionId
    stream_id: StreamId


@attrs.frozen
class StreamEvent:
    """One event of a stream that has data."""

    position: int
    """Counts the events of its stream, from 1; larger for each, usually by one."""

    upstream_id: str | None
    """The id that the upstream gave it, if any."""

    block: bytes
    """The event as it was sent, without its id lines and the empty line at its end."""

    recorded_at: float
    """Seconds since the Unix epoch."""


@attrs.frozen(kw_only=True)
class LogLimits:
    """How much of its streams a session may have kept.  What is oldest goes first."""

    max_events: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Events of one stream."""

    max_bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of the blocks of one stream; the newest event is kept however long it is."""

    max_age: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    """Seconds that an event is kept, and a stream after it has ended."""

    max_streams: int = attrs.field(default=128, validator=attrs.validators.ge(1))
    """Streams of one session; those that have ended go first."""


@attrs.frozen(kw_only=True)
class StreamAppend:
    """What the owner of a stream adds to what is kept of it."""

    key: StreamKey
    owner: OwnerId
    fence: int
    """The one that `SessionStore.claim_stream` returned; 1 for a stream that the owner began."""

    kind: StreamKind
    request_id: bytes | None = None
    """The JSON text of the client's id for the request that is being answered."""

    sent_id: bytes | None = None
    """The id that the request went upstream with."""

    appended_at: float
    """Seconds since the Unix epoch."""

    events: Sequence[StreamEvent] = ()
    """In order, newer than all before; there may be a gap to those."""

    last_position: int = 0
    """That of the newest event there has been, kept or not."""

    resume_id: str | None = None
    """The newest upstream id seen, with data or without: where the upstream can be asked to go on."""

    is_ended: bool = False
    """Whether nothing more will come."""

    is_released: bool = False
    """Whether the stream may be claimed by others from now on."""

    @property
    def newest_position(self) -> int:
        """`last_position`, or that of the newest event here if that is larger."""
        return max(self.last_position, self.events[-1].position) if self.events else self.last_position


@attrs.frozen(kw_only=True)
class StreamRecord:
    """What is kept of a stream beside its events; as in the newest `StreamAppend`.

    The newest is the last to arrive whose `StreamAppend.newest_position` is not
    behind; and what has ended stays so.
    """

    key: StreamKey
    owner: OwnerId | None
    """Who may append; None if nobody alive."""

    fence: int
    """Grows each time that the stream is claimed."""

    kind: StreamKind
    request_id: bytes | None
    sent_id: bytes | None
    last_position: int
    resume_id: str | None
    is_ended: bool


@attrs.frozen
class StreamSlice:
    """A stream, and some of its events."""

    record: StreamRecord
    events: Sequence[StreamEvent]


def first_of(events: Sequence[StreamEvent], newest: int) -> tuple[Sequence[StreamEvent], int]:
    """Return as many of *events* as are stored at once, and the position they reach."""
    size = 0
    for index, event in enumerate(events):
        size += len(event.block)
        if size > MAX_APPEND and index:
            return tuple(events[:index]), events[index - 1].position
    return tuple(events), newest
