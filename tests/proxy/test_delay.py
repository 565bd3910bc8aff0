"""Who is told, and when."""

import pytest
import trio

from shadowcat.proxy.delay import Delayed, DelayQueue


class Sleeper(Delayed):
    def __init__(self):
        self.woken = []

    def note_due(self):
        self.woken.append(trio.current_time())


@pytest.fixture
async def queue(nursery):
    queue = DelayQueue(10)
    nursery.start_soon(queue.run)
    return queue


async def test_each_is_told_once_when_its_time_has_come(queue, autojump_clock):
    sleepers = [Sleeper() for _ in range(5)]
    for sleeper in sleepers:
        queue.add(sleeper)
        await trio.sleep(3)
    await trio.sleep(100)
    assert [sleeper.woken for sleeper in sleepers] == [[10], [13], [16], [19], [22]]


async def test_who_is_taken_out_is_not_told(queue, autojump_clock):
    early, late = Sleeper(), Sleeper()
    queue.add(early)
    await trio.sleep(5)
    queue.add(late)
    queue.discard(early)
    queue.discard(early)
    await trio.sleep(100)
    assert (early.woken, late.woken) == ([], [15])


async def test_who_is_added_again_begins_anew(queue, autojump_clock):
    sleeper, other = Sleeper(), Sleeper()
    queue.add(sleeper)
    queue.add(other)
    await trio.sleep(9)
    queue.add(sleeper)
    await trio.sleep(100)
    assert (sleeper.woken, other.woken) == ([19], [10])
    queue.add(sleeper)
    await trio.sleep(100)
    assert sleeper.woken == [19, 119]


async def test_nobody_is_waited_for_in_vain(queue, autojump_clock):
    """Who comes and goes does not shift the time of who stays."""
    passing, staying = Sleeper(), Sleeper()
    for _ in range(7):
        queue.add(passing)
        queue.discard(passing)
        await trio.sleep(4)
    queue.add(staying)
    await trio.sleep(50)
    assert staying.woken == [38]
    assert passing.woken == []
