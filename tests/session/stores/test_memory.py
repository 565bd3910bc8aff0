"""The store in memory: the contract, and what is particular to it."""

import attrs
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.session import Activity, InMemoryStore, Session, SessionId
from shadowcat.testing import check_session_store
from tests.testing.opening import opener


async def test_it_keeps_the_contract():
    with trio.fail_after(60):
        await check_session_store(opener(InMemoryStore()), sessions=5000)


async def test_no_call_is_a_checkpoint():
    """A look-up does not wait, so a cancelled task still gets it."""
    store = InMemoryStore()
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.create_session(Session(id=SessionId("a")))
        await store.get_session(SessionId("a"))
    assert not scope.cancelled_caught
    assert 1 == await store.count_sessions()


async def test_it_outlives_its_closing():
    """The object is the store: closing it loses nothing."""
    store = InMemoryStore()
    await store.create_session(Session(id=SessionId("a")))
    await store.aclose()
    assert 1 == await store.count_sessions()


async def test_frames_are_bounded():
    """C-28: the newest thousand are kept, and no more."""
    store = InMemoryStore()
    await store.create_session(Session(id=SessionId("a")))
    for number in range(1500):
        await store.add_frame(MessageEnvelope("a", Direction.TO_CLIENT, str(number).encode(), 0.0))
    frames = await store.get_frames(SessionId("a"))
    assert [str(number).encode() for number in range(500, 1500)] == [frame.message for frame in frames]


async def test_touches_do_not_pile_up():
    """A session that is touched a million times stands in the queue of expiries once."""
    store = InMemoryStore()
    session = Session(id=SessionId("a"), expires_at=10.0)
    await store.create_session(session)
    for number in range(1000):
        await store.touch_sessions([Activity(session.id, float(number), 10.0 + number)])
        await store.expire_sessions(float(number))
    assert 1 == len(store._due)


async def test_what_was_handed_out_does_not_change():
    """A session is a value: whoever holds one keeps it."""
    store = InMemoryStore()
    await store.create_session(Session(id=SessionId("a")))
    before = await store.get_session(SessionId("a"))
    listed = await store.list_sessions()
    await store.update_session(attrs.evolve(before, principal="somebody"))
    assert before.principal is None
    assert [before] == list(listed)


async def test_the_order_of_ended_sessions_is_not_kept():
    """What pages are made from is bounded by the number of sessions there are."""
    store = InMemoryStore()
    await store.create_session(Session(id=SessionId("stays")))
    for number in range(1000):
        await store.create_session(Session(id=SessionId(str(number))))
        await store.delete_session(SessionId(str(number)))

    assert 100 > len(store._order)
    assert ["stays"] == (await store.list_session_ids()).ids
