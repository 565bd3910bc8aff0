"""What every promise is checked with: two clients of one store, and a few verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs
import trio

from ...envelope import Direction, MessageEnvelope
from ...errors import SessionConflict, SessionExists, SessionNotFound, ShadowcatError
from ...session import (
    LogLimits,
    OwnerId,
    Session,
    SessionId,
    SessionStore,
    StreamAppend,
    StreamEvent,
    StreamId,
    StreamKey,
    StreamKind,
    StreamSlice,
)

NEVER = 1e12
"""A time after everything that is due in these checks."""


A = SessionId("a")
S = StreamId("s")
OWNER, OTHER = OwnerId("owner"), OwnerId("other")
LIMITS = LogLimits(max_bytes=1 << 24)


@attrs.frozen
class Clients:
    """Two proxies at one store, which is empty when a promise is checked."""

    one: SessionStore
    other: SessionStore
    """The same object as `one` if nobody else can open the store."""

    sessions: int
    """How many sessions are many."""

    def either(self, number: int) -> SessionStore:
        """Return one of the two in turn."""
        return self.other if number % 2 else self.one


def session_called(name: str, *, expires_at: float = NEVER) -> Session:
    """Return a session that is not due while the checks run."""
    return Session(id=SessionId(name), created_at=1.0, last_activity=1.0, expires_at=expires_at)


def frame_of(session_id: SessionId, text: str) -> MessageEnvelope:
    """Return a frame that carries *text*."""
    return MessageEnvelope(session_id, Direction.TO_CLIENT, text.encode(), 1.0)


def event_at(position: int, block: bytes = b"data: {}", *, recorded_at: float = 1000.0) -> StreamEvent:
    """Return an event that its upstream gave no id."""
    return StreamEvent(position, None, block, recorded_at)


def append_of(events: Iterable[StreamEvent] = (), *, stream: str = S, session: str = A, **fields: Any) -> StreamAppend:
    """Return an append of `OWNER` as in its first reign, unless *fields* say otherwise."""
    events = tuple(events)
    plain = StreamAppend(
        key=StreamKey(SessionId(session), StreamId(stream)),
        owner=OWNER,
        fence=1,
        kind=StreamKind.ANSWER,
        appended_at=1000.0,
        events=events,
        last_position=max((event.position for event in events), default=0),
    )
    return attrs.evolve(plain, **fields)


async def append(store: SessionStore, *appends: StreamAppend, limits: LogLimits = LIMITS) -> None:
    """Append what must be taken."""
    refused = await store.append_events(appends, limits)
    assert not refused, f"append_events refused {len(refused)} of {len(appends)} that it has to take"


async def found(store: SessionStore, stream: str = S, *, session: str = A, limit: int = 10_000) -> StreamSlice:
    """Return a stream that must be there, with all its events."""
    slice_ = await store.read_events(SessionId(session), StreamId(stream), 0, limit)
    assert slice_ is not None, f"the stream {stream!r} is not there"
    return slice_


async def is_known(store: SessionStore, stream: str = S, *, session: str = A) -> bool:
    """Tell whether a stream is there."""
    return await store.read_events(SessionId(session), StreamId(stream), 0) is not None


def positions_of(events: Sequence[StreamEvent]) -> list[int]:
    """Return where *events* stand in their stream."""
    return [event.position for event in events]


async def assert_raises(expected: type[ShadowcatError], operation: Callable[[], Awaitable[object]], what: str) -> None:
    """Await *operation*, which is *what* in words; anything but *expected* breaks the promise."""
    await trio.lowlevel.checkpoint()
    try:
        await operation()
    except expected:
        return
    except ShadowcatError as error:
        raise AssertionError(f"{what} raised {type(error).__name__}, not {expected.__name__}") from error
    raise AssertionError(f"{what} did not raise {expected.__name__}")


async def race(operations: Sequence[Callable[[], Awaitable[object]]]) -> list[object]:
    """Start all *operations* at once; return what each returned, or the `SessionError` it raised."""
    outcomes: list[object] = [None] * len(operations)
    failures: list[Exception] = []
    start = trio.Event()

    async def run(index: int) -> None:
        await start.wait()
        try:
            outcomes[index] = await operations[index]()
        except (SessionNotFound, SessionConflict, SessionExists) as error:
            outcomes[index] = error
        except (ShadowcatError, AssertionError) as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for index in range(len(operations)):
            nursery.start_soon(run, index)
        start.set()
    if failures:
        raise failures[0]
    return outcomes


async def delete_all(store: SessionStore) -> None:
    """Empty *store*."""
    for session in await store.list_sessions():
        await trio.lowlevel.checkpoint()
        try:
            await store.delete_session(session.id)
        except SessionNotFound:
            continue
