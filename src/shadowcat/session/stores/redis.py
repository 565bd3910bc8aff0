"""Sessions in Redis, shared by all proxies that use the same database and prefix.

A session is up to three keys, which share a hash tag and so a slot of a cluster:

* ``PREFIX:{s:ID}:session``, a hash: ``data`` (see `shadowcat.session.codec`),
  ``revision``, ``last_activity``, ``expires_at``, ``last_event_id``;
* ``PREFIX:{s:ID}:frames``, a stream of the newest thousand frames;
* ``PREFIX:{s:ID}:streams``, a sorted set of its event streams (see `redis_streams`).

All sessions share ``PREFIX:index``, a sorted set of their ids by ``expires_at``.
It may live on another node of a cluster, so no script touches both it and a session, and
what changes both takes several steps.  One server gets them in one go; of two nodes, each
gets its own when the other has obeyed (see `redis_servers`).  A crash between them heals:

* To create: index, session, index again if the id is not there.  To delete or
  expire: session, index, and the id put back if there is such a session once
  more.  So a session is always in the index; the index may name one that is gone,
  until `expire_sessions` comes to it or `list_sessions` meets it.
* To touch: session, then index.  So the index may be early, never late;
  `expire_sessions` asks the session itself, and corrects the index.

Redis drops all these keys by itself some time after ``expires_at``, should no proxy be
left to do it.  Nothing is cached here: who reads, reads what Redis has.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

from ...envelope import Direction, MessageEnvelope
from ...errors import ConfigError, SessionConflict, SessionExists, SessionNotFound, StoreCorrupt, StoreUnavailable
from ..codec import decode_session, encode_session, with_activity
from ..model import Session, SessionId
from ..store import Activity, SessionStore
from ..stream import LogLimits, OwnerId, StreamAppend, StreamId, StreamKey, StreamRecord, StreamSlice
from .redis_link import RedisConfig, RedisLink, connector, failure_of
from .redis_rates import RedisRates
from .redis_scripts import ADD_FRAME, CREATE, DELETE, EXPIRE, STORE_EVENT_ID, TOUCH, UPDATE
from .redis_servers import RedisServers
from .redis_slots import Command
from .redis_streams import StreamLog

__all__ = ["RedisConfig", "RedisStore", "open_redis_store"]

log = logging.getLogger(__name__)

_MAX_FRAMES = 1000
_BATCH = 500
"""Sessions in one round trip: some ten milliseconds of this process's time."""

_GONE = "no such session; send initialize, without Mcp-Session-Id, to open another"

_T = TypeVar("_T")


