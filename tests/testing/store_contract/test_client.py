"""What the promises are checked with."""

import pytest
import trio

from shadowcat.errors import SessionConflict, SessionNotFound, StoreUnavailable
from shadowcat.session import InMemoryStore
from shadowcat.testing.store_contract.client import assert_raises, delete_all, race, session_called


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
