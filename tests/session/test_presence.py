"""What one process has under way in a session, by itself."""

import pytest

from shadowcat.session import Session, SessionId
from shadowcat.session import presence as module
from shadowcat.session.presence import Presence, Presences, id_key


@pytest.fixture
def presence():
    return Presence(0.0, 0.0)


def test_session_costs_the_same_however_many_ids_were_replaced(presence, monkeypatch):
    """A session that never ends keeps the latest."""
    monkeypatch.setattr(module, "_MAX_MINTED", 3)
    presence.hold(b"1")
    sent = []
    for _ in range(5):
        held = presence.hold(b"1")
        sent.append(held.sent_id)
        held.release()
    assert list(presence.minted) == sent[2:]


def test_nothing_is_left_of_a_call_that_is_over(presence):
    """... but the ids that an answer may come late for."""
    held = [presence.hold(request_id) for request_id in (b"1", b'"1"', b"2", b'""', b"1")]
    for one in held:
        one.release()
    assert presence.in_flight == {}
    assert sorted(presence.minted.values()) == [b'"1"', b"1"]


@pytest.mark.parametrize(("request_id", "key"), [(b"1", b"1"), (b'"1"', b"1"), (b'""', b""), (b'"a"', b"a")])
def test_ids_are_compared_as_a_careless_server_does(request_id, key):
    assert id_key(request_id) == key


async def test_presence_is_made_at_first_use_and_forgotten_once(autojump_clock):
    """Looking for one makes none."""
    presences, session = Presences(), Session(id=SessionId("s"), created_at=7.0)
    assert presences.get(session.id) is None
    assert presences.pop(session.id) is None
    presence = presences.of(session)
    assert presence is presences.of(session) is presences.get(session.id)
    assert (presence.created_at, presences.items()) == (7.0, [(session.id, presence)])
    assert presences.pop(session.id) is presence
    assert list(presences) == []


async def test_sessions_may_be_forgotten_while_all_are_looked_at(autojump_clock):
    presences = Presences()
    for name in "abc":
        presences.of(Session(id=SessionId(name)))
    for session_id, _ in presences.items():
        presences.pop(session_id)
    for name in "abc":
        presences.of(Session(id=SessionId(name)))
    for _ in presences:
        presences.pop(presences.items()[0][0])
    assert list(presences) == []
