"""A store that events are appended to, as a proxy does it: one event of each of many streams in a call.

``python stores.py STREAMS KIND [PLACE]`` prints ``ready``.  Each line read after that is how
many seconds to append for; it is answered with how many events that were in how many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractAsyncContextManager
from itertools import count

import trio

from shadowcat.session import (
    LogLimits,
    RedisConfig,
    Session,
    SessionId,
    SessionStore,
    SqliteConfig,
    StorageBackend,
    StorageConfig,
    StorageFactory,
    StreamAppend,
    StreamEvent,
    StreamId,
    StreamKey,
    StreamKind,
    new_owner_id,
)

BLOCK = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'


def open_store(kind: str, place: str) -> AbstractAsyncContextManager[SessionStore]:
    """Open a store of *kind* at *place*."""
    backend = StorageBackend(kind)
    sqlite = SqliteConfig(path=place) if backend is StorageBackend.SQLITE else None
    redis = RedisConfig(url=place, prefix="bench-streams") if backend is StorageBackend.REDIS else None
    return StorageFactory.open(StorageConfig(backend=backend, sqlite=sqlite, redis=redis))


async def serve(streams: int, kind: str, place: str) -> None:
    """Append for as long as each line says."""
    keys = [StreamKey(SessionId(f"bench{number}"), StreamId("s")) for number in range(streams)]
    owner, positions = new_owner_id(), count(1)

    def append_of(key: StreamKey, position: int) -> StreamAppend:
        now = time.time()
        return StreamAppend(
            key=key,
            owner=owner,
            fence=1,
            kind=StreamKind.ANSWER,
            appended_at=now,
            events=[StreamEvent(position, str(position), BLOCK, now)],
            last_position=position,
            resume_id=str(position),
        )

    async with open_store(kind, place) as store:
        for key in keys:
            await store.create_session(Session(id=key.session_id))
        print("ready", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            began, calls = time.perf_counter(), 0
            while time.perf_counter() - began < float(line):
                position = next(positions)
                if await store.append_events([append_of(key, position) for key in keys], LogLimits()):
                    raise RuntimeError("the store refused events")
                calls += 1
                await trio.lowlevel.checkpoint()
            print(json.dumps({"events": calls * streams, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]), sys.argv[2], "".join(sys.argv[3:]))
