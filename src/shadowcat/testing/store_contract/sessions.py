"""Promises about sessions: kept as given, never overwritten, never half updated."""

from __future__ import annotations

import math
from functools import partial

import attrs
import trio

from ...errors import SessionConflict, SessionExists, SessionNotFound
from ...protocol import ResponseMode
from ...session import Session, SessionId, SessionStore, TransportType, UpstreamSessionId
from .client import NEVER, Clients, assert_raises, frame_of, race, session_called

_State = type(Session(id=SessionId("")).state)

_STRINGS = [
    "",
    " ",
    "0",
    "1e3",
    "null",
    "'; --",
    '"\\',
    "%_*?[a]",
    "{k}:",
    "\x00\x01\x1f\x7f",
    "ÄΩ漢𝄞\u200f",
    "x" * 9000,
]
_IDS = [
    "a",
    "A",
    "0",
    "00",
    "0.0",
    "1e3",
    "null",
    "'",
    '"',
    "\\",
    "%",
    "_",
    "*",
    "?",
    "[a]",
    "{a}",
    "a:b",
    ";--",
    "~" * 256,
]


def _examples() -> list[Session]:
    everything = Session(
        id=SessionId("everything"),
        upstream_session_id=UpstreamSessionId("ünknown \N{SNOWMAN}"),
        transport_type=TransportType.WEBSOCKET,
        response_mode=ResponseMode.SSE_STREAM,
        protocol_version="2025-11-25",
        initialize_params={"n": 2**53 + 1, "deep": {"list": [None, True, -1.5, {"": []}]}, "text": _STRINGS},
        initialize_result={"capabilities": {}, "n": -(2**53) - 1},
        state=_State.ACTIVE,
        upstream_name="second",
        principal="somebody@example.com",
        created_at=1700000000.1234567,
        last_activity=1700000001.7654321,
        expires_at=1700003600.3333333,
        metadata={text: text for text in _STRINGS},
        revision=7,
        unknown={"from_a_newer_version": {"n": 2**53 + 1, "list": [1, "two"]}, "other": None},
    )
    plain = Session(id=SessionId("plain"))
    return [
        plain,
        everything,
        attrs.evolve(everything, id=SessionId("immortal"), expires_at=math.inf, principal=""),
        *(Session(id=SessionId(f"transport.{kind.value}"), transport_type=kind) for kind in TransportType),
        *(Session(id=SessionId(f"mode.{mode.value}"), response_mode=mode) for mode in ResponseMode),
        *(Session(id=SessionId(f"state.{state.value}"), state=state) for state in _State),
    ]


async def every_field_comes_back(clients: Clients) -> None:
    """A session comes back as it was created, every field of it, to every client."""
    await trio.lowlevel.checkpoint()
    examples = {example.id: example for example in _examples()}
    for example in examples.values():
        await clients.one.create_session(example)
        found = await clients.other.get_session(example.id)
        assert found == example, f"{_difference(example, found)} after create_session"
        await trio.lowlevel.checkpoint()
    listed = {session.id: session for session in await clients.other.list_sessions()}
    assert listed == examples, "list_sessions returned something else than get_session"
    together = list(await clients.other.get_sessions_batch(list(examples)))
    assert together == list(examples.values()), "get_sessions_batch returned something else than get_session"


async def every_field_is_updated(clients: Clients) -> None:
    """An update replaces the session as a whole, every field of it but the two times that touch_sessions keeps."""
    await trio.lowlevel.checkpoint()
    for example in _examples():
        await clients.one.create_session(Session(id=example.id, created_at=5.0, last_activity=6.0, expires_at=NEVER))
        stored = await clients.one.update_session(attrs.evolve(example, revision=0))
        expected = attrs.evolve(example, revision=1, last_activity=6.0, expires_at=NEVER)
        assert stored == expected, f"{_difference(expected, stored)} in what update_session returned"
        found = await clients.other.get_session(example.id)
        assert found == expected, f"{_difference(expected, found)} after update_session"
        await trio.lowlevel.checkpoint()


async def ids_stay_apart(clients: Clients) -> None:
    """Sessions whose ids differ in any way, in case, zeros or signs, are different sessions."""
    for value in _IDS:
        await clients.one.create_session(attrs.evolve(session_called(value), principal=f"of {value}"))
        await clients.one.store_last_event_id(SessionId(value), f"event of {value}")
        await clients.one.add_frame(frame_of(SessionId(value), f'"{value!r}"'))
    for value in _IDS:
        session_id = SessionId(value)
        found = await clients.other.get_session(session_id)
        assert (found.id, found.principal) == (value, f"of {value}"), f"{value!r} led to {found.id!r}"
        assert await clients.other.get_last_event_id(session_id) == f"event of {value}", (
            f"{value!r} has another's event id"
        )
        frames = [frame.message for frame in await clients.other.get_frames(session_id)]
        assert frames == [f'"{value!r}"'.encode()], f"{value!r} has other frames"
    await clients.one.delete_session(SessionId(_IDS[0]))
    assert await clients.other.count_sessions() == len(_IDS) - 1, "deleting one deleted another"


