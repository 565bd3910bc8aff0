"""What every promise is checked with: two clients of one store, and a few verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from ...envelope import Direction, MessageEnvelope
from ...errors import SessionConflict, SessionExists, SessionNotFound, ShadowcatError
from ...session import Session, SessionId, SessionStore

NEVER = 1e12
"""A time after everything that is due in these checks."""


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
