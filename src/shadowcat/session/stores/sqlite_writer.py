"""Group commit: many operations in one transaction, for as many callers.

A transaction costs a hop to a thread and back, whatever is in it.  So callers
queue what they want done, and while one transaction is under way the next one
gathers.  Each operation stands in a savepoint of its own: one that fails leaves
no trace and does not undo the others.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

import attrs
import trio

from ...errors import ShadowcatError, StoreUnavailable
from .sqlite_file import explain

log = logging.getLogger(__name__)

CLOSED = "the session store is closed"

_MAX_QUEUED = 1000
"""Operations that wait for the next transaction: some ten milliseconds of work.
Callers beyond wait for a place in the queue."""

_FAULTS = (ShadowcatError, sqlite3.Error, ValueError, OverflowError)
"""What an operation can raise: the last two are of parameters that SQLite cannot hold."""

T = TypeVar("T")


@attrs.define(eq=False)
class _Operation(Generic[T]):
    apply: Callable[[sqlite3.Connection], T]
    done: trio.Event = attrs.field(factory=trio.Event)
    is_dropped: bool = False
    """Nobody waits for it any more: leave it, unless it has begun."""

    result: T | None = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = explain(error)


class Writer:
    """The one that writes to a database: callers queue, `run` writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        """For writing; between `stop` and the end of `run` it is still in use."""

        self._send, self._receive = trio.open_memory_channel[_Operation[Any]](_MAX_QUEUED)
        self._limiter = trio.CapacityLimiter(1)
        # Whoever cancels us may have something to write first; `stop` is what ends us.
        self._scope = trio.CancelScope(shield=True)
        self._stopped = trio.Event()

    async def write(self, apply: Callable[[sqlite3.Connection], T]) -> T:
        """Do *apply*, in a thread and in a transaction, and return what it returns.

        Committed when this returns; if *apply* raises, nothing of it is.  If
        cancelled before it has begun, it is not done; after that, it is.

        Raises:
            StoreUnavailable: The writer was stopped, or the database fails.
        """
        operation = _Operation(apply)
        try:
            try:
                self._send.send_nowait(operation)
            except trio.WouldBlock:
                await self._send.send(operation)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise StoreUnavailable(CLOSED) from None
        try:
            await operation.done.wait()
        except trio.Cancelled:
            operation.is_dropped = True
            raise
        if operation.error is not None:
            raise operation.error
        return cast(T, operation.result)

    async def run(self) -> None:
        """Write what is queued until `stop` is called, whoever cancels."""
        batch: list[_Operation[Any]] = []
        with self._scope:
            try:
                async for first in self._receive:
                    batch = [first, *self._take_queued()]
                    await trio.to_thread.run_sync(_commit, self.connection, batch, limiter=self._limiter)
                    for operation in batch:
                        operation.done.set()
                    batch = []
            finally:
                self._give_up([*batch, *self._take_queued()])
                self._receive.close()
                self._stopped.set()

    async def stop(self, deadline: float) -> None:
        """Take nothing more, and wait until what is queued is written.

        What has not begun at *deadline*, in trio's time, fails; a transaction
        that is under way then is still waited for.  Safe to call twice.
        """
        self._send.close()
        self._scope.deadline = min(self._scope.deadline, deadline)
        await self._stopped.wait()

    def _take_queued(self) -> list[_Operation[Any]]:
        queued: list[_Operation[Any]] = []
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while len(queued) < _MAX_QUEUED:
                queued.append(self._receive.receive_nowait())
        return queued

    def _give_up(self, operations: Sequence[_Operation[Any]]) -> None:
        for operation in operations:
            operation.fail(StoreUnavailable(CLOSED))
            operation.done.set()
        if operations:
            log.error("gave up on %d writes to the session store", len(operations))


def _commit(connection: sqlite3.Connection, batch: Sequence[_Operation[Any]]) -> None:
    batch = [operation for operation in batch if not operation.is_dropped]
    if not batch:
        return
    try:
        connection.execute("BEGIN IMMEDIATE")
        for operation in batch:
            _attempt(connection, operation)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            # If this fails as well, so will the next BEGIN, and be reported then.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        for operation in batch:
            operation.fail(error)


def _attempt(connection: sqlite3.Connection, operation: _Operation[Any]) -> None:
    if operation.is_dropped:
        return
    connection.execute("SAVEPOINT operation")
    try:
        operation.result = operation.apply(connection)
    except _FAULTS as error:
        operation.fail(error)
        if not connection.in_transaction:
            raise  # SQLite has undone everything, not this alone
        connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")
