"""Event ids, and the newest events of a stream.

A client sees ids that are made here.  Each is a *cursor*: it names a stream, a
position in it, and what the upstream has to be asked to go on from there.  So a
cursor is good even where nothing is known of it: after a restart, before what it
stands for was written to the store.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from ..errors import InvalidRequest
from .stream import LogLimits, StreamEvent, StreamId, StreamKind

_CURSOR: Final = re.compile(
    r"([al][A-Za-z0-9_-]{12})\.([0-9]{1,15})(?:-([1-9][0-9]{0,8}))?(e?)(?:\.([0-9]{1,9})\.([A-Za-z0-9_-]*))?"
)
_LETTERS: Final = {StreamKind.ANSWER: "a", StreamKind.LISTENING: "l"}
_KINDS: Final = {letter: kind for kind, letter in _LETTERS.items()}
_MAX_EMBEDDED: Final = 512
"""Bytes of an upstream id that a cursor holds; a longer one is only in the log."""

_MAX_UPSTREAM_ID: Final = 2048
"""Bytes of an id that is sent back; a longer one is as good as none."""

_MAX_POSITION: Final = 10**12
"""More events than any stream has."""

_ENTRY_FOOTPRINT: Final = 320
_LOG_FOOTPRINT: Final = 2400
"""Bytes that an entry and a stream take beside the blocks, measured on CPython 3.11."""

_SENDABLE: Final = re.compile(r"[!-~\x80-\U0010ffff](?:[ -~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?")


def new_stream_id(kind: StreamKind) -> StreamId:
    """Return the id of a new stream; its first letter tells the kind."""
    return StreamId(_LETTERS[kind] + secrets.token_urlsafe(9))


def read_upstream_id(value: bytes | None) -> str | None:
    """Return an upstream's event id if it can be sent back in a header; None if there is none, or it is no such."""
    if not value or len(value) > _MAX_UPSTREAM_ID:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if _SENDABLE.fullmatch(text) else None


@attrs.frozen
class ResumePoint:
    """Where an upstream can be asked to go on."""

    epoch: int
    """Which of the session's upstream sessions knows the id: it has a new one after each recovery."""

    upstream_id: str

    def encode(self) -> str:
        """Return the point as text for the store."""
        return f"{self.epoch}:{self.upstream_id}"

    @classmethod
    def decode(cls, text: str | None) -> ResumePoint | None:
        """Return what `encode` made into *text*; None for None, or if it is something else."""
        epoch, colon, upstream_id = (text or "").partition(":")
        return cls(int(epoch), upstream_id) if colon and epoch.isdecimal() else None


@attrs.frozen
class Cursor:
    """A place in a stream: all events up to a position have been seen."""

    stream_id: StreamId
    position: int
    resume: ResumePoint | None
    is_last: bool = False
    """Whether nothing comes after it: it is that of the answer."""

    fence: int = 1
    """Of the owner that gave it out (see `Ownership`): others may have had other events at the position."""

    @property
    def kind(self) -> StreamKind:
        """The kind of the stream."""
        return _KINDS[self.stream_id[0]]

    def encode(self) -> bytes:
        """Return the cursor as an event id."""
        fence = f"-{self.fence}" if self.fence > 1 else ""
        text = f"{self.stream_id}.{self.position}{fence}" + ("e" if self.is_last else "")
        if self.resume is not None and len(raw := self.resume.upstream_id.encode()) <= _MAX_EMBEDDED:
            text += f".{self.resume.epoch}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"
        return text.encode()


def parse_cursor(value: bytes) -> Cursor:
    """Return the cursor in a ``Last-Event-ID`` header.

    Raises:
        InvalidRequest: It is none of ours.
    """
    found = _CURSOR.fullmatch(value.decode("latin-1"))
    try:
        if found is not None and int(found[2]) <= _MAX_POSITION:
            stream_id, position, fence, end, epoch, encoded = found.groups()
            resume = None
            if encoded is not None:
                upstream_id = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
                resume = ResumePoint(int(epoch), upstream_id) if _SENDABLE.fullmatch(upstream_id) else None
            return Cursor(StreamId(stream_id), int(position), resume, end == "e", int(fence or 1))
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise InvalidRequest("Last-Event-ID was not given out here; open a stream without it")


