"""Places for calls, and who is next, on the mock clock."""

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import UpstreamBusy
from shadowcat.testing import ScriptedUpstream
from shadowcat.upstreams import ConcurrencyConfig, Endpoint
from shadowcat.upstreams.queue import CallQueue


class Room:
    """Two endpoints, and a queue before them."""

    def __init__(self, **config):
        self.endpoints = [Endpoint(name, ScriptedUpstream()) for name in "ab"]
        self.queue = CallQueue(ConcurrencyConfig(**config), lambda: self.endpoints)
        for endpoint in self.endpoints:
            endpoint.on_change = self.queue.serve

    async def take(self, wanted=None):
        for endpoint in [wanted] if wanted else self.endpoints:
            if self.queue.has_room(endpoint):
                endpoint.begin()
                return endpoint
        return await self.queue.wait(wanted)


@pytest.fixture
def room():
    return Room(max_in_flight=1, max_queue=3, queue_timeout=10)


async def test_a_place_goes_to_whoever_has_waited_longest(autojump_clock, nursery, room):
    a, b = room.endpoints
    served = []

    async def call(name, wanted=None):
        served.append((name, await room.take(wanted)))

    for name, wanted in [("first", None), ("second", None), ("bound to a", a), ("any", None), ("bound to b", b)]:
        nursery.start_soon(call, name, wanted)
        await wait_all_tasks_blocked()
    assert served == [("first", a), ("second", b)]
    b.finish()
    await wait_all_tasks_blocked()
    assert served[2:] == [("any", b)]
    b.finish()
    a.finish()
    await wait_all_tasks_blocked()
    assert set(served[3:]) == {("bound to b", b), ("bound to a", a)}
    assert room.queue.waiting == 0


async def test_no_more_wait_than_may(autojump_clock, nursery, room):
    for _ in range(5):
        nursery.start_soon(room.take)
    await wait_all_tasks_blocked()
    with pytest.raises(UpstreamBusy, match="3 calls wait .* nothing was sent") as caught:
        await room.take()
    assert caught.value.retry_after == 1
    assert (room.queue.waiting, room.queue.refused) == (3, 1)
    nursery.cancel_scope.cancel()


async def test_nobody_waits_longer_than_may_be(autojump_clock, room):
    await room.take()
    await room.take()
    with pytest.raises(UpstreamBusy, match="no time for the call in 10 s, and nothing was sent"):
        await room.take()
    assert trio.current_time() == 10
    assert (room.queue.waiting, room.queue.timed_out) == (0, 1)


async def test_a_place_that_was_given_to_somebody_who_was_cancelled_goes_to_the_next(autojump_clock, nursery, room):
    a, b = room.endpoints
    await room.take()
    await room.take()
    served = []

    async def call(name, scope):
        with scope:
            served.append((name, await room.take(a)))

    scopes = [trio.CancelScope(), trio.CancelScope()]
    for name, scope in zip(["cancelled", "next"], scopes, strict=True):
        nursery.start_soon(call, name, scope)
        await wait_all_tasks_blocked()
    scopes[0].cancel()
    a.finish()  # given to the first, which has not run yet and does not know
    await wait_all_tasks_blocked()
    assert served == [("next", a)]
    assert (a.in_flight, b.in_flight, room.queue.waiting) == (1, 1, 0)


async def test_nobody_waits_for_what_is_gone(autojump_clock, nursery, room):
    a, b = room.endpoints
    await room.take()
    await room.take()
    served = []

    async def call(wanted):
        served.append(await room.take(wanted))

    nursery.start_soon(call, a)
    nursery.start_soon(call, None)
    await wait_all_tasks_blocked()
    for endpoint in (a, b):
        for _ in range(3):
            endpoint.note_check(is_good=False)
    await wait_all_tasks_blocked()
    assert served == [None]  # any will never be; a may come back
    room.queue.send_away(a)
    await wait_all_tasks_blocked()
    assert served == [None, None]
    assert room.queue.waiting == 0


async def test_an_endpoint_that_comes_back_serves_those_who_wait(autojump_clock, nursery, room):
    a, b = room.endpoints
    b.is_draining = True
    served = []

    async def call():
        served.append(await room.take())

    await room.take(a)
    nursery.start_soon(room.queue.wait, a)
    await wait_all_tasks_blocked()

    async def wait_any():
        served.append(await room.queue.wait(None))

    nursery.start_soon(wait_any)
    await wait_all_tasks_blocked()
    assert served == []
    b.is_draining = False
    await wait_all_tasks_blocked()
    assert served == [b]


async def test_a_larger_limit_counts_at_once(autojump_clock, nursery, room):
    for _ in range(5):
        nursery.start_soon(room.take)
    await wait_all_tasks_blocked()
    room.queue.config = ConcurrencyConfig(max_in_flight=2)
    room.queue.serve_all()
    assert (room.queue.waiting, [each.in_flight for each in room.endpoints]) == (1, [2, 2])
    room.queue.config = ConcurrencyConfig()
    room.queue.serve_all()
    assert room.queue.waiting == 0


@pytest.mark.parametrize("seed", range(5))
async def test_limits_are_exact_however_many_come_and_go(autojump_clock, seed):
    """Never more at an endpoint than may be, never more waiting, and no place is lost."""
    room = Room(max_in_flight=7, max_queue=50, queue_timeout=3)
    draw = random.Random(seed)
    most = {"a": 0, "b": 0, "waiting": 0}
    ends = {"served": 0, "refused": 0, "cancelled": 0}

    async def call():
        await trio.sleep(draw.uniform(0, 5))
        wanted = draw.choice([None, *room.endpoints])
        with trio.move_on_after(draw.choice([0.01, 1, 100])) as scope:
            try:
                endpoint = await room.take(wanted)
            except UpstreamBusy:
                ends["refused"] += 1
                most["waiting"] = max(most["waiting"], room.queue.waiting)
                return
            try:
                most[endpoint.name] = max(most[endpoint.name], endpoint.in_flight)
                await trio.sleep(draw.uniform(0, 0.6))
                ends["served"] += 1
            finally:
                endpoint.finish()
        ends["cancelled"] += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for _ in range(800):
            nursery.start_soon(call)
    assert most == {"a": 7, "b": 7, "waiting": 50}
    assert sum(ends.values()) == 800
    assert min(ends.values()) > 20
    assert [endpoint.in_flight for endpoint in room.endpoints] == [0, 0]
    assert room.queue.waiting == 0
