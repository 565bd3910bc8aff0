"""A session as it is kept."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.session import Session, SessionId, SessionState, TransportType, parse_session_id
from shadowcat.session.model import new_session_id


def test_ids_cannot_be_guessed():
    """MCP 2025-11-25, Session Management: globally unique and cryptographically secure."""
    ids = {new_session_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert {len(id) for id in ids} == {32}


def test_our_own_ids_are_parsed():
    """MCP 2025-11-25, Session Management: only visible ASCII characters (0x21 to 0x7E)."""
    for _ in range(100):
        session_id = new_session_id()
        assert session_id == parse_session_id(session_id.encode())


@pytest.mark.parametrize("value", [b"", b" ", b"a b", b"a\t", b"\x7f", b"\xe9", b"a\n", b"\0", b"x" * 257])
def test_what_no_session_can_have_is_none(value):
    """Neither the store nor a log ever sees such an id."""
    assert parse_session_id(value) is None


@pytest.mark.parametrize("value", [b"!", b"~", b"x" * 256, b'";DROP-TABLE', b"../../etc"])
def test_visible_ascii_may_be_an_id(value):
    """Whether there is such a session is the store's to say."""
    assert value.decode() == parse_session_id(value)


@given(st.binary())
def test_no_bytes_raise(value):
    """A header is an id or none."""
    parse_session_id(value)


def test_session_is_never_changed():
    """An update is another value, so that who holds one need not fear another task."""
    session = Session(id=SessionId("a"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        session.protocol_version = "2025-11-25"  # type: ignore[misc]

    assert Session(id=SessionId("a"), protocol_version="x") == attrs.evolve(session, protocol_version="x")


def test_client_comes_by_streamable_http_unless_told_otherwise():
    """The transport of both eras."""
    assert Session(id=SessionId("a")).transport_type is TransportType.STREAMABLE_HTTP


def test_session_that_says_nothing_lives_for_ever():
    """Until its manager says when it was used, nobody may end it; its first revision is 0."""
    session = Session(id=SessionId("a"))
    assert (session.expires_at, session.last_activity, session.revision) == (math.inf, 0.0, 0)
    assert (session.state, session.upstream_name, session.principal) == (SessionState.INITIALIZING, "default", None)


def test_sessions_share_nothing_that_can_be_changed():
    """Each has mappings of its own."""
    one, other = Session(id=SessionId("a")), Session(id=SessionId("b"))
    for name in ("initialize_params", "initialize_result", "metadata", "unknown"):
        assert getattr(one, name) == {}
        assert getattr(one, name) is not getattr(other, name)
