"""What is known of a store that is down, and what it is owed."""

import attrs
import pytest

from shadowcat.errors import SessionConflict, SessionNotFound, StoreUnavailable
from shadowcat.session import Activity, Session, SessionId
from shadowcat.session.stores.backlog import Backlog

A = SessionId("a")


@pytest.fixture
def backlog():
    return Backlog(max_copies=3, max_pending=100)


def session(name="a", **fields):
    return Session(id=SessionId(name), expires_at=10.0, **fields)


def test_a_late_answer_does_not_take_a_copy_back(backlog):
    """Of two reads at once the older may arrive last."""
    backlog.saw(session(revision=5))
    backlog.saw(session(revision=4))
    assert 5 == backlog.get(A).revision


def test_a_late_answer_does_not_bring_a_session_back(backlog):
    """C-33: what was deleted is not served, however slow a read was."""
    backlog.saw(session())
    backlog.saw_gone(A)
    backlog.saw(session())
    with pytest.raises(SessionNotFound):
        backlog.get(A)


def test_an_answer_is_handed_out_as_it_came(backlog):
    """A store that lost its last second is right all the same."""
    backlog.saw(session(revision=5))
    assert 4 == backlog.saw(session(revision=4)).revision


def test_the_copies_used_longest_ago_are_dropped(backlog):
    for name in "abc":
        backlog.saw(session(name))
    backlog.get(A)
    backlog.saw(session("d"))
    assert {"a", "c", "d"} == {known.id for known in backlog.sessions()}


def test_what_is_owed_is_not_dropped(backlog):
    backlog.saw(session())
    backlog.update(session(principal="here"), is_attempted=False)
    for name in "bcdefg":
        backlog.saw(session(name))
    assert "here" == backlog.get(A).principal


def test_an_update_of_a_session_whose_copy_was_dropped_is_taken(backlog):
    """Its caller read it; the store will compare."""
    assert 5 == backlog.update(session(revision=4), is_attempted=False).revision
    assert 4 == backlog.owed[A].base
    with pytest.raises(SessionConflict):
        backlog.update(session(revision=4), is_attempted=False)


def test_touches_coalesce_to_the_latest_times(backlog):
    backlog.touch(Activity(A, 5.0, 50.0))
    backlog.touch(Activity(A, 4.0, 60.0))
    backlog.touch(Activity(A, 6.0, 40.0))
    assert {A: Activity(A, 6.0, 60.0)} == backlog.touches


def test_the_gone_are_not_touched(backlog):
    backlog.saw(session())
    backlog.saw_gone(A)
    backlog.touch(Activity(A, 5.0, 50.0))
    assert 0 == backlog.pending


def test_an_update_does_not_move_the_times(backlog):
    backlog.saw(session())
    backlog.touch(Activity(A, 5.0, 50.0))
    stored = backlog.update(session(last_activity=99.0), is_attempted=False)
    assert (5.0, 50.0) == (stored.last_activity, stored.expires_at)


def test_only_the_born_expire(backlog):
    backlog.saw(session())
    backlog.update(session(), is_attempted=False)
    backlog.create(session("maybe"), is_attempted=True)
    for name in "cde":
        backlog.create(session(name), is_attempted=False)
    assert [] == backlog.expire(9.0, 100)
    assert ["c", "d"] == [expired.id for expired in backlog.expire(10.0, 2)]
    assert ["e"] == [expired.id for expired in backlog.expire(10.0, 100)]


def test_the_event_id_of_a_copy_is_known_only_if_it_was_seen(backlog):
    backlog.saw(session())
    with pytest.raises(StoreUnavailable):
        backlog.event_id(A)
    backlog.saw_event_id(A, None)
    assert backlog.event_id(A) is None


def test_a_session_that_has_to_be_deleted_first_cannot_be_created(backlog):
    backlog.saw(session())
    backlog.delete(A)
    with pytest.raises(StoreUnavailable):
        backlog.create(session(), is_attempted=False)


def test_settling_keeps_the_event_id(backlog):
    backlog.saw(session(), is_new=True)
    backlog.update(session(), is_attempted=False)
    backlog.store_event_id(A, "7")
    backlog.settle(A, attrs.evolve(session(), revision=1))
    backlog.event_ids.clear()
    assert "7" == backlog.event_id(A)
