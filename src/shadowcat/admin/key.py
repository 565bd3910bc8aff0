"""What a session is called where its id must not be seen."""

from __future__ import annotations

import re
from hashlib import sha256

import trio

from ..errors import SessionNotFound
from ..session import Session, SessionId, SessionStore

_LENGTH = 16
_KEY = re.compile(rf"[0-9a-f]{{{_LENGTH}}}")
_IDS_AT_ONCE = 500
"""Hashed in a row: half a millisecond."""


def key_of(session_id: str) -> str:
    """Return the key of a session, the same in every process.  Nobody finds the id by it."""
    return sha256(session_id.encode(errors="surrogatepass")).hexdigest()[:_LENGTH]


async def find_by_key(store: SessionStore, key: str) -> Session:
    """Return the session with *key*.  Looks at ids only, some at a time.  Cancel safe.

    Raises:
        SessionNotFound: There is none.
    """
    after: str | None = None
    while _KEY.fullmatch(key):
        page = await store.list_session_ids(after, _IDS_AT_ONCE)
        for session_id in page.ids:
            if key_of(session_id) == key:
                return await _load(store, session_id)
        await trio.lowlevel.checkpoint()
        after = page.next
        if after is None:
            break
    await trio.lowlevel.checkpoint()
    raise _not_found()


async def _load(store: SessionStore, session_id: SessionId) -> Session:
    try:
        return await store.get_session(session_id)
    except SessionNotFound:
        raise _not_found() from None


def _not_found() -> SessionNotFound:
    return SessionNotFound(
        "no session has this key, or it has ended; list those there are: GET /v1/sessions, or shadowcat sessions list"
    )