async def create_never_overwrites(clients: Clients) -> None:
    """Creating a session whose id is taken raises SessionExists and leaves everything as it was."""
    session = attrs.evolve(session_called("taken"), principal="first")
    await clients.one.create_session(session)
    await clients.one.store_last_event_id(session.id, "7")
    await clients.one.add_frame(frame_of(session.id, "{}"))
    for client in (clients.one, clients.other):
        again = attrs.evolve(session, principal="second", revision=3, expires_at=5.0)
        await assert_raises(
            SessionExists, partial(client.create_session, again), "create_session with an id that is taken"
        )
        assert await clients.one.get_session(session.id) == session, "the session was overwritten"
        assert await clients.one.get_last_event_id(session.id) == "7", "its event id was lost"
        assert await clients.one.count_frames(session.id) == 1, "its frames were lost"
        assert not await clients.one.expire_sessions(6.0), "its expiry was overwritten"


async def one_creator_wins(clients: Clients) -> None:
    """Of several that create the same id at once, exactly one succeeds."""
    creators = [clients.either(n) for n in range(10)]
    attempts = [attrs.evolve(session_called("same"), principal=str(n)) for n in range(10)]
    outcomes = await race([partial(c.create_session, s) for c, s in zip(creators, attempts, strict=True)])
    winners = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, SessionExists)]
    assert len(winners) == 1, f"{len(winners)} of 10 succeeded"
    found = await clients.one.get_session(SessionId("same"))
    assert found.principal == str(winners[0]), "the session kept is not that of the one that succeeded"
    assert await clients.one.count_sessions() == 1, "there is more than one session"


async def missing_sessions_are_reported(clients: Clients) -> None:
    """Whatever needs a session that does not exist raises SessionNotFound, and creates none."""
    store, gone = clients.one, SessionId("never-was")
    operations = {
        "get_session": lambda: store.get_session(gone),
        "update_session": lambda: store.update_session(session_called(gone)),
        "delete_session": lambda: store.delete_session(gone),
        "add_frame": lambda: store.add_frame(frame_of(gone, "{}")),
        "store_last_event_id": lambda: store.store_last_event_id(gone, "1"),
        "get_last_event_id": lambda: store.get_last_event_id(gone),
        "modify": lambda: store.modify(gone, lambda session: session),
    }
    for name, operation in operations.items():
        await assert_raises(SessionNotFound, operation, f"{name} of a session that does not exist")
        assert await store.count_sessions() == 0, f"{name} created a session"
    assert not await store.get_frames(gone), "get_frames of a session that does not exist returned some"
    assert await store.count_frames(gone) == 0, "count_frames of a session that does not exist is not 0"
    await store.delete_frames(gone)
    await store.create_session(session_called(gone))
    assert await store.count_frames(gone) == 0, "add_frame left a frame for a session that did not exist"
    assert await store.get_last_event_id(gone) is None, "store_last_event_id left one for a session that did not exist"


async def updates_compare_revisions(clients: Clients) -> None:
    """An update counts the revision up, and raises SessionConflict if the session was updated since it was read."""
    session = attrs.evolve(session_called("compared"), revision=4)
    await clients.one.create_session(session)
    stored = await clients.one.update_session(attrs.evolve(session, principal="first"))
    assert stored.revision == 5, f"revision 4 became {stored.revision}, not 5"
    assert stored == await clients.other.get_session(session.id), "update_session did not return what is stored"
    for client, revision in ((clients.other, 4), (clients.one, 4), (clients.one, 6)):
        stale = attrs.evolve(session, revision=revision, principal="stale")
        await assert_raises(
            SessionConflict, partial(client.update_session, stale), "update_session with another revision"
        )
        assert await clients.one.get_session(session.id) == stored, "a refused update changed the session"
    again = await clients.other.update_session(attrs.evolve(stored, principal="second"))
    assert again.revision == 6, f"revision 5 became {again.revision}, not 6"


async def one_update_wins(clients: Clients) -> None:
    """Of several that update the same revision at once, exactly one succeeds."""
    session = session_called("contended")
    await clients.one.create_session(session)
    updates = [attrs.evolve(session, principal=str(n)) for n in range(10)]
    outcomes = await race([partial(clients.either(n).update_session, update) for n, update in enumerate(updates)])
    winners = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert len(winners) == 1, f"{len(winners)} of 10 succeeded"
    assert await clients.other.get_session(session.id) == winners[0], "what is stored is not what the winner wrote"


