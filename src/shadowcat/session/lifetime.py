"""How long what belongs to sessions runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from .config import SessionConfig
from .manager import SessionManager
from .store import SessionStore

_FAREWELL_TIMEOUT = 1.0
"""Seconds that the store has to note that other proxies may take over at once."""


@asynccontextmanager
async def open_session_manager(config: SessionConfig, store: SessionStore) -> AsyncGenerator[SessionManager, None]:
    """Run a `SessionManager` for as long as the block lasts.

    Sessions stay in *store*, which is not closed; what is to be written behind
    is written before this returns, for a few seconds at most, also when cancelled.
    """
    manager = SessionManager(store, config)
    try:
        async with (
            trio.open_nursery() as persistence,
            trio.open_nursery() as reaping,
            trio.open_nursery() as tasks,
        ):
            manager.open(persistence, tasks)
            reaping.start_soon(manager.run)
            yield manager
            tasks.cancel_scope.cancel()
            reaping.cancel_scope.cancel()
            persistence.cancel_scope.cancel()
    finally:
        with trio.move_on_after(_FAREWELL_TIMEOUT, shield=True):
            await manager.give_up_streams()
