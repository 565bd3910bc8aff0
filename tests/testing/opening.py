"""What the tests of the store contract open."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from shadowcat.session import InMemoryStore
from shadowcat.testing import check_session_store


def opener(store):
    """Return what opens *store*, which everybody shares."""

    @asynccontextmanager
    async def open_store():
        yield store

    return open_store


async def complaint_about(store_class):
    """Return what the check says about a store that breaks a promise."""
    with trio.fail_after(60), pytest.raises(AssertionError) as excinfo:
        await check_session_store(opener(store_class()), sessions=30)
    return str(excinfo.value)


class WaitingStore(InMemoryStore):
    """Waits before and after everything it does, as a store at the end of a connection does."""


def _waiting(method):
    async def wait_and_call(self, *args, **kwargs):
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        outcome = await method(self, *args, **kwargs)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return outcome

    return wait_and_call


for _name in InMemoryStore.__abstractmethods__ | {n for n in vars(InMemoryStore) if n[0] != "_"}:
    if callable(getattr(InMemoryStore, _name)):
        setattr(WaitingStore, _name, _waiting(getattr(InMemoryStore, _name)))
