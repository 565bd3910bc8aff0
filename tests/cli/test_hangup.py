"""What SIGHUP asks for, and when."""

import os
import signal

import pytest
import trio
import trio.testing

from shadowcat.cli import hangup
from shadowcat.cli.hangup import answer_hangups, ignoring_hangups


@pytest.fixture
def hangups():
    """Two hangups, then no more."""

    async def hangups():
        for _ in range(2):
            await trio.lowlevel.checkpoint()
            yield signal.SIGHUP

    return hangups()


@pytest.mark.parametrize("has_terminal", [True, False], ids=["with a terminal", "as a service, without one"])
async def test_each_is_answered(hangups, monkeypatch, has_terminal):
    monkeypatch.setattr(hangup, "has_terminal", lambda: has_terminal)
    answered, shutdown = [], trio.Event()

    async def answer():
        await trio.lowlevel.checkpoint()
        answered.append(1)

    await answer_hangups(hangups, answer, shutdown)
    assert (len(answered), shutdown.is_set()) == (2, False)


async def test_lost_terminal_ends_it(hangups, monkeypatch):
    seen = iter([True, False, False])
    monkeypatch.setattr(hangup, "has_terminal", lambda: next(seen))
    shutdown = trio.Event()
    await answer_hangups(hangups, trio.lowlevel.checkpoint, shutdown)
    assert shutdown.is_set()


def test_hangup_is_ignored_for_a_while():
    fatal = []
    before = signal.signal(signal.SIGHUP, lambda number, _: fatal.append(number))
    try:
        with ignoring_hangups():
            os.kill(os.getpid(), signal.SIGHUP)
        assert fatal == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert fatal == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
