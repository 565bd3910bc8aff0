"""Find out whether a session store keeps the promises of `SessionStore`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from ..errors import ShadowcatError
from ..session import SessionId, SessionStore
from .store_contract import cancellation, claims, frames, pages, streams, times
from .store_contract import sessions as sessions_
from .store_contract.client import Clients, delete_all, session_called

_PROMISES: tuple[Callable[[Clients], Awaitable[None]], ...] = (
    *sessions_.PROMISES,
    *pages.PROMISES,
    *times.PROMISES,
    *frames.PROMISES,
    *cancellation.PROMISES,
)

OpenStore = Callable[[], AbstractAsyncContextManager[SessionStore]]


async def check_session_store(open_store: OpenStore, *, sessions: int = 1000, is_shared: bool = True) -> None:
    """Check that a store keeps every promise that `SessionStore` makes.

    What it promises of event streams is checked if it has ``keeps_streams``.

    The store must be empty, and nobody else may use it.  Run it under
    `trio.fail_after`: a store that hangs makes the check hang.  If cancelled,
    sessions may be left in the store.

    Args:
        open_store: Opens the store anew each time it is called.
        sessions: How many to fill the store with at most.
        is_shared: Whether two stores that are open at once have the same sessions.

    Raises:
        AssertionError: A promise is broken; the message says which and how.
    """
    async with open_store() as store:
        found = await store.count_sessions()
        assert found == 0, f"the store to check must be empty, and has {found} sessions: is it one in use?"
        promises = (*_PROMISES, *streams.PROMISES, *claims.PROMISES) if store.keeps_streams else _PROMISES
    for promise in promises:
        await _kept(promise.__doc__, _check, promise, open_store, sessions, is_shared)
    await _kept(_closing_is_repeatable.__doc__, _closing_is_repeatable, open_store)
    if is_shared:
        await _kept(_closing_lets_go.__doc__, _closing_lets_go, open_store)


async def _check(
    promise: Callable[[Clients], Awaitable[None]], open_store: OpenStore, sessions: int, is_shared: bool
) -> None:
    async with open_store() as one:
        if is_shared:
            async with open_store() as other:
                await promise(Clients(one, other, sessions))
                await delete_all(one)
        else:
            await promise(Clients(one, one, sessions))


async def _kept(promise: str | None, check: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run *check*; name the promise if it is broken."""
    try:
        await check(*args)
    except AssertionError as error:
        raise AssertionError(f"{promise}  Here {error}.") from error
    except ShadowcatError as error:
        raise AssertionError(f"{promise}  Here {type(error).__name__} was raised: {error}.") from error
    except Exception as error:
        error.add_note(str(promise))
        raise


async def _closing_is_repeatable(open_store: OpenStore) -> None:
    """A store can be closed twice."""
    async with open_store() as store:
        await store.create_session(session_called("closed"))
        await store.delete_session(SessionId("closed"))
        await store.aclose()
        await store.aclose()


async def _closing_lets_go(open_store: OpenStore) -> None:
    """What was written is there after the store was closed and opened again, even if closing was cancelled."""
    session = session_called("kept")
    for is_cancelled in (False, True):
        async with open_store() as store:
            await store.create_session(session)
            await store.store_last_event_id(session.id, "1")
            with trio.CancelScope() as scope:
                if is_cancelled:
                    scope.cancel()
                await store.aclose()
        async with open_store() as store:
            assert await store.get_session(session.id) == session, "the session was lost"
            assert await store.get_last_event_id(session.id) == "1", "its event id was lost"
            await store.delete_session(session.id)
