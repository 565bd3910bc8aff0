"""Sessions by another name than their id."""

from hashlib import sha256

import pytest

from shadowcat.admin.key import find_by_key, key_of
from shadowcat.errors import SessionNotFound
from shadowcat.session import InMemoryStore, SessionId

from .administering import fill


def test_a_key_is_stable_and_short():
    assert key_of("s-1") == sha256(b"s-1").hexdigest()[:16] != key_of("s-2")


async def test_a_session_is_found_by_its_key_wherever_it_stands():
    store = InMemoryStore()
    ids = await fill(store, 1234)
    for session_id in (ids[0], ids[499], ids[500], ids[-1]):
        assert session_id == (await find_by_key(store, key_of(session_id))).id


@pytest.mark.parametrize("key", ["", "s-00001", "0" * 16, "../../etc", "\ud800", "Z" * 16])
async def test_an_unknown_key_is_told_where_to_look(key):
    store = InMemoryStore()
    await fill(store, 3)
    with pytest.raises(SessionNotFound, match="GET /v1/sessions"):
        await find_by_key(store, key)


async def test_a_session_that_ends_as_it_is_found_is_not_found():
    class EndingStore(InMemoryStore):
        async def get_session(self, session_id):
            raise SessionNotFound("send initialize")

    store = EndingStore()
    (session_id,) = await fill(store, 1)
    with pytest.raises(SessionNotFound, match="GET /v1/sessions"):
        await find_by_key(store, key_of(SessionId(session_id)))
