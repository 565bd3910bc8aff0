"""Promises about event streams, for stores that keep them."""

from __future__ import annotations

import attrs
import trio

from ...session import LogLimits, SessionId, SessionStore, StreamEvent, StreamId, StreamKind, StreamRecord
from .client import (
    LIMITS,
    OTHER,
    OWNER,
    A,
    Clients,
    S,
    append,
    append_of,
    event_at,
    found,
    is_known,
    positions_of,
    session_called,
)

_PATIENCE = 2.0
"""Seconds that waiting may take: one, and what a busy machine adds."""

_TEXTS = [None, "", " ", "0", "null", "'; --", '"\\', "\x00\x01\x7f", "ÄΩ漢𝄞", "x" * 9000]
_BLOCKS = [b"data: x", b"", b"\x00\xff\r\n", b"data: {}\nevent: message", "data: ÄΩ".encode(), b"x" * 100_000]


async def events_come_back(clients: Clients) -> None:
    """The events of a stream come back as they were appended, to the byte, in order and to every client."""
    await clients.one.create_session(session_called(A))
    ids = [*_TEXTS, *(_TEXTS[:1] * len(_BLOCKS))]
    blocks = [*(_BLOCKS[:1] * len(_TEXTS)), *_BLOCKS]
    events = [
        StreamEvent(2 * n + 1, upstream_id, block, 1000.0 + n / 7)
        for n, (upstream_id, block) in enumerate(zip(ids, blocks, strict=True))
    ]
    for start in range(0, len(events), 3):
        await append(
            clients.one, append_of(events[start : start + 3]), append_of(events[start : start + 1], stream="t")
        )
        for client in (clients.one, clients.other):
            kept = list((await found(client)).events)
            assert kept == events[: start + 3], f"of {len(events[: start + 3])} events {len(kept)} or others came back"
        await trio.lowlevel.checkpoint()
    assert list((await found(clients.other, "t")).events) == events[::3], "a stream has the events of another"


async def records_come_back(clients: Clients) -> None:
    """What is kept of a stream beside its events is what the newest append says, every field of it."""
    await clients.one.create_session(session_called(A))
    await clients.one.renew_owner(OWNER, 60.0)
    names = [f"stream~{number}_-" for number in range(len(_TEXTS))]
    for turn, kind in ((1, StreamKind.ANSWER), (2, StreamKind.LISTENING)):
        texts = _TEXTS[turn:] + _TEXTS[:turn]
        for number, (name, text) in enumerate(zip(names, texts, strict=True)):
            raw = None if text is None else b"\xff" + text.encode()
            sent_id = None if number % 2 else raw
            given = append_of(
                stream=name,
                kind=kind,
                request_id=raw,
                sent_id=sent_id,
                last_position=5 * turn,
                resume_id=text,
                is_ended=turn == 2 and number % 3 == 0,
            )
            await append(clients.one, given)
            expected = StreamRecord(
                key=given.key,
                owner=OWNER,
                fence=1,
                kind=kind,
                request_id=raw,
                sent_id=sent_id,
                last_position=5 * turn,
                resume_id=text,
                is_ended=given.is_ended,
            )
            for client in (clients.one, clients.other):
                kept = await found(client, name)
                assert (kept.record, list(kept.events)) == (expected, []), f"{kept.record} is not {expected}"
            await trio.lowlevel.checkpoint()
    await clients.one.renew_owner(OWNER, 0.0)
    assert (await found(clients.other, names[0])).record.owner is None, "an owner that is no longer alive is named"


async def repeated_appends_change_nothing(clients: Clients) -> None:
    """An append that is made again, also late or by another client, changes nothing."""
    await clients.one.create_session(session_called(A))
    events = [event_at(position, b"data: %d" % position) for position in range(1, 7)]
    appends = [
        append_of(events[:2], resume_id="2"),
        append_of(events[:4], resume_id="4"),
        append_of(events[4:], resume_id="6", is_ended=True),
    ]
    for number, one in enumerate(appends):
        await append(clients.either(number), one)
    before = await found(clients.one)
    assert list(before.events) == events, "events that were appended again with others came back twice, or not"
    for again in (appends[2], appends[0], appends[1], append_of(events[:6], resume_id="6")):
        for client in (clients.one, clients.other):
            await append(client, again)
            after = await found(client)
            assert list(after.events) == events, "events that were appended again came back twice, or not"
            assert after.record == before.record, f"{before.record} became {after.record}"
        await trio.lowlevel.checkpoint()


