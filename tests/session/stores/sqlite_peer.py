"""Another process that uses the same file: ``python sqlite_peer.py PATH COMMAND ...``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from shadowcat.errors import SessionNotFound
from shadowcat.session import Session, SessionId
from shadowcat.session.stores.sqlite import SqliteConfig, SqliteStore, open_sqlite_store
from shadowcat.testing.store_contract.client import LIMITS, append_of, event_at


def increment(session: Session) -> Session:
    return attrs.evolve(session, metadata={"n": str(int(session.metadata["n"]) + 1)})


async def modify(store: SqliteStore, session_id: str, times: str, tasks: str) -> None:
    """Count up in one session, by several tasks at once."""

    async def count() -> None:
        for _ in range(int(times) // int(tasks)):
            await store.modify(SessionId(session_id), increment)

    async with trio.open_nursery() as nursery:
        for _ in range(int(tasks)):
            nursery.start_soon(count)


async def expire(store: SqliteStore) -> None:
    """Expire until nothing is left; say what was."""
    while await store.count_sessions():
        for session in await store.expire_sessions(1.0, limit=7):
            print(session.id)


async def write(store: SqliteStore) -> None:
    """Create sessions until killed; say each that is acknowledged."""

    async def create(task: int) -> None:
        for number in range(1_000_000):
            session_id = f"{task}-{number}"
            await store.create_session(Session(id=SessionId(session_id), expires_at=1.0))
            await store.store_last_event_id(SessionId(session_id), session_id)
            print(session_id, flush=True)

    async with trio.open_nursery() as nursery:
        for task in range(16):
            nursery.start_soon(create, task)


async def append(store: SqliteStore, session_id: str) -> None:
    """Append to ten streams until killed; say each position that is acknowledged of all."""
    names = [f"s{number}" for number in range(10)]
    for position in range(1, 1_000_000):
        event = event_at(position, b"%d" % position)
        await store.append_events([append_of([event], session=session_id, stream=name) for name in names], LIMITS)
        print(position, flush=True)


async def watch(store: SqliteStore, session_id: str) -> None:
    """Answer each line with whether the session is there."""
    print("ready", flush=True)
    while await trio.to_thread.run_sync(sys.stdin.readline):
        try:
            print((await store.get_session(SessionId(session_id))).revision, flush=True)
        except SessionNotFound:
            print("gone", flush=True)


COMMANDS: dict[str, Callable[..., Awaitable[None]]] = {
    "modify": modify,
    "expire": expire,
    "write": write,
    "append": append,
    "watch": watch,
}


async def main(path: str, command: str, args: Sequence[str]) -> None:
    async with open_sqlite_store(SqliteConfig(path=path, busy_timeout=30.0)) as store:
        await COMMANDS[command](store, *args)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
