"""Promises about activity and expiry."""

from __future__ import annotations

import math
from functools import partial

import attrs
import trio

from ...errors import SessionNotFound
from ...session import Activity, Session, SessionId
from .client import Clients, assert_raises, frame_of, race, session_called


async def touches_move_forward(clients: Clients) -> None:
    """Touching moves both times of a session forward, never back, in whatever order the calls arrive."""
    session = attrs.evolve(session_called("touched", expires_at=200.0), last_activity=100.0)
    await clients.one.create_session(session)
    steps = [
        ([(150.0, 250.0)], (150.0, 250.0)),
        ([(120.0, 300.0)], (150.0, 300.0)),
        ([(160.0, 220.0)], (160.0, 300.0)),
        ([(1.0, 1.0), (170.25, 310.125), (2.0, 2.0)], (170.25, 310.125)),
        ([(170.0, 310.0)], (170.25, 310.125)),
        ([], (170.25, 310.125)),
    ]
    for number, (times, expected) in enumerate(steps):
        await clients.either(number).touch_sessions([Activity(session.id, *pair) for pair in times])
        found = await clients.either(number + 1).get_session(session.id)
        assert (found.last_activity, found.expires_at) == expected, (
            f"touched with {times} it has {found.last_activity} and {found.expires_at}, not {expected}"
        )
        await trio.lowlevel.checkpoint()
    found = await clients.one.get_session(session.id)
    assert list(await clients.one.list_sessions()) == [found], "list_sessions does not show what get_session shows"
    assert list(await clients.one.get_sessions_batch([session.id])) == [found], "get_sessions_batch does not show it"


async def immortal_sessions_stay_immortal(clients: Clients) -> None:
    """A session that never expires goes on never expiring when it is touched."""
    session = session_called("immortal", expires_at=math.inf)
    await clients.one.create_session(session)
    await clients.one.touch_sessions([Activity(session.id, 5.0, 10.0)])
    assert (await clients.other.get_session(session.id)).expires_at == math.inf, "a touch gave it an end"
    assert not await clients.one.expire_sessions(1e300), "it expired"
    mortal = session_called("mortal", expires_at=10.0)
    await clients.one.create_session(mortal)
    await clients.one.touch_sessions([Activity(mortal.id, 5.0, math.inf)])
    assert not await clients.one.expire_sessions(1e300), "a session that was touched to live forever expired"


async def touches_pass_over_the_gone(clients: Clients) -> None:
    """Touching sessions that are gone does nothing to them, and touches the others."""
    session = session_called("here", expires_at=10.0)
    await clients.one.create_session(session)
    names = ("gone", "here", "never")
    await clients.one.touch_sessions([Activity(SessionId(name), 5.0, 20.0) for name in names])
    assert (await clients.other.get_session(session.id)).expires_at == 20.0, "the session that is there was not touched"
    assert await clients.other.count_sessions() == 1, "a session that is gone was counted again"
    gone = partial(clients.other.get_session, SessionId("gone"))
    await assert_raises(SessionNotFound, gone, "get_session of a gone one that was touched")
    assert [s.id for s in await clients.one.expire_sessions(30.0)] == ["here"], "not exactly the session there expired"


async def touches_leave_revisions(clients: Clients) -> None:
    """Touching does not change the revision, and an update does not undo a touch."""
    session = session_called("both", expires_at=10.0)
    await clients.one.create_session(session)
    read = await clients.one.get_session(session.id)
    await clients.other.touch_sessions([Activity(session.id, 5.0, 20.0)])
    assert (await clients.one.get_session(session.id)).revision == 0, "a touch changed the revision"
    stored = await clients.one.update_session(attrs.evolve(read, principal="somebody"))
    for found in (stored, await clients.other.get_session(session.id)):
        times = (found.last_activity, found.expires_at, found.principal)
        assert times == (5.0, 20.0, "somebody"), f"touched and then updated it has {times}"
    ahead = attrs.evolve(stored, last_activity=90.0, expires_at=90.0)
    found = await clients.one.update_session(ahead)
    assert (found.last_activity, found.expires_at) == (5.0, 20.0), "an update moved the times"
    assert not await clients.one.expire_sessions(19.0), "an update brought the expiry back"
    expired = list(await clients.other.expire_sessions(20.0))
    assert expired == [found], "the touched and updated session did not expire as it was"


