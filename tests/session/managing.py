"""A session manager to look at from outside."""

from contextlib import asynccontextmanager

import trio

from shadowcat.protocol import ResponseMode
from shadowcat.session import InMemoryStore, SessionConfig, UpstreamSessionId, open_session_manager

RESULT = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "s"}}


class SlowStore(InMemoryStore):
    """A store across a network: a second for each read, and changes can be held up for ever."""

    def __init__(self):
        super().__init__()
        self.is_stuck = False

    async def get_session(self, session_id):
        await trio.sleep(1)
        return await super().get_session(session_id)

    async def update_session(self, session):
        if self.is_stuck:
            await trio.sleep_forever()
        return await super().update_session(session)

    async def delete_session(self, session_id):
        if self.is_stuck:
            await trio.sleep_forever()
        await super().delete_session(session_id)


@asynccontextmanager
async def open_manager(store=None, expired=None, **config):
    """Run a manager that adds to *expired* what it tells of expired sessions."""

    async def on_expired(session):
        if expired is not None:
            expired.append((trio.current_time(), session.id))
        await trio.lowlevel.checkpoint()

    async with open_session_manager(SessionConfig(**config), store or InMemoryStore()) as manager:
        manager.on_expired = on_expired
        yield manager


def create(manager, upstream_id="u", result=RESULT):
    return manager.create(UpstreamSessionId(upstream_id), {"capabilities": {}}, result, ResponseMode.JSON)


async def is_open(manager, session):
    return session.id in {kept.id for kept in await manager.store.list_sessions()}
