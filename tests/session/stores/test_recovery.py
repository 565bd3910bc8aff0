"""Telling a store what it missed, while more goes on."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import attrs
import pytest
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import StoreCorrupt, StoreUnavailable
from shadowcat.session import Activity, InMemoryStore, Session, SessionId
from shadowcat.session.stores.backlog import Backlog
from shadowcat.session.stores.recovery import Recovery

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

A = SessionId("a")


class MeddledStore(InMemoryStore):
    """Has the test do something else in the middle of a call."""

    def __init__(self):
        super().__init__()
        self.meddle = lambda: None

    def _meddle(self):
        meddle, self.meddle = self.meddle, lambda: None
        meddle()


def _meddled(method):
    async def call(self, *args):
        outcome = await method(self, *args)
        self._meddle()
        return outcome

    return call


for _name in ("create_session", "update_session", "touch_sessions", "store_event_ids_batch", "add_frame"):
    setattr(MeddledStore, _name, _meddled(getattr(InMemoryStore, _name)))


async def ask(operation: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    await trio.lowlevel.checkpoint()
    return await operation(*args)


@pytest.fixture
def primary():
    return MeddledStore()


@pytest.fixture
def backlog():
    return Backlog(max_copies=100, max_pending=100)


@pytest.fixture
def recovery(primary, backlog):
    return Recovery(primary, backlog, ask)


def session(**fields):
    return Session(id=A, expires_at=1000.0, **fields)


async def seen(primary, backlog):
    await primary.create_session(session())
    return backlog.saw(session(), is_new=True)


def frame(text):
    return MessageEnvelope("a", Direction.TO_CLIENT, text, 1.0)


async def test_an_update_in_the_middle_of_an_update_is_written_next(primary, backlog, recovery):
    first = backlog.update(await seen(primary, backlog), is_attempted=False)
    primary.meddle = lambda: backlog.update(attrs.evolve(first, principal="later"), is_attempted=False)
    await recovery.push()
    found = await primary.get_session(A)
    assert ("later", 2, 0) == (found.principal, found.revision, recovery.conflicts)


async def test_an_update_in_the_middle_of_a_creation_is_written_next(primary, backlog, recovery):
    backlog.create(session(), is_attempted=False)
    primary.meddle = lambda: backlog.update(attrs.evolve(backlog.get(A), principal="later"), is_attempted=False)
    await recovery.push()
    assert "later" == (await primary.get_session(A)).principal
    assert 0 == recovery.conflicts


async def test_a_delete_in_the_middle_of_a_creation_is_written_next(primary, backlog, recovery):
    """It is no longer certain that the store has never heard of the session."""
    backlog.create(session(), is_attempted=False)
    primary.meddle = lambda: backlog.delete(A)
    await recovery.push()
    assert 0 == await primary.count_sessions()
    assert 0 == backlog.pending


async def test_what_is_replaced_while_it_is_written_stays_owed(primary, backlog, recovery):
    await seen(primary, backlog)
    backlog.touch(Activity(A, 1.0, 2000.0))
    primary.meddle = lambda: backlog.touch(Activity(A, 2.0, 3000.0))
    await recovery.push()
    backlog.store_event_id(A, "1")
    primary.meddle = lambda: backlog.store_event_id(A, "2")
    await recovery.push()
    assert 3000.0 == (await primary.get_session(A)).expires_at
    assert "2" == await primary.get_last_event_id(A)


async def test_frames_deleted_while_they_are_written_are_not_skipped(primary, backlog, recovery):
    """Those that were added after that are written too."""

    def meddle():
        backlog.drop_frames(A)
        backlog.add_frame(frame(b"2"))

    await seen(primary, backlog)
    backlog.add_frame(frame(b"1"))
    primary.meddle = meddle
    await recovery.push()
    assert [b"1", b"2"] == [found.message for found in await primary.get_frames(A)]


async def test_a_creation_whose_reply_is_lost_is_no_conflict(primary, backlog, recovery):
    def fall_silent():
        raise StoreUnavailable("after it was done")

    backlog.create(session(), is_attempted=False)
    primary.meddle = fall_silent
    with pytest.raises(StoreUnavailable):
        await recovery.push()
    assert 1 == backlog.pending
    await recovery.push()
    assert (1, 0, 0) == (await primary.count_sessions(), recovery.conflicts, backlog.pending)


async def test_another_session_of_that_id_stays(primary, backlog, recovery):
    """Ids are random, so this takes a copied database; but theirs was first."""
    await primary.create_session(session(principal="elsewhere"))
    backlog.create(session(principal="here"), is_attempted=False)
    await recovery.push()
    assert "elsewhere" == (await primary.get_session(A)).principal
    assert (1, 0) == (recovery.conflicts, backlog.pending)


async def test_what_cannot_be_read_does_not_stop_the_rest(primary, backlog, recovery):
    def be_corrupt():
        raise StoreCorrupt("not a session")

    backlog.create(session(), is_attempted=False)
    backlog.create(Session(id=SessionId("b")), is_attempted=False)
    primary.meddle = be_corrupt
    await recovery.push()
    assert (1, 0) == (recovery.conflicts, backlog.pending)
    assert "b" == (await primary.get_session(SessionId("b"))).id
