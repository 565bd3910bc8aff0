"""SIGHUP: asked to look at the settings again, or told that the terminal has gone."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

log = logging.getLogger(__name__)


@contextmanager
def ignoring_hangups() -> Iterator[None]:
    """Have SIGHUP do nothing while nobody receives it.

    trio delivers again what a receiver left, and by default that ends the process.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def answer_hangups(
    hangups: AsyncIterator[int], answer: Callable[[], Awaitable[None]], shutdown: trio.Event
) -> None:
    """Run *answer* at each of *hangups*; once the terminal has gone, set *shutdown* instead.

    Cancel safe, if *answer* is.
    """
    had_terminal = has_terminal()
    async for _ in hangups:
        if had_terminal and not has_terminal():
            log.info("the terminal has gone")
            shutdown.set()
        else:
            await answer()


def has_terminal() -> bool:
    """Tell whether this process has a controlling terminal, and somebody is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
