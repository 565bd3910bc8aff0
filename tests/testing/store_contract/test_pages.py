"""Stores whose pages miss somebody, and what they are told."""

import pytest

from shadowcat.session import InMemoryStore
from shadowcat.session.store import IdPage

from ..opening import complaint_about


class FirstPageStore(InMemoryStore):
    """Has one page."""

    async def list_session_ids(self, after=None, limit=100):
        page = await super().list_session_ids(after, limit)
        return IdPage(page.ids, None)


class GenerousStore(InMemoryStore):
    """Does not count."""

    async def list_session_ids(self, after=None, limit=100):
        return await super().list_session_ids(after, 2 * limit)


class CountingStore(InMemoryStore):
    """Pages by how many came before, which shifts when one of them ends."""

    async def list_session_ids(self, after=None, limit=100):
        start = int(after or 0)
        ids = list(self._entries)[start : start + limit]
        return IdPage(ids, str(start + limit) if len(ids) == limit else None)


class EndlessStore(InMemoryStore):
    """Begins anew at the end."""

    async def list_session_ids(self, after=None, limit=100):
        page = await super().list_session_ids(after, limit)
        return IdPage(page.ids, page.next or ("0" if page.ids else None))


BROKEN = [
    (FirstPageStore, "Following `next` meets every session once", "30 sessions, 7 were met"),
    (GenerousStore, "Following `next` meets every session once", "7 ids were asked for, and 14 came"),
    (CountingStore, "A session that is there all the time is met", "were missed"),
    (EndlessStore, "Following `next` meets every session once", "another page after 1000"),
]


@pytest.mark.parametrize(("store_class", "promise", "detail"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
async def test_a_store_whose_pages_miss_somebody_is_told(store_class, promise, detail):
    complaint = await complaint_about(store_class)
    assert promise in complaint
    assert detail in complaint