async def expiry_is_exact(clients: Clients) -> None:
    """A session expires at its expires_at, neither before nor later, with all that belongs to it."""
    due = 1700000000.123456
    session = attrs.evolve(session_called("due", expires_at=due), principal="somebody", revision=3)
    for _ in range(2):
        await clients.one.create_session(session)
        await clients.one.add_frame(frame_of(session.id, "{}"))
        await clients.one.store_last_event_id(session.id, "1")
        assert not await clients.other.expire_sessions(math.nextafter(due, 0.0)), "it expired before it was due"
        assert await clients.one.get_session(session.id) == session, "a look for others changed it"
        expired = list(await clients.other.expire_sessions(due))
        assert expired == [session], f"due exactly now, expire_sessions returned {len(expired)} sessions or another"
        await assert_raises(SessionNotFound, partial(clients.one.get_session, session.id), "get_session after expiry")
        assert await clients.one.count_sessions() == 0, "count_sessions counts an expired session"
        assert await clients.one.count_frames(session.id) == 0, "the frames of an expired session stayed"
        assert not await clients.one.expire_sessions(due), "it expired twice"
    await clients.one.create_session(attrs.evolve(session, expires_at=due + 9))
    assert await clients.one.get_last_event_id(session.id) is None, "the event id of an expired session stayed"
    assert not await clients.one.expire_sessions(due), "a later session of that id expired in its place"


async def the_expired_can_be_read(clients: Clients) -> None:
    """A session that is due is a session like any other until somebody expires it."""
    session = session_called("overdue", expires_at=-1.0)
    await clients.one.create_session(session)
    assert await clients.other.get_session(session.id) == session, "get_session does not return it"
    assert await clients.other.count_sessions() == 1, "count_sessions does not count it"
    assert list(await clients.other.list_sessions()) == [session], "list_sessions does not list it"
    stored = await clients.other.update_session(attrs.evolve(session, principal="somebody"))
    await clients.one.store_last_event_id(session.id, "1")
    await clients.one.touch_sessions([Activity(session.id, 5.0, 10.0)])
    assert not await clients.one.expire_sessions(9.0), "touched when it was overdue, it expired all the same"
    expected = [attrs.evolve(stored, last_activity=5.0, expires_at=10.0)]
    assert list(await clients.one.expire_sessions(10.0)) == expected, "it did not expire as it was"


async def the_limit_is_honoured(clients: Clients) -> None:
    """Expiring hands out at most as many sessions as the limit, and all that are due in the end."""
    for number in range(25):
        await clients.one.create_session(session_called(f"due-{number}", expires_at=float(number // 2)))
    await clients.one.create_session(session_called("later", expires_at=1000.0))
    handed: list[Session] = []
    for limit in (1, 3, 7, 100, 100):
        some = await clients.other.expire_sessions(500.0, limit)
        assert len(some) <= limit, f"{len(some)} sessions with a limit of {limit}"
        assert some or len(handed) == 25, f"none with a limit of {limit}, though some were due"
        handed += some
        left = await clients.one.count_sessions()
        assert left == 26 - len(handed), f"{left} sessions are left after {len(handed)} of 26 were handed out"
    while some := await clients.other.expire_sessions(500.0):
        handed += some
    assert sorted(s.id for s in handed) == sorted(f"due-{n}" for n in range(25)), "not exactly those due came out"
    for number in range(150):
        await clients.one.create_session(session_called(f"due-{number}", expires_at=0.0))
    some = await clients.one.expire_sessions(500.0)
    assert len(some) <= 100, f"{len(some)} sessions without a limit given, which means 100"


async def each_is_handed_out_once(clients: Clients) -> None:
    """Of several that expire sessions at once, each session goes to exactly one."""
    names = [f"due-{number}" for number in range(60)]
    for name in names:
        await clients.one.create_session(session_called(name, expires_at=10.0))
    handed: list[str] = []
    while some := await race([partial(clients.either(n).expire_sessions, 10.0, 10) for n in range(8)]):
        batch = [session.id for sessions in some if isinstance(sessions, list | tuple) for session in sessions]
        if not batch:
            break
        handed += batch
    assert sorted(handed) == sorted(names), f"{len(handed)} were handed out, {len(set(handed))} different, of 60"


async def the_touched_survive(clients: Clients) -> None:
    """Sessions touched before they were due survive, and expire at their new time."""
    for number in range(20):
        await clients.one.create_session(session_called(f"s-{number}", expires_at=10.0))
    touched = [SessionId(f"s-{number}") for number in range(0, 20, 2)]
    await clients.other.touch_sessions([Activity(session_id, 9.0, 30.0) for session_id in touched])
    expired = {session.id for session in await clients.one.expire_sessions(29.0)}
    assert not expired & set(touched), "a session expired that was touched in time"
    assert len(expired) == 10, f"{len(expired)} of 10 sessions that were not touched expired"
    later = await clients.one.expire_sessions(30.0)
    assert sorted(session.id for session in later) == sorted(touched), "they did not expire at their new time"
    assert {session.last_activity for session in later} == {9.0}, "they were not handed out as they were touched"


PROMISES = (
    touches_move_forward,
    immortal_sessions_stay_immortal,
    touches_pass_over_the_gone,
    touches_leave_revisions,
    expiry_is_exact,
    the_expired_can_be_read,
    the_limit_is_honoured,
    each_is_handed_out_once,
    the_touched_survive,
)