async def what_is_beyond_the_limits_is_dropped(clients: Clients) -> None:
    """Of a stream that exceeds a limit the oldest events are dropped, soon, and none that is within all limits."""
    await clients.one.create_session(session_called(A))
    wide, within = LogLimits(max_age=1e9), 10
    limits = {
        "max_events": attrs.evolve(wide, max_events=within),
        "max_bytes": attrs.evolve(wide, max_bytes=100 * within),
        "max_age": attrs.evolve(wide, max_age=10.0 * within - 0.5),
    }
    for name, limit in limits.items():
        for start in range(1, 401, 4):
            some = [event_at(n, b"%0100d" % n, recorded_at=1000.0 + 10.0 * n) for n in range(start, start + 4)]
            await append(clients.one, append_of(some, stream=name), limits=limit)
        kept = positions_of((await found(clients.other, name)).events)
        assert kept == list(range(401 - len(kept), 401)), f"with a {name} not the newest are left, but {kept}"
        assert len(kept) >= within, f"only {len(kept)} events are left with a {name} that {within} are within"
        assert len(kept) <= 10 * within, f"{len(kept)} events are left with a {name} that {within} are within"
    long = event_at(401, b"x" * 5000, recorded_at=9000.0)
    await append(clients.one, append_of([long], stream="max_bytes"), limits=LogLimits(max_bytes=1000))
    assert long in (await found(clients.other, "max_bytes")).events, "the newest event was dropped because it is long"


async def superfluous_streams_are_dropped(clients: Clients) -> None:
    """Of a session's streams those that have ended go first, then the oldest, and never the one that just began."""
    limits = LogLimits(max_streams=10)
    await clients.one.create_session(session_called(A))
    await clients.one.create_session(session_called("b"))
    await append(clients.one, append_of(session="b"), limits=limits)
    for number in range(200):
        is_ended = number >= 8
        one = append_of([event_at(1)], stream=f"s{number}", is_ended=is_ended)
        await append(clients.either(number), one, limits=limits)
        assert await is_known(clients.one, f"s{number}"), "the stream that was just begun is not there"
    left = [number for number in range(200) if await is_known(clients.other, f"s{number}")]
    assert left[:8] == list(range(8)), f"streams that go on were dropped before those that have ended: {left} are left"
    assert len(left) <= 100, f"{len(left)} streams are left with a limit of 10"
    for number in range(200, 400):
        await append(clients.either(number), append_of(stream=f"s{number}"), limits=limits)
    left = [number for number in range(400) if await is_known(clients.other, f"s{number}")]
    assert left == list(range(400 - len(left), 400)), f"not the newest streams are left, but {left}"
    assert len(left) <= 100, f"{len(left)} streams are left with a limit of 10"
    assert await is_known(clients.one, session="b"), "a stream of another session was dropped"


async def the_gone_take_no_events(clients: Clients) -> None:
    """An append to a session that is gone is refused, and makes neither a session nor a stream."""
    await clients.one.create_session(session_called("deleted"))
    await append(clients.one, append_of(session="deleted"))
    await clients.other.delete_session(SessionId("deleted"))
    for name in ("deleted", "never"):
        one = append_of([event_at(1)], session=name)
        refused = list(await clients.one.append_events([one], LIMITS))
        assert refused == [one.key], f"append_events to a session that is gone refused {refused}"
        assert await clients.one.count_sessions() == 0, "append_events made a session"
        await clients.one.create_session(session_called(name))
        assert not await is_known(clients.other, session=name), "append_events left a stream for a later session"
        await clients.one.delete_session(SessionId(name))


async def reads_go_on_where_they_stopped(clients: Clients) -> None:
    """Reading returns the events beyond a position, in order and no more than the limit; None for what is unknown."""
    one, other = clients.one, clients.other
    await one.create_session(session_called(A))
    assert not await is_known(other), "a stream that nobody began is known"
    assert not await is_known(other, session="gone"), "a stream of a session that is gone is known"
    await append(one, append_of([event_at(3 * n) for n in range(1, 251)], last_position=760))
    for after, limit, expected in (
        (0, 1, [3]),
        (0, 3, [3, 6, 9]),
        (3, 2, [6, 9]),
        (4, 2, [6, 9]),
        (747, 9, [750]),
        (750, 9, []),
        (900, 9, []),
    ):
        slice_ = await other.read_events(A, S, after, limit)
        assert slice_ is not None, f"a stream is unknown beyond {after}"
        kept = positions_of(slice_.events)
        assert kept == expected, f"beyond {after}, at most {limit}, came {kept}, not {expected}"
        assert slice_.record.last_position == 760, f"its last position is {slice_.record.last_position}, not 760"
    paged: list[int] = []
    while (slice_ := await other.read_events(A, S, paged[-1] if paged else 0)) and slice_.events:
        assert len(slice_.events) <= 100, f"{len(slice_.events)} events without a limit given, which means 100"
        paged += positions_of(slice_.events)
    assert paged == [3 * n for n in range(1, 251)], f"page by page came {len(paged)} of 250 events, or others"


