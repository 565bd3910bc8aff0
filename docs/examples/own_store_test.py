"""Check that the store keeps its promises.

pytest own_store_test.py
"""

from contextlib import asynccontextmanager

import trio
from own_store import DirectoryStore

from shadowcat.testing import check_session_store


async def test_the_store_keeps_every_promise(tmp_path):
    @asynccontextmanager
    async def open_store():
        yield DirectoryStore(tmp_path)

    with trio.fail_after(60):
        await check_session_store(open_store, sessions=200)
