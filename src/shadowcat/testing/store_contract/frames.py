"""Promises about frames, event ids, and calls for many sessions at once."""

from __future__ import annotations

import json
from functools import partial

import attrs

from ...envelope import Direction, MessageEnvelope
from ...errors import SessionNotFound
from ...session import SessionId, SessionStore
from .client import Clients, assert_raises, frame_of, race, session_called

_TEXTS = [b"{}", b' { "a" :\t1e0 }\r\n', '{"ä":"漢𝄞"}'.encode(), b'"\\ud800\\u0000"', b"[" + b'"x",' * 50_000 + b"1]"]
_EVENT_IDS = ["0", "00", "1e3", "", " ", "a b", "null", "'\"\\%*", "ünï 漢𝄞", "x" * 5000]


async def frames_come_back(clients: Clients) -> None:
    """Frames come back to the byte, in the order they were added, to every client."""
    session_id = SessionId("framed")
    await clients.one.create_session(session_called(session_id))
    assert not await clients.one.get_frames(session_id), "a new session has frames"
    frames = [
        MessageEnvelope(session_id, direction, text, 1700000000.1234567 - number)
        for number, text in enumerate(_TEXTS * 2)
        for direction in Direction
    ]
    for number, frame in enumerate(frames):
        await clients.either(number).add_frame(frame)
        count = await clients.either(number + 1).count_frames(session_id)
        assert count == number + 1, f"count_frames says {count} after {number + 1} were added"
    assert list(await clients.other.get_frames(session_id)) == frames, "other frames, or in another order"


async def frames_stay_in_their_session(clients: Clients) -> None:
    """Frames of one session are never seen in another, nor deleted with those of another."""
    a, b = SessionId("a"), SessionId("b")
    for session_id in (a, b):
        await clients.one.create_session(session_called(session_id))
    for text in ("1", "2", "3"):
        await clients.one.add_frame(frame_of(a, text))
        await clients.one.add_frame(frame_of(b, f"-{text}"))
    await clients.one.store_last_event_id(a, "5")
    for session_id, texts in ((a, [b"1", b"2", b"3"]), (b, [b"-1", b"-2", b"-3"])):
        found = [frame.message for frame in await clients.other.get_frames(session_id)]
        assert found == texts, f"{found} instead of {texts}"
    await clients.other.delete_frames(a)
    assert await clients.one.count_frames(a) == 0, "delete_frames left some"
    assert not await clients.one.get_frames(a), "delete_frames left some"
    assert await clients.one.count_frames(b) == 3, "delete_frames deleted those of another session"
    assert await clients.one.get_session(a) == session_called(a), "delete_frames changed the session"
    assert await clients.one.get_last_event_id(a) == "5", "delete_frames dropped the event id"
    await clients.one.add_frame(frame_of(a, "4"))
    assert [frame.message for frame in await clients.other.get_frames(a)] == [b"4"], "adding after delete_frames"
    await clients.one.delete_session(b)
    assert await clients.one.count_frames(a) == 1, "deleting a session deleted another's frames"


async def a_thousand_frames_are_kept(clients: Clients) -> None:
    """A session keeps at least its newest thousand frames."""
    session_id = SessionId("long")
    await clients.one.create_session(session_called(session_id))
    for number in range(1005):
        await clients.one.add_frame(frame_of(session_id, str(number)))
    found = [int(frame.message) for frame in await clients.other.get_frames(session_id)]
    assert len(found) >= 1000, f"only {len(found)} of 1005 were kept"
    assert found == list(range(1005))[-len(found) :], "those kept are not the newest, or not in order"
    assert await clients.other.count_frames(session_id) == len(found), "count_frames says something else"


async def concurrent_frames_are_kept(clients: Clients) -> None:
    """Frames added at once are all kept, those of each task in its order."""
    session_id = SessionId("busy")
    await clients.one.create_session(session_called(session_id))

    async def add(number: int) -> None:
        for round_ in range(10):
            await clients.either(number).add_frame(frame_of(session_id, f"[{number},{round_}]"))

    await race([partial(add, number) for number in range(8)])
    found = [json.loads(frame.message) for frame in await clients.one.get_frames(session_id)]
    for number in range(8):
        rounds = [round_ for task, round_ in found if task == number]
        assert rounds == list(range(10)), f"a task added 0 to 9 and {rounds} were kept"


