"""Promises about cancelled calls.

Each call is made once to its end, on a session of its own, to learn what is
there before and after.  Then it is made again and again on other sessions, and
cancelled at every step of its task: when the task is about to run, and when it
has just blocked.  What is there then must be one of the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from ...errors import SessionNotFound
from ...session import Activity, Session, SessionId, SessionStore
from .client import LIMITS, OTHER, Clients, S, append_of, delete_all, event_at, frame_of, session_called

_MAX_STEPS = 60
"""Steps of one call at which it is cancelled; no call of ours takes more."""

_LOOKS = 5
"""A backend elsewhere may still be at work on what was cancelled."""

_State = tuple[Session | None, list[bytes], str | None, bool, tuple[str, ...]]
"""What there is: the session, its frames and event id, whether it is listed, and its stream in words."""

Call = Callable[[SessionStore, SessionId], Awaitable[object]]


def _renamed(session: Session) -> Session:
    return attrs.evolve(session, principal="somebody")


_WRITES: dict[str, Call] = {
    "update_session": lambda store, key: store.update_session(_renamed(session_called(key, expires_at=10.0))),
    "delete_session": lambda store, key: store.delete_session(key),
    "touch_sessions": lambda store, key: store.touch_sessions([Activity(key, 7.0, 70.0)]),
    "expire_sessions": lambda store, _: store.expire_sessions(10.0),
    "add_frame": lambda store, key: store.add_frame(frame_of(key, "2")),
    "delete_frames": lambda store, key: store.delete_frames(key),
    "store_last_event_id": lambda store, key: store.store_last_event_id(key, "new"),
    "update_sessions_batch": lambda store, key: store.update_sessions_batch(
        [_renamed(session_called(key, expires_at=10.0)), session_called("bystander")]
    ),
    "store_event_ids_batch": lambda store, key: store.store_event_ids_batch(
        [(SessionId("bystander"), "new"), (key, "new")]
    ),
    "modify": lambda store, key: store.modify(key, _renamed),
    "append_events": lambda store, key: store.append_events(
        [append_of([event_at(2), event_at(3)], session=key, resume_id="3", is_ended=True)], LIMITS
    ),
    "claim_stream": lambda store, key: store.claim_stream(key, S, OTHER),
    "expire_streams": lambda store, _: store.expire_streams(0.0),
}

_READS: dict[str, Call] = {
    "get_session": lambda store, key: store.get_session(key),
    "list_sessions": lambda store, _: store.list_sessions(),
    "count_sessions": lambda store, _: store.count_sessions(),
    "get_frames": lambda store, key: store.get_frames(key),
    "count_frames": lambda store, key: store.count_frames(key),
    "get_last_event_id": lambda store, key: store.get_last_event_id(key),
    "get_sessions_batch": lambda store, key: store.get_sessions_batch([key, SessionId("bystander")]),
    "read_events": lambda store, key: store.read_events(key, S, 0),
}


async def cancelled_creations_are_whole(clients: Clients) -> None:
    """A cancelled create_session has created the whole session or nothing, and the store goes on working."""
    await _check(clients, "create_session", lambda s, key: s.create_session(session_called(key, expires_at=10.0)), None)


async def cancelled_writes_are_whole(clients: Clients) -> None:
    """A cancelled write has happened in full or not at all, and the store goes on working."""
    await trio.lowlevel.checkpoint()
    for name, write in _WRITES.items():
        await _check(clients, name, write, _arrange)


async def cancelled_reads_change_nothing(clients: Clients) -> None:
    """A cancelled read changes nothing, and the store goes on working."""
    await trio.lowlevel.checkpoint()
    for name, read in _READS.items():
        await _check(clients, name, read, _arrange)


async def _arrange(store: SessionStore, key: SessionId) -> None:
    await store.create_session(session_called(key, expires_at=10.0))
    await store.add_frame(frame_of(key, "1"))
    await store.store_last_event_id(key, "old")
    await store.append_events([append_of([event_at(1)], session=key)], LIMITS)


async def _check(clients: Clients, name: str, call: Call, arrange: Call | None) -> None:
    await delete_all(clients.one)
    await clients.one.create_session(session_called("bystander"))
    allowed: list[_State] = []
    for is_before in (True, False):
        for step in range(_MAX_STEPS):
            key = SessionId(f"{name}-{is_before:d}-{step}")
            if arrange is not None:
                await arrange(clients.one, key)
            if not allowed:
                allowed = [await _look(clients.other, key)]
                await call(clients.one, key)
                allowed.append(await _look(clients.other, key))
                await _remove(clients.other, key)
                if arrange is not None:
                    await arrange(clients.one, key)
            is_cancelled = await _cancel_at(step, is_before, call, clients.one, key)
            await _check_outcome(clients, key, allowed, f"{name}, cancelled in step {step},")
            await _remove(clients.one, key)
            if step > 0 and not is_cancelled:
                break


async def _check_outcome(clients: Clients, key: SessionId, allowed: list[_State], what: str) -> None:
    await trio.lowlevel.checkpoint()
    seen: list[_State] = []
    count = -1
    for attempt in range(_LOOKS):
        try:
            seen = [await _look(client, key) for client in (clients.one, clients.other)]
            count = await clients.one.count_sessions()
        except SessionNotFound:  # it went between two looks
            seen = []
        is_there = 2 if seen and seen[0][0] is not None else 1
        if seen and seen[0] == seen[1] and seen[0] in allowed and count == is_there:
            return
        await trio.sleep(0.01 * attempt)
    raise AssertionError(f"{what} left half of it: {'; '.join(map(_describe, seen))}; {count} sessions")


def _describe(state: _State) -> str:
    session, frames, event_id, is_listed, stream = state
    what = "no session" if session is None else f"a session (revision {session.revision}, until {session.expires_at})"
    how = "listed" if is_listed else "not listed"
    return f"{what}, {how}, with {len(frames)} frames, event id {event_id!r} and stream {stream}"


async def _look(store: SessionStore, key: SessionId) -> _State:
    """Return all there is of a session, without its name."""
    is_listed = any(session.id == key for session in await store.list_sessions())
    frames = [frame.message for frame in await store.get_frames(key)]
    assert await store.count_frames(key) == len(frames), "count_frames and get_frames disagree"
    stream = await _look_at_stream(store, key)
    try:
        session = await store.get_session(key)
    except SessionNotFound:
        return None, frames, None, is_listed, stream
    return attrs.evolve(session, id=SessionId("")), frames, await store.get_last_event_id(key), is_listed, stream


async def _look_at_stream(store: SessionStore, key: SessionId) -> tuple[str, ...]:
    slice_ = await store.read_events(key, S, 0)
    if slice_ is None:
        return ()
    record = slice_.record
    return f"fence {record.fence}", f"resume {record.resume_id}", f"ended {record.is_ended}", str(slice_.events)


async def _remove(store: SessionStore, key: SessionId) -> None:
    try:
        await store.delete_session(key)
    except SessionNotFound:
        await trio.lowlevel.checkpoint()


async def _cancel_at(step: int, is_before: bool, call: Call, store: SessionStore, key: SessionId) -> bool:
    """Make *call*, cancel it in its task's *step*, and tell whether that stopped it."""
    with trio.CancelScope() as scope:
        canceller = _Canceller(trio.lowlevel.current_task(), scope, step, is_before=is_before)
        trio.lowlevel.add_instrument(canceller)
        try:
            if step == 0:
                scope.cancel()
            await call(store, key)
        finally:
            trio.lowlevel.remove_instrument(canceller)
    return scope.cancelled_caught


class _Canceller(trio.abc.Instrument):
    """Cancels a scope in the given step of a task."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int, *, is_before: bool) -> None:
        self._task = task
        self._scope = scope
        self._left = step
        self._is_before = is_before

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_before:
            self._count(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._is_before:
            self._count(task)

    def _count(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


PROMISES = (
    cancelled_creations_are_whole,
    cancelled_writes_are_whole,
    cancelled_reads_change_nothing,
)
