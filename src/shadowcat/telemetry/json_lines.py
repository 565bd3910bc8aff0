"""Writing JSON lines to a file without making anybody wait for the disk.

What is to be written goes through a bounded channel to one task, which hands as much as there is
to a thread.  The line is made there as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import msgspec
import trio

from ..errors import ConfigError
from .config import STDERR, LogFileConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_LINGER = 0.05
"""Seconds that a line waits for others, to be written together with them."""

_BATCH = 1000
"""Lines that are written at once."""

_RETRY_INTERVAL = 1.0
"""Seconds between two attempts to write what must not be lost."""

_MODE = 0o640
"""Of a file that is made: for its owner, and a group that collects logs."""

_encode = msgspec.json.Encoder().encode


class JsonLines(Generic[T]):
    """A file that lines are appended to.

    Args:
        render: Makes a line of what is put in; called in a thread.
        is_kept: Whether what cannot be written is tried again, or else left out and counted.
    """

    def __init__(self, config: LogFileConfig, render: Callable[[T], dict[str, object]], *, is_kept: bool) -> None:
        self._config = config
        self._render = render
        self._is_kept = is_kept
        self._sender, self._receiver = trio.open_memory_channel[T](config.max_queued)
        self._limiter = trio.CapacityLimiter(1)
        self._file = _Appender(config.path)
        self._is_failing = False
        self.written = 0
        """Lines that are in the file."""
        self.dropped = 0
        """Lines that were left out."""

    @property
    def queued(self) -> int:
        """How many wait."""
        return self._receiver.statistics().current_buffer_used

    def put(self, item: T) -> bool:
        """Have *item* written; False if too many wait, and it is left out.  Never waits and never raises."""
        try:
            self._sender.send_nowait(item)
        except (trio.WouldBlock, trio.ClosedResourceError):
            self.dropped += 1
            return False
        return True

    async def put_patiently(self, item: T, seconds: float) -> bool:
        """As `put`, but wait for up to *seconds* until there is room.  Cancel safe: it is then left out."""
        with trio.move_on_after(seconds):
            try:
                await self._sender.send(item)
                return True
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()
        self.dropped += 1
        log.error("%s does not keep up, and a line is left out", self._config.path)
        return False

    def take_nowait(self) -> T:
        """Return what has waited longest instead of writing it, and raise `trio.WouldBlock` if nothing waits."""
        return self._receiver.receive_nowait()

    async def open(self) -> None:
        """Open the file, so that it is known at once whether that can be done.

        Raises:
            ConfigError: It cannot.
        """
        try:
            await trio.to_thread.run_sync(self._file.check, limiter=self._limiter)
        except OSError as error:
            raise ConfigError(
                f"{self._config.path} cannot be written to ({error.strerror}); choose another file, or make it writable"
            ) from error

    async def run(self) -> None:
        """Write until cancelled; then write what is left, for ``flush_timeout`` seconds at most."""
        batch: list[T] = []
        try:
            while True:
                if not batch:
                    batch.append(await self._receiver.receive())
                await trio.sleep(_LINGER)
                batch = await self._write_all(self._take(batch))
        finally:
            self._sender.close()
            with trio.move_on_after(self._config.flush_timeout, shield=True):
                await trio.lowlevel.checkpoint()
                while batch := self._take(batch):
                    batch = await self._write_all(batch)
                    # Writing is shielded, so this is where the time can be up.
                    await trio.lowlevel.checkpoint_if_cancelled()
            left = len(batch) + self.queued
            self.dropped += left
            if left:
                log.error("%s: %d lines could not be written at the end", self._config.path, left)
            self._file.close()

    def _take(self, batch: list[T]) -> list[T]:
        """Add to *batch* what waits, as much as is written at once."""
        try:
            while len(batch) < _BATCH:
                batch.append(self._receiver.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        return batch

    async def _write_all(self, batch: list[T]) -> list[T]:
        """Write *batch*; return what is to be written again."""
        try:
            # Shielded, so that it is known what has been written; but no disk that hangs keeps the proxy from ending.
            with trio.move_on_after(self._config.flush_timeout, shield=True) as waiting:
                await trio.to_thread.run_sync(self._write, batch, limiter=self._limiter, abandon_on_cancel=True)
        except OSError as error:
            self._complain(str(error))
            if self._is_kept:
                await trio.sleep(_RETRY_INTERVAL)
                return batch
            self.dropped += len(batch)
            return []
        if waiting.cancelled_caught:
            self._complain("it hangs, and lines may be missing")
            self.dropped += len(batch)
            return []
        self._is_failing = False
        self.written += len(batch)
        return []

    def _complain(self, text: str) -> None:
        if not self._is_failing:
            log.error("%s cannot be written to: %s", self._config.path, text)
        self._is_failing = True

    def _write(self, batch: Sequence[T]) -> None:
        self._file.append(b"".join([_encode(self._render(item)) + b"\n" for item in batch]))


class _Appender:
    """A file by its name: what was moved away, to be rotated, is left, and the name opened anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def check(self) -> None:
        self._current()

    def append(self, data: bytes) -> None:
        file = self._current()
        while data:
            data = data[os.write(file, data) :]

    def close(self) -> None:
        if self._file > 2:
            os.close(self._file)
        self._file = -1

    def _current(self) -> int:
        if self._path == STDERR:
            return 2
        if self._file >= 0 and not self._is_moved():
            return self._file
        self.close()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        return self._file

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return True


@asynccontextmanager
async def open_json_lines(
    config: LogFileConfig, render: Callable[[T], dict[str, object]], *, is_kept: bool
) -> AsyncGenerator[JsonLines[T], None]:
    """Append lines to a file for as long as the block lasts; what waits then is written, also when cancelled.

    Args:
        render: Makes a line of what is put in; called in a thread.
        is_kept: Whether what cannot be written is tried again, or else left out and counted.

    Raises:
        ConfigError: The file cannot be opened.
    """
    lines = JsonLines(config, render, is_kept=is_kept)
    await lines.open()
    # What is cancelled has something to say as well, so the block ends first.
    writing = trio.CancelScope(shield=True)

    async def write() -> None:
        with writing:
            await lines.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        try:
            yield lines
        finally:
            writing.cancel()
