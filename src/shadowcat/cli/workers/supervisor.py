"""Keeping a number of workers at work.

The supervisor binds one socket and hands it to each worker, so no connection is lost
when one of them goes: what it has not accepted, another does.  See
docs/explanation/adr/workers-share-one-socket.md.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from ...errors import ConfigError, WorkerFailed
from ...resilience import Backoff, BackoffConfig
from ...transport.downstream import ListenerConfig, bind_socket
from ..hangup import answer_hangups, ignoring_hangups
from ..reload import log_problems
from .process import WorkerProcess

log = logging.getLogger(__name__)

_STEADY = 10.0
"""Seconds after which a worker's end is not put down to how it began."""

_MARGIN = 5.0
"""Seconds that a worker has for its store, beyond those that its calls have."""


@attrs.frozen(kw_only=True)
class SupervisorConfig:
    """How many workers there are, and what they do."""

    count: int = attrs.field(validator=attrs.validators.ge(1))
    arguments: Sequence[str]
    """The command line of each."""

    listener: ListenerConfig
    shutdown_timeout: float
    """Seconds that calls have at shutdown."""

    check: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Sees whether another worker could use the settings as they are now; raises ConfigError if not."""

    backoff: BackoffConfig = attrs.field(factory=lambda: BackoffConfig(budget=math.inf))
    """Between two starts of a worker that keeps ending."""


async def supervise(
    config: SupervisorConfig,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve by worker processes until *shutdown* is set and all have finished.

    Passes the URLs to ``task_status`` once every worker serves.  SIGHUP replaces the
    workers, one after the other, if ``config.check`` raises nothing, and does nothing once
    *shutdown* is set.  Cancel to stop all at once; no process outlives this.

    Raises:
        ConfigError: The address cannot be bound.
        WorkerFailed: A worker could not serve at the start, or did not finish in order
            at the end.
    """
    with ignoring_hangups(), bind_socket(config.listener) as sock:
        await _Supervisor(config, sock, shutdown).run(task_status)


@attrs.define(eq=False)
class _Place:
    """A number, and who works under it now."""

    worker: WorkerProcess
    changing: trio.Lock = attrs.field(factory=trio.Lock)
    """Held by whoever puts another worker here."""


class _Supervisor:
    def __init__(self, config: SupervisorConfig, sock: socket.socket, shutdown: trio.Event) -> None:
        self._config = config
        self._sock = sock
        self._shutdown = shutdown
        self._places: list[_Place] = []
        self._running: set[WorkerProcess] = set()
        self._patience = config.shutdown_timeout + _MARGIN
        self._workers: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[list[str]]) -> None:
        async with trio.open_nursery() as self._workers:
            await _until(self._shutdown, self._serve, task_status)
            # From now on nobody can connect, once the last worker has stopped listening too.
            self._sock.close()
            await self._drain()

    async def _serve(self, task_status: trio.TaskStatus[list[str]]) -> None:
        """Start all workers, and keep as many until cancelled."""
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            await self._start_all()
            task_status.started(list(self._places[0].worker.urls))
            async with trio.open_nursery() as nursery:
                for place in self._places:
                    nursery.start_soon(self._keep, place)
                await answer_hangups(hangups, self._replace_all, self._shutdown)

    async def _start_all(self) -> None:
        failures: list[WorkerFailed] = []
        started: list[WorkerProcess] = []

        async def start(number: int) -> None:
            try:
                started.append(await self._start(number))
            except WorkerFailed as error:
                failures.append(error)
                nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(1, self._config.count + 1):
                nursery.start_soon(start, number)
        # All fail alike, and once is enough to say so.
        for error in failures:
            raise error
        self._places = [_Place(worker) for worker in sorted(started, key=lambda worker: worker.number)]

    async def _start(self, number: int) -> WorkerProcess:
        worker = WorkerProcess(number, self._config.arguments)
        await self._workers.start(self._run, worker)
        log.info("worker %d serves, as process %d", number, worker.pid)
        return worker

    async def _run(self, worker: WorkerProcess, *, task_status: trio.TaskStatus[None]) -> None:
        self._running.add(worker)
        try:
            await worker.run(self._sock, task_status=task_status)
        finally:
            self._running.discard(worker)

    async def _keep(self, place: _Place) -> None:
        """Put another worker in the place of one that ended, until cancelled."""
        backoff = Backoff(self._config.backoff)
        while True:
            worker = place.worker
            await worker.ended.wait()
            async with place.changing:
                if place.worker is worker:
                    log.warning("worker %d %s; another takes its place", worker.number, worker.end)
                    if trio.current_time() - worker.since >= _STEADY:
                        backoff.progress()
                    place.worker = await self._restart(worker.number, backoff)

    async def _restart(self, number: int, backoff: Backoff) -> WorkerProcess:
        while True:
            await trio.sleep(backoff.next_wait() or 0.0)
            try:
                return await self._start(number)
            except WorkerFailed as error:
                log.error("worker %d cannot be started, and will be tried again: %s", number, error)

    async def _replace_all(self) -> None:
        """Replace each worker by one that serves already; the old one finishes its calls."""
        await trio.lowlevel.checkpoint()
        try:
            await self._config.check()
        except ConfigError as error:
            log_problems("the workers are not replaced, and the old ones stay", error)
            return
        log.info("replacing all workers, one after the other")
        for place, old in [(place, place.worker) for place in self._places]:
            async with place.changing:
                if place.worker is not old:
                    continue
                try:
                    place.worker = await self._start(old.number)
                except WorkerFailed as error:
                    log.error("worker %d is not replaced, nor those after it: %s", old.number, error)
                    return
            await old.retire(self._patience)

    async def _drain(self) -> None:
        running = list(self._running)
        async with trio.open_nursery() as nursery:
            for worker in running:
                nursery.start_soon(worker.drain, self._patience)
        failed = [f"worker {worker.number} {worker.end}" for worker in running if worker.has_failed]
        if failed:
            raise WorkerFailed(f"{'; '.join(failed)}: calls that it had under way may be lost")


async def _until(event: trio.Event, run: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run until *event* is set: then it is cancelled."""

    async def cancel() -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        await run(*args)
        nursery.cancel_scope.cancel()
