"""The routes of the process as a whole: its store, settings, counts and log."""

from __future__ import annotations

import logging

import trio

from ..errors import InvalidRequest
from ..session import SessionStore
from ..telemetry import LEVELS
from .desk import Desk
from .mask import masked
from .route import Call
from .view import plain

log = logging.getLogger(__name__)

_KINDS = {"InMemoryStore": "memory", "SqliteStore": "sqlite", "RedisStore": "redis"}


async def show_health(_desk: Desk, _call: Call) -> object:
    """Say that the process answers."""
    await trio.lowlevel.checkpoint()
    return {"status": "ok"}


async def show_store(desk: Desk, _call: Call) -> object:
    """Return how sessions are kept."""
    # Imported here, because a proxy need not have it to start.
    from ..session import FailoverStore

    store: SessionStore = desk.store
    failover = None
    if isinstance(store, FailoverStore):
        failover, store = plain(store.statistics()), store.primary
    return {
        "kind": _KINDS.get(type(store).__name__, "other"),
        "sessions": await desk.store.count_sessions(),
        "keeps_streams": store.keeps_streams,
        "persistence": plain(desk.sessions.persistence_statistics()),
        "failover": failover,
    }


async def show_config(desk: Desk, _call: Call) -> object:
    """Return the settings, without secrets."""
    await trio.lowlevel.checkpoint()
    return {"config": masked(desk.app.settings)}


async def show_statistics(desk: Desk, _call: Call) -> object:
    """Return what the proxy has done so far."""
    await trio.lowlevel.checkpoint()
    return plain(desk.app.statistics())


async def show_log_level(_desk: Desk, _call: Call) -> object:
    """Return the least level that is logged."""
    await trio.lowlevel.checkpoint()
    return {"level": logging.getLevelName(logging.getLogger().level).lower()}


async def set_log_level(desk: Desk, call: Call) -> object:
    """Log from another level on."""
    level = call.body.get("level")
    if level not in LEVELS or len(call.body) > 1:
        raise InvalidRequest(f'send {{"level": LEVEL}}, with one of: {", ".join(LEVELS)}')
    logging.getLogger().setLevel(level.upper())
    log.log(logging.getLogger().level, "the log level is %s now, by way of the admin API", level)
    return await show_log_level(desk, call)
