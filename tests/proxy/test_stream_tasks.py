"""What streams cost in tasks, and what is left when one is cancelled, wherever that may be."""

from collections import Counter

import pytest
import trio
import trio.testing

from shadowcat import InMemoryStore
from shadowcat.testing import notification, open_proxy_kit, result

from .conversation import move, open_session, start_stream


class Spawned(trio.abc.Instrument):
    """Counts the tasks that are started."""

    def __init__(self):
        self.tasks = Counter()

    def task_spawned(self, task):
        self.tasks[task.name] += 1


def step(number):
    return notification("notifications/progress", progress=number)


async def test_events_start_no_task(autojump_clock):
    """10,000 events of 100 sessions; with a client at each stream, and everything stored."""
    async with open_proxy_kit(store=InMemoryStore()) as kit:
        streams = []
        for number in range(100):
            client = kit.new_client()
            kit.nursery.start_soon(kit.upstream.answer_initialize, f"upstream-{number}")
            await (await client.initialize()).read()
            streams.append(await start_stream(kit, number, client))
        before = count_tasks()
        instrument = Spawned()
        trio.lowlevel.add_instrument(instrument)
        for number in range(100):
            for events, follower in streams:
                await events.send(step(number), str(number))
                assert await follower.next() == step(number)
            await trio.sleep(0.11)
        trio.lowlevel.remove_instrument(instrument)
        assert instrument.tasks == Counter()
        assert count_tasks() == before


async def test_streams_that_are_over_leave_no_task(autojump_clock, kit):
    await trio.testing.wait_all_tasks_blocked()
    before = count_tasks()
    for number in range(50):
        events, follower = await start_stream(kit, number)
        if number % 2:
            follower.response.leave()
        await events.send(result(number), "a")
        events.end()
        if not number % 2:
            assert await follower.rest() == [result(number)]
    await trio.sleep(5)
    assert count_tasks() <= before + 2  # the persistence worker, and the keeper of its lease for a moment


def count_tasks():
    """Return how many tasks there are."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, pending = 0, [root]
    while pending:
        task = pending.pop()
        found += 1
        pending.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the task in it is about to run for the nth time."""

    def __init__(self, task, scope, steps):
        self.task, self.scope, self.steps = task, scope, steps

    def before_task_step(self, task):
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


@pytest.mark.parametrize("steps", range(1, 25))
async def test_client_that_is_cut_anywhere_misses_nothing(autojump_clock, kit, steps):
    """Its request is cancelled at each step in turn; then it comes back and has everything."""
    events, follower = await start_stream(kit)
    await events.send(step(0), "0")
    assert await follower.next() == step(0)
    follower.response.leave()

    async def send():
        for number in range(1, 6):
            await events.send(step(number), str(number))
            await trio.sleep(0.01)
        await events.send(result(1), "r")
        events.end()

    kit.nursery.start_soon(send)
    await cut_at(steps, kit, kit.client, follower)
    await follower.resume(kit.client)
    await follower.rest()
    assert follower.messages == [*map(step, range(6)), result(1)]


@pytest.mark.parametrize("steps", range(1, 25))
async def test_claim_that_is_cut_anywhere_can_be_made_again(autojump_clock, steps):
    """At the proxy that takes a stream over from one that has stopped."""
    store = InMemoryStore()
    async with open_proxy_kit(store=store) as old:
        await open_session(old)
        events, follower = await start_stream(old)
        for number in range(3):
            await events.send(step(number), str(number))
        assert await follower.next() == step(0)
    async with open_proxy_kit(store=store) as new:
        client = move(old.client, new)

        async def serve():
            while True:
                call = await new.upstream.next_call()
                cursor = int(call.headers["last-event-id"])
                again = call.open_events()
                new.nursery.start_soon(replay, again, cursor + 1)

        async def replay(again, first):
            for number in range(first, 6):
                await again.send(step(number), str(number))
            await again.send(result(1), "r")
            again.end()

        new.nursery.start_soon(serve)
        await cut_at(steps, new, client, follower)
        follower.response = await client.listen(follower.cursor)
        await follower.rest()
        assert follower.messages == [*map(step, range(6)), result(1)]


async def cut_at(steps, kit, client, follower):
    """Have *follower* resume, and cancel the proxy's side of it before its nth step."""
    served, reading = trio.CancelScope(), trio.CancelScope()

    async def app(*args):
        with served:
            instrument = CancelAt(trio.lowlevel.current_task(), served, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await kit.app(*args)
            finally:
                trio.lowlevel.remove_instrument(instrument)

    cut = move(client, kit, app)

    async def read():
        with reading:
            try:
                follower.response = await cut.listen(follower.cursor)
                await follower.rest()
            except (trio.BrokenResourceError, AssertionError):
                return

    kit.nursery.start_soon(read)
    await trio.sleep(1)
    reading.cancel()
    served.cancel()
    await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def kit():
    async with open_proxy_kit() as kit:
        await open_session(kit)
        yield kit