async def event_ids_are_remembered(clients: Clients) -> None:
    """The last event id stored is the one returned, as it was; None if there was none."""
    session_id = SessionId("followed")
    await clients.one.create_session(session_called(session_id))
    await clients.one.create_session(session_called("not-followed"))
    assert await clients.other.get_last_event_id(session_id) is None, "a new session has an event id"
    for number, event_id in enumerate(_EVENT_IDS):
        await clients.either(number).store_last_event_id(session_id, event_id)
        found = await clients.either(number + 1).get_last_event_id(session_id)
        assert found == event_id, f"{event_id[:40]!r} was stored and {str(found)[:40]!r} returned"
    assert await clients.one.get_last_event_id(SessionId("not-followed")) is None, "it was stored for another session"
    assert await clients.one.get_session(session_id) == session_called(session_id), "storing it changed the session"
    stored = await clients.one.update_session(session_called(session_id))
    assert await clients.one.get_last_event_id(session_id) == _EVENT_IDS[-1], "an update of the session dropped it"
    assert stored.revision == 1, "storing an event id changed the revision"


class _OneByOne:
    """The calls for many sessions as `SessionStore` has them, whatever the store made of them."""

    def __init__(self, store: SessionStore) -> None:
        self.get_sessions_batch = partial(SessionStore.get_sessions_batch, store)
        self.update_sessions_batch = partial(SessionStore.update_sessions_batch, store)
        self.store_event_ids_batch = partial(SessionStore.store_event_ids_batch, store)


async def batches_report(clients: Clients) -> None:
    """A call for many sessions does what it can, and reports the sessions that were gone or refused."""
    await _check_batches(clients, clients.one, "own")


async def defaults_report(clients: Clients) -> None:
    """The calls for many sessions that SessionStore provides work on top of this store."""
    await _check_batches(clients, _OneByOne(clients.one), "default")


async def _check_batches(clients: Clients, batches: SessionStore | _OneByOne, kind: str) -> None:
    names = [SessionId(f"{kind}-{number}") for number in range(5)]
    gone = [SessionId(f"{kind}-gone-{number}") for number in range(2)]
    for name in names:
        await clients.one.create_session(session_called(name))
    await _check_reading(batches, names, gone)

    sessions = [await clients.one.get_session(name) for name in names]
    await clients.other.update_session(attrs.evolve(sessions[2], principal="faster"))
    changed = [attrs.evolve(session, principal="batch") for session in sessions]
    refused = await batches.update_sessions_batch([session_called(gone[0]), *changed, session_called(gone[1])])
    assert sorted(refused) == sorted([*gone, names[2]]), f"update_sessions_batch reported {list(refused)}"
    for number, name in enumerate(names):
        found = await clients.other.get_session(name)
        expected = ("faster" if number == 2 else "batch", 1)
        assert (found.principal, found.revision) == expected, f"update_sessions_batch left {name} as it should not be"

    event_ids = [(gone[0], "x"), *((name, f"of {name}") for name in names), (gone[1], "y")]
    missing = await batches.store_event_ids_batch(event_ids)
    assert sorted(missing) == sorted(gone), f"store_event_ids_batch reported {list(missing)} as gone"
    for name in names:
        assert await clients.other.get_last_event_id(name) == f"of {name}", "store_event_ids_batch missed one"
    for name in gone:
        await assert_raises(SessionNotFound, partial(clients.one.get_session, name), "get_session of a gone one")
    assert await clients.other.count_sessions() == len(names), "a batch created a session"


async def _check_reading(batches: SessionStore | _OneByOne, names: list[SessionId], gone: list[SessionId]) -> None:
    asked = [names[3], gone[0], names[0], names[4], gone[1], names[1]]
    found = [session.id for session in await batches.get_sessions_batch(asked)]
    assert found == [name for name in asked if name in names], f"get_sessions_batch of {asked} returned {found}"
    assert not await batches.get_sessions_batch(gone), "get_sessions_batch of gone sessions returned some"
    assert not await batches.get_sessions_batch([]), "get_sessions_batch of none returned some"
    assert not await batches.update_sessions_batch([]), "update_sessions_batch of none reported some"
    assert not await batches.store_event_ids_batch([]), "store_event_ids_batch of none reported some"


PROMISES = (
    frames_come_back,
    frames_stay_in_their_session,
    a_thousand_frames_are_kept,
    concurrent_frames_are_kept,
    event_ids_are_remembered,
    batches_report,
    defaults_report,
)
