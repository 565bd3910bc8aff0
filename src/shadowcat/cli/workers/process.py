"""A worker, as its supervisor has it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from math import inf

import trio

from ...errors import WorkerFailed
from .lifeline import DRAIN, RETIRE, Report, Reports

STOP_TIMEOUT = 2.0
"""Seconds that a worker has to write its last when it is to stop at once; then it is killed."""


# Until the worker has its own handlers: what a terminal sends to all is for the supervisor to tell it.
_BOOT = """\
import signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
from shadowcat.cli.workers.worker import main
sys.exit(main(sys.argv[1:]))
"""


def worker_command(arguments: Sequence[str]) -> list[str]:
    """Return what runs `worker.main` with *arguments* in another process."""
    # With -c, modules are looked for in the current directory first.  That is only
    # safe if we were ourselves started so, with -m.
    isolation = [] if sys.path[:1] == [os.getcwd()] else ["-P"]
    return [sys.executable, *isolation, "-c", _BOOT, *arguments]


class WorkerProcess:
    """One process that serves beside others.  Give `run` to ``nursery.start``."""

    def __init__(self, number: int, arguments: Sequence[str]) -> None:
        self.number = number
        self.ended = trio.Event()
        self.urls: tuple[str, ...] = ()
        self.since = inf
        """When it began to serve, by trio's clock."""
        self.pid = 0
        self._arguments = arguments
        self._scope = trio.CancelScope()
        self._errors: tuple[str, ...] = ()
        self._status: int | None = None
        self._lifeline: trio.SocketStream

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise than by finishing its work."""
        return self._status != 0

    @property
    def end(self) -> str:
        """How it ended, as the rest of a sentence that begins with its name."""
        if self._errors:
            return "has failed: " + "; ".join(self._errors)
        if self._status is None:
            return "did not end"
        if self._status < 0:
            return f"was ended by {signal.Signals(-self._status).name}"
        return f"ended with status {self._status}"

    async def run(
        self, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the process until it ends; started when it serves on *listener*.

        Cancelling this, or `stop`, ends the process within `STOP_TIMEOUT` or kills it.

        Raises:
            WorkerFailed: It ended before it served.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await self._open(listener.fileno(), theirs.fileno())
            self.pid = process.pid
            self._lifeline = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            try:
                with self._scope:
                    await self._listen(task_status)
                    await process.wait()
            finally:
                # Without its lifeline a worker stops by itself.
                ours.close()
                with trio.move_on_after(STOP_TIMEOUT, shield=True):
                    await process.wait()
                process.kill()
                with trio.move_on_after(1, shield=True):
                    await process.wait()
                self._status = process.returncode
                self.ended.set()
        if self.since == inf and not self._scope.cancelled_caught:
            raise WorkerFailed(
                "; ".join(self._errors) or f"worker {self.number} {self.end} before it served; see above"
            )

    async def _open(self, *files: int) -> trio.Process:
        command = worker_command([*map(str, (self.number, *files)), *self._arguments])
        try:
            return await trio.lowlevel.open_process(command, pass_fds=files)
        except OSError as error:
            raise WorkerFailed(f"{sys.executable} cannot be started: {error.strerror}") from error

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        reports = Reports(self._lifeline)
        while (report := await reports.next()) is not None:
            self._errors += report.errors
            if report.urls:
                self._begin(report)
                task_status.started()

    def _begin(self, report: Report) -> None:
        self.urls = report.urls
        self.since = trio.current_time()

    async def drain(self, seconds: float) -> None:
        """Let it finish what is under way, and end; stop it if it has not after *seconds*.

        Cancel at any time: it goes on draining, and `run` has it still.
        """
        await self._end(DRAIN, seconds)

    async def retire(self, seconds: float) -> None:
        """Let it end as `drain` does, but such that no client notices: others must be there to accept."""
        await self._end(RETIRE, seconds)

    async def _end(self, command: bytes, seconds: float) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._lifeline.send_all(command)
        with trio.move_on_after(seconds):
            await self.ended.wait()
        self._scope.cancel()
        await self.ended.wait()