class EventTracker:
    """Which ids the upstream has given to the events of one stream.

    Synchronous, so nothing comes between the look and the note.  Ids are compared
    within the stream only: another may have the same.

    Args:
        window: How many of the newest ids are remembered; at least as many as an
            upstream replays.
    """

    def __init__(self, window: int = 1000) -> None:
        self._window = window
        self._seen: dict[str, None] = {}
        self.last_event_id: str | None = None
        """The newest id recorded."""
        self.duplicates = 0

    def record(self, upstream_id: str) -> bool:
        """Note an id; return whether it is new."""
        if upstream_id in self._seen:
            self.duplicates += 1
            return False
        self._seen[upstream_id] = None
        self.last_event_id = upstream_id
        if len(self._seen) > self._window:
            del self._seen[next(iter(self._seen))]
        return True

    def reset(self) -> None:
        """Forget all ids: the upstream begins anew and may use them again."""
        self._seen.clear()
        self.last_event_id = None


@attrs.frozen
class LogEntry:
    """An event of a log, or a part of one that is too long to be held as a whole."""

    event: StreamEvent
    begins: bool = True
    ends: bool = True
    epoch: int = 0
    """Of the upstream session that the event came from: see `ResumePoint`."""

    @property
    def resume(self) -> ResumePoint | None:
        """Where the upstream goes on after the event; None if it gave it no id."""
        upstream_id = self.event.upstream_id
        return None if upstream_id is None else ResumePoint(self.epoch, upstream_id)


class EventLog:
    """The newest events of a stream, in memory.

    Entries are numbered from 0 as they come; what is beyond the limits goes, the
    oldest first, and never the newest, nor what the client that is there has yet to read.

    Args:
        position: That of the newest event there has been before.
    """

    def __init__(self, limits: LogLimits, position: int = 0) -> None:
        self._limits = limits
        self._entries: deque[LogEntry] = deque()
        self.size = 0
        """Bytes of the blocks kept."""
        self.first = 0
        """The number of the oldest entry kept."""
        self.floor = position
        """The newest position of which not all is kept: what is beyond can be replayed."""
        self.position = position
        """That of the newest event."""
        self.wanted: int | None = None
        """The number from which on a client reads; None if there is no client."""

    @property
    def footprint(self) -> int:
        """Bytes of memory that it takes, about."""
        return self.size + _ENTRY_FOOTPRINT * len(self._entries) + _LOG_FOOTPRINT

    @property
    def end(self) -> int:
        """The number that the next entry will have."""
        return self.first + len(self._entries)

    def append(self, entry: LogEntry) -> None:
        """Add an entry, of the newest event or a newer one."""
        self._entries.append(entry)
        self.size += len(entry.event.block)
        self.position = entry.event.position
        self._trim(entry.event.recorded_at)

    def pass_over(self, position: int) -> None:
        """Count on from *position*, if that is further: what there was up to it is gone."""
        if position > self.position:
            self.position = self.floor = position

    def trim(self, now: float) -> None:
        """Drop what is too old."""
        self._trim(now)

    def read(self, number: int, limit: int) -> Sequence[LogEntry]:
        """Return up to *limit* entries from *number* on."""
        entries = self._entries
        start = max(number - self.first, 0)
        # By index, which is quick at either end; to walk there would take the longer the more is kept.
        return [entries[index] for index in range(start, min(start + limit, len(entries)))]

    def events_after(self, position: int) -> Sequence[StreamEvent]:
        """Return the whole events beyond *position*, in order."""
        found: list[StreamEvent] = []
        for entry in reversed(self._entries):
            if entry.event.position <= position:
                break
            if entry.begins and entry.ends:
                found.append(entry.event)
        found.reverse()
        return found

    def resume_point(self, position: int) -> ResumePoint | None:
        """Return the newest upstream id of the events up to *position* that are kept."""
        for entry in reversed(self._entries):
            if entry.event.position <= position and entry.resume is not None:
                return entry.resume
        return None

    def find(self, position: int) -> int | None:
        """Return the number of the first entry beyond *position*; None if some of what is beyond is gone."""
        if position < self.floor:
            return None
        number = self.end
        for entry in reversed(self._entries):
            if entry.event.position <= position:
                break
            number -= 1
        return number

    def _trim(self, now: float) -> None:
        limits, entries = self._limits, self._entries
        while (
            len(entries) > 1
            and (self.wanted is None or self.first < self.wanted)
            and (
                len(entries) > limits.max_events
                or self.size > limits.max_bytes
                or entries[0].event.recorded_at < now - limits.max_age
            )
        ):
            gone = entries.popleft().event
            self.first += 1
            self.size -= len(gone.block)
            self.floor = max(self.floor, gone.position)
