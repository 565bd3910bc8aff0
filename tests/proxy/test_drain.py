"""Ending what is under way."""

from contextlib import suppress

import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import Draining
from shadowcat.proxy.drain import Drain, draining_error


async def run_in(opened, ended, name):
    with opened as scope:
        await trio.sleep_forever()
    ended.append((name, scope.cancelled_caught))


async def test_listeners_end_first_and_calls_last(autojump_clock):
    """`begin` ends who only listens; `finish` ends the calls that are not answered."""
    drain, ended = Drain(), []
    async with trio.open_nursery() as nursery:
        for name in ("a", "b"):
            nursery.start_soon(run_in, drain.listen(), ended, f"listener {name}")
            nursery.start_soon(run_in, drain.call(), ended, f"call {name}")
        await wait_all_tasks_blocked()
        assert (drain.under_way, drain.is_draining) == (4, False)

        drain.begin()
        await wait_all_tasks_blocked()
        assert sorted(ended) == [("listener a", True), ("listener b", True)]
        assert (drain.under_way, drain.is_draining) == (2, True)

        drain.finish()
    assert sorted(ended)[:2] == [("call a", True), ("call b", True)]
    assert drain.under_way == 0


async def test_call_that_is_answered_in_time_is_not_touched(autojump_clock):
    """Calls have until `finish`."""
    drain = Drain()
    with drain.call() as scope:
        drain.begin()
        await trio.sleep(5)
    drain.finish()

    assert not scope.cancel_called


async def test_whoever_has_left_is_not_cancelled(autojump_clock):
    """... also when an error made it leave."""
    drain, scopes = Drain(), []
    with drain.listen() as scope:
        scopes.append(scope)
    with suppress(KeyError), drain.call() as scope:
        scopes.append(scope)
        raise KeyError
    drain.begin()
    drain.finish()

    assert [scope.cancel_called for scope in scopes] == [False, False]
    assert drain.under_way == 0


async def test_both_may_be_said_twice(autojump_clock):
    """A second signal finds nothing to do."""
    drain, ended = Drain(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_in, drain.call(), ended, "call")
        await wait_all_tasks_blocked()
        for step in (drain.begin, drain.begin, drain.finish, drain.finish):
            step()
    assert ended == [("call", True)]


def test_client_is_told_to_come_back():
    """The message is for the person who has to act on it."""
    assert isinstance(draining_error(), Draining)
    assert "again" in str(draining_error())
