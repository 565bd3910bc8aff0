"""The routes of sessions and their streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from ..session import IdPage, Session
from .desk import Desk
from .key import find_by_key, key_of
from .route import Call
from .view import last_activity_of, view_session, view_session_in_full, view_stream

log = logging.getLogger(__name__)

_AT_ONCE = 100
"""Sessions that the store is asked for at once."""

_SHOWN_AT_ONCE = 25
"""Sessions or streams that are made readable in a row: half a millisecond."""

_MAX_LOOKS = 2000
"""Sessions that are looked at for one page; if few of them match, the page is short."""

_MAX_ROUNDS = 25
"""Times that the store is asked for ids for one page."""


async def list_sessions(desk: Desk, call: Call) -> object:
    """Return a page of sessions."""
    await trio.lowlevel.checkpoint()
    cursor, limit = call.query["cursor"], call.query["limit"]
    after = None if cursor is None else desk.session_places.get(cursor)
    is_wanted = _filter(desk, call)
    found: list[dict[str, Any]] = []
    looks = 0
    for _ in range(_MAX_ROUNDS):
        # As many as are missing, so that none has to be left for the next page.
        page = await desk.store.list_session_ids(after, min(limit - len(found), _AT_ONCE))
        found += await _look_at(desk, page, is_wanted)
        looks += len(page.ids)
        after = page.next
        if after is None or len(found) >= limit or looks >= _MAX_LOOKS:
            break
    return {"sessions": found, "next": None if after is None else desk.session_places.put(after)}


def _filter(desk: Desk, call: Call) -> Callable[[Session], bool]:
    server, idle = call.query["server"], call.query["idle"]
    now = desk.sessions.now()

    def is_wanted(session: Session) -> bool:
        if server is not None and session.upstream_name != server:
            return False
        return idle is None or now - last_activity_of(session, desk.sessions) > idle

    return is_wanted


async def _look_at(desk: Desk, page: IdPage, is_wanted: Callable[[Session], bool]) -> list[dict[str, Any]]:
    await trio.lowlevel.checkpoint()
    sessions = await desk.store.get_sessions_batch(page.ids)
    found = []
    for start in range(0, len(sessions), _SHOWN_AT_ONCE):
        await trio.lowlevel.checkpoint()
        some = sessions[start : start + _SHOWN_AT_ONCE]
        found += [view_session(session, desk.sessions) for session in some if is_wanted(session)]
    return found


async def show_session(desk: Desk, call: Call) -> object:
    """Return one session in full."""
    return view_session_in_full(await find_by_key(desk.store, call.path["key"]), desk.sessions)


async def end_session(desk: Desk, call: Call) -> object:
    """End one session, here and upstream."""
    session = await find_by_key(desk.store, call.path["key"])
    key = key_of(session.id)
    log.info("session %s is ended by way of the admin API", key)
    await desk.app.end_session(session)
    return {"key": key, "is_ended": True}


async def list_streams(desk: Desk, call: Call) -> object:
    """Return a page of the streams that there were as the listing began, and still are."""
    await trio.lowlevel.checkpoint()
    cursor, limit, session = call.query["cursor"], call.query["limit"], call.query["session"]
    keys, start = (desk.sessions.streams.keys(), 0) if cursor is None else desk.stream_places.get(cursor)
    found: list[dict[str, Any]] = []
    end = min(len(keys), start + _MAX_LOOKS)
    while start < end and len(found) < limit:
        stop = min(end, start + min(_SHOWN_AT_ONCE, limit - len(found)))
        for key in keys[start:stop]:
            stream = desk.sessions.streams.get(key)
            if stream is not None and (session is None or key_of(key.session_id) == session):
                found.append(view_stream(stream))
        start = stop
        await trio.lowlevel.checkpoint()
    return {"streams": found, "next": desk.stream_places.put((keys, start)) if start < len(keys) else None}
