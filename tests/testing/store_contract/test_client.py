"""What the promises are checked with."""

import pytest
import trio

from shadowcat.errors import SessionConflict, SessionNotFound, StoreUnavailable
from shadowcat.session import InMemoryStore
from shadowcat.testing.store_contract.client import (
    LIMITS,
    append,
    append_of,
    assert_raises,
    delete_all,
    event_at,
    found,
    is_known,
    positions_of,
    race,
    session_called,
)


def raising(error):
    async def operation():
        await trio.lowlevel.checkpoint()
        raise error

    return operation


async def returning():
    await trio.lowlevel.checkpoint()
    return 1


async def test_a_race_returns_every_outcome():
    """Answers of a store are outcomes, in the order of what was asked."""
    outcomes = await race([returning, raising(SessionConflict("no")), returning])
    assert [1, SessionConflict, 1] == [outcome if outcome == 1 else type(outcome) for outcome in outcomes]


async def test_a_failure_in_a_race_comes_out_plain():
    """No exception group hides it."""
    with pytest.raises(StoreUnavailable):
        await race([raising(StoreUnavailable("gone")), returning])


async def test_what_should_raise_and_does_not_is_named():
    await assert_raises(SessionNotFound, raising(SessionNotFound("none")), "reading")
    with pytest.raises(AssertionError, match="reading did not raise SessionNotFound"):
        await assert_raises(SessionNotFound, returning, "reading")
    with pytest.raises(AssertionError, match="reading raised SessionConflict, not SessionNotFound"):
        await assert_raises(SessionNotFound, raising(SessionConflict("x")), "reading")


async def test_delete_all_empties_a_store():
    store = InMemoryStore()
    for name in "abc":
        await store.create_session(session_called(name))
    await delete_all(store)
    assert 0 == await store.count_sessions()


async def test_what_is_appended_is_found():
    """And what is not is a broken promise, in words."""
    store = InMemoryStore()
    await store.create_session(session_called("a"))
    await append(store, append_of([event_at(1), event_at(4)]))

    slice_ = await found(store)
    assert ([1, 4], 4) == (positions_of(slice_.events), slice_.record.last_position)
    assert (True, False) == (await is_known(store), await is_known(store, "t"))
    with pytest.raises(AssertionError, match="the stream 't' is not there"):
        await found(store, "t")
    with pytest.raises(AssertionError, match="refused 1 of 2"):
        await append(store, append_of(), append_of(session="gone"), limits=LIMITS)