async def streams_go_with_their_session(clients: Clients) -> None:
    """A session that is deleted or expires takes its streams along, for a later session of its id as well."""
    one, other = clients.one, clients.other
    for is_deleted in (True, False):
        await one.create_session(session_called(A, expires_at=10.0))
        await append(one, append_of([event_at(1)]), append_of([event_at(1)], stream="ended", is_ended=True))
        if is_deleted:
            await other.delete_session(A)
        else:
            assert len(await other.expire_sessions(10.0)) == 1, "the session did not expire"
        for _ in range(2):
            for name in (S, "ended"):
                assert not await is_known(one, name), f"a stream outlives its session (deleted: {is_deleted})"
                assert await one.claim_stream(A, StreamId(name), OTHER) is None, "a stream can be claimed that is gone"
            if await one.count_sessions() == 0:
                await one.create_session(session_called(A))
        await append(one, append_of([event_at(1)]))
        assert positions_of((await found(other)).events) == [1], "a new stream has events of one that is gone"
        await one.delete_session(A)


async def the_ended_expire(clients: Clients) -> None:
    """Streams that have ended are dropped some time after their newest append; those that go on are not."""
    for name in ("a", "b"):
        await clients.one.create_session(session_called(name))
        for at in range(10):
            appends = [
                append_of([event_at(1)], session=name, stream=f"{kind}{at}", is_ended=kind == "ended", appended_at=at)
                for kind in ("ended", "live")
            ]
            await append(clients.one, *appends)
    # Ended, and then once more: the newest counts.
    await append(clients.one, append_of([event_at(1)], stream="ended0", is_ended=True, appended_at=9.0))
    assert await clients.other.expire_streams(0.0) == 0, "something was dropped before it was due"
    dropped = await clients.other.expire_streams(6.5)
    assert dropped == 13, f"{dropped} streams were dropped, 13 were due"
    left = {
        (name, at) for name in (A, "b") for at in range(10) if await is_known(clients.one, f"ended{at}", session=name)
    }
    assert left == {("a", 0), *((name, at) for name in (A, "b") for at in (7, 8, 9))}, f"{left} are left"
    for name in (A, "b"):
        for at in range(10):
            assert await is_known(clients.one, f"live{at}", session=name), "a stream that goes on was dropped"
    assert await clients.one.expire_streams(6.5) == 0, "streams were dropped twice"
    assert await clients.one.expire_streams(1e9) == 7, "those left were not dropped when they were due"


async def waiting_ends(clients: Clients) -> None:
    """Waiting for events returns within a second, and soon after another client has appended one."""
    await clients.one.create_session(session_called(A))
    await clients.one.renew_owner(OWNER, 60.0)
    await append(clients.one, append_of([event_at(1)]))
    with trio.move_on_after(_PATIENCE) as scope:
        await clients.other.wait_events(A, S, 1)
    assert not scope.cancelled_caught, f"wait_events took more than {_PATIENCE} seconds when nothing came"
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_append_later, clients.one)
        with trio.move_on_after(_PATIENCE) as scope:
            while not (await found(clients.other)).events[1:]:
                await clients.other.wait_events(A, S, 1)
        took = trio.current_time() - began
    assert not scope.cancelled_caught, "an event was appended and wait_events did not return in time"
    assert took < 0.9, f"an event was seen {took:.1f} seconds after it was appended"
    await clients.one.renew_owner(OWNER, 0.0)


async def _append_later(store: SessionStore) -> None:
    await trio.sleep(0.05)
    await append(store, append_of([event_at(2)]))


PROMISES = (
    events_come_back,
    records_come_back,
    repeated_appends_change_nothing,
    what_is_beyond_the_limits_is_dropped,
    superfluous_streams_are_dropped,
    the_gone_take_no_events,
    reads_go_on_where_they_stopped,
    streams_go_with_their_session,
    the_ended_expire,
    waiting_ends,
)