class RedisStore(SessionStore):
    """Keep sessions in Redis.  Made by `open_redis_store`."""

    keeps_streams = True

    def __init__(self, config: RedisConfig, servers: RedisServers) -> None:
        self._servers = servers
        self._prefix = config.prefix.encode()
        self._index = self._prefix + b":index"
        self._streams = StreamLog(self._prefix, self._ask, self._keys)
        self.rates = RedisRates(config.prefix, servers)

    async def create_session(self, session: Session) -> None:
        expires_at = repr(session.expires_at)
        data = encode_session(session)
        create = self._script(CREATE, session.id, data, session.revision, repr(session.last_activity), expires_at)
        _, existing, _ = await self._ask(
            (b"ZADD", self._index, expires_at, session.id),
            create,
            (b"ZADD", self._index, b"NX", expires_at, session.id),
        )
        if existing is not None:
            await self._ask((b"ZADD", self._index, b"XX", b"LT", existing, session.id))
            raise SessionExists("a session with this id exists already")

    async def get_session(self, session_id: SessionId) -> Session:
        (stored,) = await self._ask(self._read(session_id), again=True)
        session = _decode(stored)
        if session is None:
            raise SessionNotFound(_GONE)
        return session

    async def update_session(self, session: Session) -> Session:
        updated, command = self._update(session)
        (answer,) = await self._ask(command)
        if answer is None:
            raise SessionNotFound(_GONE)
        if answer == 0:
            raise SessionConflict("the session was updated elsewhere; read it again")
        return with_activity(updated, *_times(*answer))

    async def delete_session(self, session_id: SessionId) -> None:
        had, *answers = await self._ask(self._script(DELETE, session_id), *self._unindex([session_id]))
        await self._put_back([session_id], answers)
        if not had:
            raise SessionNotFound(_GONE)

    async def list_sessions(self) -> Sequence[Session]:
        # By ZSCAN and not by rank: ranks shift while sessions come, go and are touched.
        found: dict[bytes, Session] = {}
        cursor: bytes | None = None
        while cursor != b"0":
            ((cursor, page),) = await self._ask((b"ZSCAN", self._index, cursor or b"0", b"COUNT", _BATCH), again=True)
            for ids in _batches(page[::2]):
                stored = await self._ask(*map(self._read, ids), again=True)
                sessions = dict(zip(ids, map(_decode, stored), strict=True))
                await self._drop([session_id for session_id, session in sessions.items() if session is None])
                found |= {session_id: session for session_id, session in sessions.items() if session is not None}
        return list(found.values())

    async def count_sessions(self) -> int:
        (count,) = await self._ask((b"ZCARD", self._index), again=True)
        return int(count)

    async def touch_sessions(self, activities: Sequence[Activity]) -> None:
        await trio.lowlevel.checkpoint()
        for batch in _batches(activities):
            times = [(repr(a.last_activity), repr(a.expires_at), a.session_id) for a in batch]
            index = [value for _, expires_at, session_id in times for value in (expires_at, session_id)]
            await self._ask(
                *(self._script(TOUCH, session_id, last, expires_at) for last, expires_at, session_id in times),
                (b"ZADD", self._index, b"XX", b"GT", *index),
            )

    async def expire_sessions(self, now: float, limit: int = 100) -> Sequence[Session]:
        expired: list[Session] = []
        try:
            await trio.lowlevel.checkpoint()
            while len(expired) < limit:
                wanted = min(limit - len(expired), _BATCH)
                due = (b"ZRANGEBYSCORE", self._index, b"-inf", repr(now), b"LIMIT", 0, wanted)
                (ids,) = await self._ask(due, again=True)
                if not ids:
                    break
                await self._expire(ids, now, expired)
        except StoreUnavailable:
            # Nobody else will get those that are deleted; the index heals next time.
            if not expired:
                raise
        return expired

    async def add_frame(self, frame: MessageEnvelope) -> None:
        entry = (_MAX_FRAMES, frame.direction.value, repr(frame.recorded_at), frame.message)
        (had,) = await self._ask(self._script(ADD_FRAME, SessionId(frame.session_id), *entry))
        if not had:
            raise SessionNotFound(_GONE)

    async def get_frames(self, session_id: SessionId) -> Sequence[MessageEnvelope]:
        (entries,) = await self._ask((b"XRANGE", self._keys(session_id)[1], b"-", b"+"), again=True)
        try:
            return [
                MessageEnvelope(session_id, Direction(direction.decode()), message, float(recorded_at))
                for _, (_, direction, _, recorded_at, _, message) in entries
            ]
        except (ValueError, TypeError) as error:
            raise StoreCorrupt("a stored frame cannot be read; remove it from Redis") from error

    async def delete_frames(self, session_id: SessionId) -> None:
        await self._ask((b"UNLINK", self._keys(session_id)[1]))

    async def count_frames(self, session_id: SessionId) -> int:
        (count,) = await self._ask((b"XLEN", self._keys(session_id)[1]), again=True)
        return int(count)

    async def store_last_event_id(self, session_id: SessionId, event_id: str) -> None:
        if await self.store_event_ids_batch([(session_id, event_id)]):
            raise SessionNotFound(_GONE)

    async def get_last_event_id(self, session_id: SessionId) -> str | None:
        command = (b"HMGET", self._keys(session_id)[0], b"revision", b"last_event_id")
        ((revision, event_id),) = await self._ask(command, again=True)
        if revision is None:
            raise SessionNotFound(_GONE)
        return None if event_id is None else event_id.decode()

    async def append_events(self, appends: Sequence[StreamAppend], limits: LogLimits) -> Sequence[StreamKey]:
        return await self._streams.append(appends, limits)

    async def read_events(
        self, session_id: SessionId, stream_id: StreamId, after: int, limit: int = 100
    ) -> StreamSlice | None:
        return await self._streams.read(StreamKey(session_id, stream_id), after, limit)

    async def claim_stream(self, session_id: SessionId, stream_id: StreamId, owner: OwnerId) -> StreamRecord | None:
        return await self._streams.claim(StreamKey(session_id, stream_id), owner)

    async def renew_owner(self, owner: OwnerId, ttl: float) -> None:
        await self._streams.renew(owner, ttl)

    async def expire_streams(self, before: float) -> int:
        return await self._streams.expire(before)

    async def wait_events(self, session_id: SessionId, stream_id: StreamId, after: int) -> None:
        await self._streams.wait(StreamKey(session_id, stream_id), after)

    async def get_sessions_batch(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        await trio.lowlevel.checkpoint()
        stored = []
        for batch in _batches(session_ids):
            stored += await self._ask(*map(self._read, batch), again=True)
        return [session for session in map(_decode, stored) if session is not None]

    async def update_sessions_batch(self, sessions: Sequence[Session]) -> Sequence[SessionId]:
        await trio.lowlevel.checkpoint()
        refused = []
        for batch in _batches(sessions):
            answers = await self._ask(*(self._update(session)[1] for session in batch))
            refused += [session.id for session, answer in zip(batch, answers, strict=True) if not answer]
        return refused

    async def store_event_ids_batch(self, event_ids: Sequence[tuple[SessionId, str]]) -> Sequence[SessionId]:
        await trio.lowlevel.checkpoint()
        gone = []
        for batch in _batches(event_ids):
            answers = await self._ask(*(self._hash_script(STORE_EVENT_ID, *pair) for pair in batch))
            gone += [session_id for (session_id, _), had in zip(batch, answers, strict=True) if not had]
        return gone

    async def aclose(self) -> None:
        self._servers.close()
        await trio.lowlevel.checkpoint()

    async def _ask(self, *commands: Command, again: bool = False) -> list[Any]:
        answers = await self._servers.exchange(commands, again=again)
        for answer in answers:
            if isinstance(answer, Exception):
                raise failure_of(answer) from answer
        return answers

    async def _expire(self, ids: Sequence[bytes], now: float, expired: list[Session]) -> None:
        """Delete those of the sessions that are due, add them to *expired*, and correct the index."""
        answers = await self._servers.exchange([self._script(EXPIRE, session_id, repr(now)) for session_id in ids])
        gone, later, failed = [], [], None
        for session_id, answer in zip(ids, answers, strict=True):
            try:
                if isinstance(answer, Exception):
                    raise failure_of(answer) from answer
                if isinstance(answer, bytes):
                    later += [answer, session_id]
                    continue
                gone.append(session_id)
                session = None if answer is None else _decode(answer)
                expired += [session] if session is not None else []
            except StoreCorrupt as error:
                # It must not keep all others from expiring.
                log.warning("an expired session is given up: %s", error)
                gone.append(session_id)
            except StoreUnavailable as error:
                failed = error
        if later:
            await self._ask((b"ZADD", self._index, b"XX", b"GT", *later))
        await self._drop(gone)
        if failed is not None:
            raise failed

    async def _drop(self, ids: Sequence[bytes]) -> None:
        """Take sessions that are gone out of the index."""
        await trio.lowlevel.checkpoint()
        if ids:
            await self._put_back(ids, await self._ask(*self._unindex(ids)))

    def _unindex(self, ids: Sequence[SessionId | bytes]) -> list[Command]:
        return [
            (b"ZREM", self._index, *ids),
            *((b"HGET", self._keys(session_id)[0], b"expires_at") for session_id in ids),
        ]

    async def _put_back(self, ids: Sequence[SessionId | bytes], answers: Sequence[bytes | None]) -> None:
        """Put those back into the index that were made again meanwhile; *answers* are to `_unindex`."""
        await trio.lowlevel.checkpoint()
        again = [(expires_at, i) for i, expires_at in zip(ids, answers[1:], strict=True) if expires_at is not None]
        if again:
            await self._ask((b"ZADD", self._index, b"NX", *(value for pair in again for value in pair)))

    def _keys(self, session_id: SessionId | bytes) -> tuple[bytes, bytes, bytes]:
        raw = session_id if isinstance(session_id, bytes) else session_id.encode()
        # "s:" because an empty tag, as of an id that begins with "}", would be none.
        base = self._prefix + b":{s:" + raw + b"}:"
        return base + b"session", base + b"frames", base + b"streams"

    def _script(self, source: str, session_id: SessionId | bytes, *args: bytes | str | int) -> Command:
        return (b"EVAL", source, 3, *self._keys(session_id), *args)

    def _hash_script(self, source: str, session_id: SessionId, *args: bytes | str | int) -> Command:
        return (b"EVAL", source, 1, self._keys(session_id)[0], *args)

    def _read(self, session_id: SessionId | bytes) -> Command:
        return (b"HMGET", self._keys(session_id)[0], b"data", b"last_activity", b"expires_at")

    def _update(self, session: Session) -> tuple[Session, Command]:
        updated = attrs.evolve(session, revision=session.revision + 1)
        revisions = (session.revision, updated.revision)
        return updated, self._hash_script(UPDATE, session.id, *revisions, encode_session(updated))


@asynccontextmanager
async def open_redis_store(config: RedisConfig, *, may_be_down: bool = False) -> AsyncGenerator[RedisStore, None]:
    """Keep sessions in the Redis server, or cluster, of *config* for as long as the block lasts.

    There is a nursery around the block, so what is raised in it comes out in a group.

    Args:
        may_be_down: Whether to go on if the server cannot be reached yet; it is
            then tried again with every call.

    Raises:
        ConfigError: coredis is not installed, or the server does not let us in.
        StoreUnavailable: The server cannot be reached within ``connect_timeout``.
    """
    refusal: ConfigError | StoreUnavailable | None = None
    connect = connector(config)
    async with trio.open_nursery() as nursery:
        servers = RedisServers(config, lambda address: RedisLink(config, partial(connect, address), nursery))
        try:
            await servers.open()
        except (ConfigError, StoreUnavailable) as error:
            refusal = error
        if refusal is None or (may_be_down and isinstance(refusal, StoreUnavailable)):
            refusal = None
            nursery.start_soon(servers.follow)
            try:
                yield RedisStore(config, servers)
            finally:
                servers.close()
        servers.close()
    if refusal is not None:  # out here, where the nursery does not wrap it
        raise refusal


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _times(last_activity: bytes | None, expires_at: bytes | None) -> tuple[float, float]:
    try:
        return float(last_activity or ""), float(expires_at or "")
    except ValueError as error:
        raise StoreCorrupt("a stored session has lost its times; remove it from Redis") from error


def _decode(stored: Sequence[bytes | None]) -> Session | None:
    """Return the session in the three fields, or None if there is none."""
    data, *times = stored
    if data is None:
        return None
    return with_activity(decode_session(data), *_times(*times))
