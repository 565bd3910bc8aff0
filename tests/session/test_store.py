"""The contract of a session store, whichever it is."""

import attrs
import pytest
import trio

from shadowcat.errors import SessionExists, SessionNotFound
from shadowcat.protocol import ResponseMode
from shadowcat.session import InMemoryStore, Session, SessionId, SessionStore, UpstreamSessionId


class UserStore(SessionStore):
    """The least that somebody else might write: every method is a checkpoint, rows are copies."""

    def __init__(self):
        self.rows = {}

    async def create_session(self, session):
        await trio.lowlevel.checkpoint()
        if session.id in self.rows:
            raise SessionExists(session.id)
        self.rows[session.id] = attrs.asdict(session, recurse=False)

    async def get_session(self, session_id):
        await trio.lowlevel.checkpoint()
        return Session(**self._row(session_id))

    async def update_session(self, session):
        await trio.lowlevel.checkpoint()
        self._row(session.id)
        self.rows[session.id] = attrs.asdict(session, recurse=False)

    async def delete_session(self, session_id):
        await trio.lowlevel.checkpoint()
        self._row(session_id)
        del self.rows[session_id]

    async def list_sessions(self):
        await trio.lowlevel.checkpoint()
        return [Session(**row) for row in self.rows.values()]

    async def count_sessions(self):
        await trio.lowlevel.checkpoint()
        return len(self.rows)

    def _row(self, session_id):
        if session_id not in self.rows:
            raise SessionNotFound(session_id)
        return self.rows[session_id]


STORES = [InMemoryStore, UserStore]


@pytest.fixture(params=STORES)
def store(request):
    return request.param()


def session(name="s", **members):
    return Session(id=SessionId(name), **members)


async def test_session_comes_back_as_it_was_kept(store):
    """Every member survives."""
    kept = session(
        upstream_session_id=UpstreamSessionId("opaque\xff"),
        response_mode=ResponseMode.SSE_STREAM,
        protocol_version="2025-11-25",
        initialize_params={"capabilities": {"roots": {}}, "clientInfo": {"name": "é"}},
        initialize_result={"serverInfo": {"name": "s"}, "n": 1.5},
        created_at=1.5,
    )
    await store.create_session(kept)

    assert kept == await store.get_session(kept.id)
    assert [kept] == list(await store.list_sessions())


async def test_id_is_created_once(store):
    """SessionExists leaves the first as it was."""
    await store.create_session(session(protocol_version="first"))
    with pytest.raises(SessionExists):
        await store.create_session(session(protocol_version="second"))

    assert "first" == (await store.get_session(SessionId("s"))).protocol_version
    assert await store.count_sessions() == 1


async def test_update_replaces_the_whole(store):
    """What the new value does not say is gone."""
    await store.create_session(session(protocol_version="x", initialize_params={"a": 1}))
    await store.create_session(session("other"))
    await store.update_session(session(initialize_result={"b": 2}))

    assert session(initialize_result={"b": 2}) == await store.get_session(SessionId("s"))
    assert session("other") == await store.get_session(SessionId("other"))


async def test_update_creates_nothing(store):
    """A session that ended while a request in it was under way stays ended."""
    with pytest.raises(SessionNotFound):
        await store.update_session(session())
    assert await store.count_sessions() == 0


async def test_deleted_session_is_gone(store):
    """Deleting it again says so; its id may be used anew."""
    await store.create_session(session())
    await store.create_session(session("other"))
    await store.delete_session(SessionId("s"))

    for method in (store.get_session, store.delete_session):
        with pytest.raises(SessionNotFound):
            await method(SessionId("s"))
    assert [session("other")] == list(await store.list_sessions())
    await store.create_session(session())


async def test_unknown_session_is_not_found(store):
    """Also in a store that never had any."""
    for method in (store.get_session, store.delete_session):
        with pytest.raises(SessionNotFound):
            await method(SessionId("never"))
    assert (0, []) == (await store.count_sessions(), list(await store.list_sessions()))


async def test_count_and_list_agree(store):
    """However many there are."""
    for number in range(20):
        assert number == await store.count_sessions() == len(await store.list_sessions())
        await store.create_session(session(str(number)))
    assert {str(number) for number in range(20)} == {kept.id for kept in await store.list_sessions()}


async def test_list_may_be_kept_while_sessions_end(store):
    """A caller that loops over it may end what it finds."""
    for name in "abc":
        await store.create_session(session(name))
    for kept in await store.list_sessions():
        await store.delete_session(kept.id)
    assert await store.count_sessions() == 0


async def test_of_many_who_create_one_id_one_succeeds(store):
    """Each method is atomic."""
    created = []

    async def create(number):
        try:
            await store.create_session(session(protocol_version=str(number)))
        except SessionExists:
            return
        created.append(str(number))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(create, number)

    assert created == [(await store.get_session(SessionId("s"))).protocol_version]


@pytest.mark.parametrize("method", ["create_session", "update_session", "delete_session"])
async def test_cancelled_call_happened_in_full_or_not_at_all(store, method):
    """A store that is cancelled holds the old session, the new one, or none."""
    old, new = session(protocol_version="old"), session(protocol_version="new")
    if method != "create_session":
        await store.create_session(old)
    with trio.CancelScope() as scope:
        scope.cancel()
        await getattr(store, method)(new.id if method == "delete_session" else new)

    kept = list(await store.list_sessions())
    assert kept in ([], [old], [new])
    assert await store.count_sessions() == len(kept)
