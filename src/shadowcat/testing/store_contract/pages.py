"""Promises about listing sessions page by page: nobody is missed, whatever happens between two pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ...session import Activity, SessionId
from .client import NEVER, Clients, session_called

_LIMIT = 7
_PATIENCE = 1000
"""Pages after which a walk is taken for one that never ends."""


async def pages_have_everybody(clients: Clients) -> None:
    """Following `next` meets every session once, in pages that are no longer than asked for."""
    first = await clients.one.list_session_ids(None, _LIMIT)
    assert (list(first.ids), first.next) == ([], None), "an empty store has a page"
    ids = await _fill(clients, min(clients.sessions, 100))
    met = await _walk(clients, _nothing)
    assert sorted(met) == sorted(ids), f"{len(ids)} sessions, {len(set(met))} were met, {len(met)} times in all"


async def pages_survive_changes(clients: Clients) -> None:
    """A session that is there all the time is met, though others are made, used and ended between two pages."""
    ids = await _fill(clients, min(clients.sessions, 100))
    gone: set[SessionId] = set()
    made: list[SessionId] = []

    async def change(page: Sequence[SessionId]) -> None:
        await trio.lowlevel.checkpoint()
        ending = [session_id for session_id in (*page[-1:], *page[:1]) if session_id not in gone]
        for session_id in dict.fromkeys(ending):
            await clients.one.delete_session(session_id)
            gone.add(session_id)
        await clients.other.touch_sessions([Activity(session_id, 2.0, NEVER + 1.0) for session_id in page[1:3]])
        if len(made) < 10:
            made.append(SessionId(f"made-{len(made)}"))
            await clients.one.create_session(session_called(made[-1]))

    met = await _walk(clients, change)
    missed = set(ids) - gone - set(met)
    assert not missed, f"{len(missed)} sessions that were there all the time were missed"


async def _nothing(_page: Sequence[SessionId]) -> None:
    await trio.lowlevel.checkpoint()


async def _fill(clients: Clients, count: int) -> list[SessionId]:
    """Make sessions, many of which expire at the same time."""
    await trio.lowlevel.checkpoint()
    sessions = [session_called(f"page-{n:03}", expires_at=NEVER + n % 3) for n in range(count)]
    for session in sessions:
        await clients.one.create_session(session)
        await trio.lowlevel.checkpoint()
    return [session.id for session in sessions]


async def _walk(clients: Clients, between: Callable[[Sequence[SessionId]], Awaitable[None]]) -> list[SessionId]:
    met: list[SessionId] = []
    following: str | None = None
    for number in range(_PATIENCE):
        page = await clients.either(number).list_session_ids(following, _LIMIT)
        assert len(page.ids) <= _LIMIT, f"{_LIMIT} ids were asked for, and {len(page.ids)} came"
        met += page.ids
        following = page.next
        if following is None:
            return met
        await between(page.ids)
    raise AssertionError(f"there was another page after {_PATIENCE}")


PROMISES = (pages_have_everybody, pages_survive_changes)
