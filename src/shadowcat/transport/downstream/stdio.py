"""A client that started this process and talks to it on its standard streams."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import trio

from ...errors import ConfigError
from ..base import MessageStream
from ..lines import LineStream

STDIN, STDOUT, STDERR = 0, 1, 2


@asynccontextmanager
async def open_stdio(max_size: int, *, stdin: int = STDIN, stdout: int = STDOUT) -> AsyncGenerator[MessageStream, None]:
    """Yield the messages of standard input and output, for as long as the block lasts.

    Meanwhile *stdout* leads to standard error, so that nothing else that is printed
    gets between the messages.  Both are afterwards what they were, blocking mode included.

    Args:
        max_size: Bytes of one message of the client.
        stdin: File descriptor to read from: a pipe, a socket, a terminal or a file.
        stdout: File descriptor to write to.

    Raises:
        ConfigError: One of the two is closed.
    """
    for fd in (stdin, stdout):
        _check_open(fd)
    # Closed in turn: two that are one file restore each other's mode.
    async with _open_source(os.dup(stdin)) as source, trio.lowlevel.FdStream(os.dup(stdout)) as sink:
        with _diverted(stdout):
            yield LineStream(source, sink, max_size)


def _open_source(fd: int) -> trio.abc.ReceiveStream:
    return _FileStream(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else trio.lowlevel.FdStream(fd)


def _check_open(fd: int) -> None:
    try:
        os.fstat(fd)
    except OSError:
        raise ConfigError(
            f"file descriptor {fd} is closed; start the program with both standard input and output, or use --bind"
        ) from None


@contextmanager
def _diverted(fd: int) -> Generator[None, None, None]:
    """Let what is written to *fd* go to standard error, or nowhere."""
    saved = os.dup(fd)
    try:
        try:
            os.dup2(STDERR, fd)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, fd)
            os.close(nowhere)
        yield
    finally:
        os.dup2(saved, fd)
        os.close(saved)


class _FileStream(trio.abc.ReceiveStream):
    """A file, which no system call waits for; so a thread does."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        # Not abandoned when cancelled: what was read would be lost.
        return await trio.to_thread.run_sync(os.read, self._fd, max_bytes or 65536)

    async def aclose(self) -> None:
        os.close(self._fd)
        await trio.lowlevel.checkpoint()