async def modify_loses_nothing(clients: Clients) -> None:
    """Whatever number of tasks modify a session at once, from whatever client, every change is in the end result."""
    await trio.lowlevel.checkpoint()
    for tasks, rounds in ((2, 10), (10, 4), (50, 2)):
        session = attrs.evolve(session_called(f"sum-{tasks}"), metadata={"sum": "0"})
        await clients.one.create_session(session)

        async def add(store: SessionStore, rounds: int, session_id: SessionId) -> None:
            await trio.lowlevel.checkpoint()
            for _ in range(rounds):
                await store.modify(session_id, _plus_one)
                await trio.lowlevel.checkpoint()

        outcomes = await race([partial(add, clients.either(n), rounds, session.id) for n in range(tasks)])
        lost = [outcome for outcome in outcomes if outcome is not None]
        assert not lost, f"modify raised {lost[:1]} with {tasks} tasks"
        found = await clients.other.get_session(session.id)
        assert found.metadata["sum"] == str(tasks * rounds), (
            f"{tasks} tasks added 1 {rounds} times and made {found.metadata['sum']}"
        )
        assert found.revision == tasks * rounds, f"{tasks * rounds} changes made revision {found.revision}"


def _plus_one(session: Session) -> Session:
    return attrs.evolve(session, metadata={"sum": str(int(session.metadata["sum"]) + 1)})


class _ChangedItsMindError(Exception):
    pass


async def modify_lets_errors_out(clients: Clients) -> None:
    """An exception from the change given to modify comes out, and nothing is written."""
    session = session_called("unmodified")
    await clients.one.create_session(session)

    def refuse(_: Session) -> Session:
        raise _ChangedItsMindError

    try:
        await clients.one.modify(session.id, refuse)
    except _ChangedItsMindError:
        assert await clients.other.get_session(session.id) == session, "the session was changed all the same"
    else:
        raise AssertionError("the exception was swallowed")


async def delete_forgets_everything(clients: Clients) -> None:
    """Deleting a session forgets its frames and event ids too, for a later session of that id as well."""
    session = session_called("deleted", expires_at=50.0)
    for _ in range(2):
        await clients.one.create_session(session)
        assert await clients.one.count_frames(session.id) == 0, "a new session has the frames of a deleted one"
        assert await clients.one.get_last_event_id(session.id) is None, "a new session has a deleted one's event id"
        await clients.one.store_last_event_id(session.id, "9")
        await clients.one.add_frame(frame_of(session.id, "{}"))
        await clients.other.delete_session(session.id)
        await assert_raises(SessionNotFound, lambda: clients.one.get_session(session.id), "get_session after a delete")
        assert await clients.one.count_sessions() == 0, "count_sessions counts a deleted session"
        assert not await clients.one.list_sessions(), "list_sessions lists a deleted session"
        assert not await clients.one.get_frames(session.id), "a deleted session has frames"
        assert not await clients.one.expire_sessions(60.0), "a deleted session expired"
    await assert_raises(SessionNotFound, lambda: clients.one.delete_session(session.id), "deleting it again")
    await clients.one.create_session(attrs.evolve(session, expires_at=90.0))
    assert not await clients.one.expire_sessions(60.0), "a new session expired when a deleted one of its id was due"


async def one_deleter_wins(clients: Clients) -> None:
    """Of several that delete a session at once, exactly one succeeds; the others get SessionNotFound."""
    session = session_called("unwanted")
    await clients.one.create_session(session)
    outcomes = await race([partial(clients.either(n).delete_session, session.id) for n in range(10)])
    assert [type(o) for o in outcomes if o is not None] == [SessionNotFound] * 9, "not exactly one succeeded"


async def many_sessions_are_kept(clients: Clients) -> None:
    """A large number of sessions is created, counted, listed and expired like one."""
    limiter = trio.CapacityLimiter(20)
    sessions = {n: session_called(f"many-{n}", expires_at=100.0 + n % 2) for n in range(clients.sessions)}

    async def create(number: int, session: Session) -> None:
        async with limiter:
            await clients.either(number).create_session(session)

    await race([partial(create, number, session) for number, session in sessions.items()])
    for client in (clients.one, clients.other):
        count, listed = await client.count_sessions(), await client.list_sessions()
        assert count == len(sessions), f"count_sessions says {count} of {len(sessions)}"
        assert sorted(s.id for s in listed) == sorted(s.id for s in sessions.values()), "list_sessions missed some"
    expired: list[SessionId] = []
    while some := await clients.other.expire_sessions(100.0, 90):
        expired += [session.id for session in some]
        await trio.lowlevel.checkpoint()
    due = [session.id for session in sessions.values() if session.expires_at <= 100.0]
    assert sorted(expired) == sorted(due), f"{len(expired)} sessions expired, {len(due)} were due"
    assert await clients.one.count_sessions() == len(sessions) - len(due), "not the expired ones are gone, or not only"


def _difference(expected: Session, found: Session) -> str:
    """Name the first field that is not as expected."""
    for field in attrs.fields(Session):
        before, after = getattr(expected, field.name), getattr(found, field.name)
        if before != after:
            return f"{field.name} was {str(before)[:80]!r} and is {str(after)[:80]!r}"
    return "nothing differs"


PROMISES = (
    every_field_comes_back,
    every_field_is_updated,
    ids_stay_apart,
    create_never_overwrites,
    one_creator_wins,
    missing_sessions_are_reported,
    updates_compare_revisions,
    one_update_wins,
    modify_loses_nothing,
    modify_lets_errors_out,
    delete_forgets_everything,
    one_deleter_wins,
    many_sessions_are_kept,
)
