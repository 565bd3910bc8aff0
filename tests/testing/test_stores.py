"""The public check of a session store: what passes it, and how it says what is wrong."""

from contextlib import asynccontextmanager

import pytest
import trio

from shadowcat.errors import StoreUnavailable
from shadowcat.session import InMemoryStore, Session, SessionId, SessionStore
from shadowcat.testing import check_session_store

from .opening import WaitingStore, complaint_about, opener


@asynccontextmanager
async def open_own_store():
    store = InMemoryStore()
    yield store
    await store.aclose()


class MinimalStore(SessionStore):
    """Has what `SessionStore` demands, and nothing else."""

    def __init__(self):
        self._store = InMemoryStore()


def _delegate(name):
    async def call(self, *args, **kwargs):
        return await getattr(self._store, name)(*args, **kwargs)

    return call


for _name in SessionStore.__abstractmethods__:
    setattr(MinimalStore, _name, _delegate(_name))
MinimalStore.__abstractmethods__ = frozenset()


@pytest.mark.parametrize("store_class", [InMemoryStore, WaitingStore, MinimalStore])
async def test_a_store_that_keeps_every_promise_passes(store_class):
    """R01, R20: also one whose every call takes several steps, and one that has only what is abstract."""
    with trio.fail_after(60):
        await check_session_store(opener(store_class()))


async def test_a_store_that_nobody_shares_passes():
    """Each opening may be a store of its own, if that is said."""
    with trio.fail_after(60):
        await check_session_store(open_own_store, sessions=50, is_shared=False)


async def test_a_store_that_is_not_shared_as_it_should_be_fails():
    with trio.fail_after(60), pytest.raises(AssertionError, match="comes back as it was created"):
        await check_session_store(open_own_store, sessions=50)


async def test_a_store_in_use_is_not_touched():
    """Checking the wrong store by mistake deletes nothing."""
    store = InMemoryStore()
    await store.create_session(Session(id=SessionId("precious")))

    with pytest.raises(AssertionError, match="must be empty, and has 1 sessions"):
        await check_session_store(opener(store))

    assert 1 == await store.count_sessions()


async def test_the_check_leaves_the_store_empty():
    store = InMemoryStore()
    await check_session_store(opener(store), sessions=50)
    assert 0 == await store.count_sessions()


class UnreachableStore(InMemoryStore):
    async def get_session(self, session_id):
        raise StoreUnavailable("nobody is there")


async def test_a_store_that_fails_is_told_where():
    """An error of the store's own is named together with the promise it broke."""
    complaint = await complaint_about(UnreachableStore)
    assert "every field of it, to every client.  Here StoreUnavailable was raised: nobody is there." in complaint


class BuggyStore(InMemoryStore):
    async def get_session(self, session_id):
        raise KeyError("bug")


async def test_a_bug_keeps_its_traceback():
    """What is no answer of a store comes out as it is, with the promise as a note."""
    with pytest.raises(KeyError, match="bug") as excinfo:
        await check_session_store(opener(BuggyStore()))
    assert any("comes back as it was created" in note for note in excinfo.value.__notes__)


class ClosingStore(InMemoryStore):
    def __init__(self):
        super().__init__()
        self.is_closed = False

    async def aclose(self):
        if self.is_closed:
            raise StoreUnavailable("closed already")
        self.is_closed = True


class ForgettingStore(InMemoryStore):
    async def aclose(self):
        self._entries.clear()


@pytest.mark.parametrize(
    ("store_class", "sentence"),
    [
        (ClosingStore, "A store can be closed twice."),
        (ForgettingStore, "What was written is there after the store was closed and opened again"),
    ],
)
async def test_closing_is_checked(store_class, sentence):
    assert sentence in await complaint_about(store_class)
