"""A process that serves one message stream: how it is watched, and how it ends.

A child has a session and a process group of its own, whose id is its pid.  So what
it starts in turn can be signalled with it, and a Ctrl-C at the terminal is not for it.

The group is killed even when the child has ended, for others may be left in it.  By
then its id must not have become somebody else's.  The kernel gives a pid away when its
process was reaped and no group of that name is left.  So the child is not reaped before
the last signal: until then it is waited for without (a pidfd, or ``WNOWAIT``), and
nothing here may ask for ``Process.returncode``, which reaps.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Collection

import trio

from ...errors import StreamBroken
from .child_log import ChildLog
from .child_output import ChildOutput

log = logging.getLogger(__name__)

_KILL_TIMEOUT = 1.0
"""Seconds for the kernel to end a process that was killed."""

_EXIT_GRACE = 0.5
"""Seconds between the end of a child's pipes and its own, if it is ending at all."""

_ERROR_SIZE = 16384
"""Bytes of standard error that are read at once."""

_FLOOD_PAUSE = 0.01
"""Seconds between two reads when it says too much: the child waits, and no more is spent on it."""

_MAX_LAST_LINE = 200
"""Characters of the last line of standard error that are logged again at its end."""


class Child:
    """A process that was started in a session of its own, with three pipes.

    `run` has to run from when it exists until it is gone.  The pipes for input and
    output stay open until `close`.

    Args:
        stop_timeout: Seconds to end after its input was closed, and again after SIGTERM.
        secrets: Texts that are left out of that.
    """

    def __init__(self, process: trio.Process, stop_timeout: float, secrets: Collection[str] = ()) -> None:
        assert isinstance(process.stdin, trio.lowlevel.FdStream)
        assert isinstance(process.stdout, trio.lowlevel.FdStream)
        assert isinstance(process.stderr, trio.lowlevel.FdStream)
        self.pid = process.pid
        self.input = process.stdin
        self.output = ChildOutput(process.stdout)
        self.gone = trio.Event()
        """Set when the child was reaped and its group killed."""
        self._process = process
        self._pipes = (process.stdin, process.stdout, process.stderr)
        self._stop_timeout = stop_timeout
        self._secrets = secrets
        self._errors = ChildOutput(process.stderr)
        self._log = ChildLog(process.pid)
        # The deadline of this shield is `stop_soon`.
        self._watching = trio.CancelScope(shield=True)
        self._has_exited = False
        self._reason: str | None = None
        self._pidfd = _open_pidfd(process.pid)

    async def run(self) -> None:
        """Watch the child until it ends or `stop_soon` is called; then see it off.

        Cannot be cancelled.  Whoever owns the child calls `stop_soon`, also when
        cancelled, and may take leave of it before.  From then on this takes twice the
        ``stop_timeout`` and a second at most.  Nothing of the group is left.
        """
        try:
            with self._watching:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._log_errors)
                    await self._wait_exit()
                    nursery.cancel_scope.cancel()
        finally:
            if not self._has_exited:
                self._reason = self._reason or "the server process was stopped"
            with trio.move_on_after(2 * self._stop_timeout + _KILL_TIMEOUT, shield=True):
                await self._end()
            self._reap()

    def stop_soon(self, reason: str) -> None:
        """Have `run` stop the child; *reason* is what `explain` says, if nothing was known before.

        Nothing can be sent any more.
        """
        self._reason = self._reason or reason
        self.input.close()
        self._watching.cancel()

    async def explain(self, observed: str) -> StreamBroken:
        """Return why the stream is broken, and have the child stopped if it still runs.

        A checkpoint; waits half a second at most for a child that is just ending,
        since its end says more than *observed*, which is what somebody noticed.
        """
        await trio.lowlevel.checkpoint()
        if self._reason is None:
            with trio.move_on_after(_EXIT_GRACE):
                await self.gone.wait()
        self.stop_soon(observed)
        return StreamBroken(self._reason)

    def close(self) -> None:
        """Close the pipes."""
        for pipe in self._pipes:
            pipe.close()

    async def _log_errors(self) -> None:
        while True:
            await trio.sleep(_FLOOD_PAUSE if self._log.is_flooded else 0)
            data = None
            with trio.move_on_at(self._log.report_time):
                data = await self._errors.receive_some(_ERROR_SIZE)
            if data is None:
                self._log.report()
            elif data:
                self._log.write(data)
            else:
                break
        self._log.close()

    async def _wait_exit(self) -> None:
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
        else:
            await trio.to_thread.run_sync(
                os.waitid,
                os.P_PID,
                self.pid,
                os.WEXITED | os.WNOWAIT,
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(math.inf),
            )
        self._has_exited = True

    async def _end(self) -> None:
        self.input.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_errors)
            if not self._has_exited:
                # It may have to write something before it can end.
                nursery.start_soon(self.output.discard)
            try:
                await self._wait_farewell()
            finally:
                self._signal(signal.SIGKILL)
                self.output.finish()
                self._errors.finish()
            await self._wait_exit()

    async def _wait_farewell(self) -> None:
        with trio.move_on_after(self._stop_timeout):
            await self._wait_exit()
        if not self._has_exited:
            log.info("server process %d did not end when its input was closed; terminating it", self.pid)
            self._signal(signal.SIGTERM)
            with trio.move_on_after(self._stop_timeout):
                await self._wait_exit()
        if not self._has_exited:
            log.warning("server process %d did not end when it was terminated; killing it", self.pid)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except OSError as error:  # it runs as another user now
            log.warning("server process %d cannot be sent signal %d: %s", self.pid, number, error.strerror)

    def _reap(self) -> None:
        status = self._process.poll()
        if self._pidfd is not None:
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
        if status is None:
            log.error("server process %d cannot be killed; it is left behind", self.pid)
        elif self._reason is None:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            log.warning("server process %d %s%s", self.pid, how, self._last_words())
            # Clients are not told what it wrote: nobody knows what is in it.
            self._reason = f"the server process {how}"
        self.gone.set()

    def _last_words(self) -> str:
        line = self._log.last_line
        for secret in self._secrets:
            line = line.replace(secret, "***")
        if len(line) > _MAX_LAST_LINE:
            line = line[:_MAX_LAST_LINE] + "..."
        return f"; the last line of its standard error: {line}" if line else ""


def _open_pidfd(pid: int) -> int | None:
    """Return a descriptor that is readable once the process has ended, if the kernel has such a thing."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, a sandbox without it, or no descriptor left
        return None
