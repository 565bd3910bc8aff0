"""The store in memory, beyond the contract of `tests/session/test_store.py`."""

import pytest
import trio
from trio.testing import assert_no_checkpoints

from shadowcat.errors import SessionNotFound
from shadowcat.session import InMemoryStore, Session, SessionId


async def test_no_method_is_a_checkpoint():
    """A look-up on every request: it neither waits nor lets others run."""
    store = InMemoryStore()
    session = Session(id=SessionId("s"))
    with assert_no_checkpoints():
        await store.create_session(session)
        await store.update_session(session)
        await store.get_session(session.id)
        await store.list_sessions()
        await store.count_sessions()
        await store.delete_session(session.id)


async def test_cancellation_stops_nothing():
    """Without a checkpoint a call happens in full."""
    store = InMemoryStore()
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.create_session(Session(id=SessionId("s")))
    assert await store.count_sessions() == 1


async def test_error_tells_the_client_what_to_do():
    """MCP 2025-11-25: on 404 the client MUST start a new session with an InitializeRequest without a session ID."""
    store = InMemoryStore()
    for method in (store.get_session, store.delete_session):
        with pytest.raises(SessionNotFound, match="initialize"):
            await method(SessionId("secret-id"))
    with pytest.raises(SessionNotFound) as excinfo:
        await store.update_session(Session(id=SessionId("secret-id")))
    assert "secret-id" not in str(excinfo.value)


async def test_two_stores_share_nothing():
    """Each has its own sessions."""
    first, second = InMemoryStore(), InMemoryStore()
    await first.create_session(Session(id=SessionId("s")))
    assert await second.count_sessions() == 0
