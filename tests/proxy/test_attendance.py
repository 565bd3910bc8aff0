"""When a call gets a task that waits for its client to leave."""

from functools import partial

import pytest
import trio

from shadowcat.proxy.attendance import PATIENCE, open_attendance


class Client:
    """Leaves when told, and knows who has waited for that."""

    def __init__(self):
        self.has_left = trio.Event()
        self.watches = 0

    async def watch(self, scope):
        self.watches += 1
        await self.has_left.wait()
        scope.cancel()


async def test_short_call_is_not_watched(autojump_clock):
    client = Client()
    async with open_attendance(15) as attendance:
        for _ in range(50):
            await attendance.attend(trio.lowlevel.checkpoint, client.watch)
            await trio.sleep(PATIENCE / 7)
    assert client.watches == 0


async def test_long_call_is_watched_and_its_watch_ends_with_it(autojump_clock):
    client = Client()
    async with open_attendance(15) as attendance:
        await attendance.attend(partial(trio.sleep, 1), client.watch)
        assert trio.current_time() == 1
    assert client.watches == 1


@pytest.mark.parametrize("after", [0, PATIENCE / 2, PATIENCE, 5])
async def test_leaving_cancels_the_call_at_once_or_as_soon_as_it_is_watched(autojump_clock, after):
    client = Client()
    async with open_attendance(15) as attendance, trio.open_nursery() as nursery:

        async def leave():
            await trio.sleep(after)
            client.has_left.set()

        nursery.start_soon(leave)
        await attendance.attend(trio.sleep_forever, client.watch)
        assert trio.current_time() == pytest.approx(max(after, PATIENCE))


async def test_each_of_many_is_watched_in_its_time(autojump_clock):
    """Those that came later are not watched with those before, nor forgotten."""
    clients = [Client() for _ in range(20)]
    async with open_attendance(15) as attendance, trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(attendance.attend, trio.sleep_forever, client.watch)
            await trio.sleep(PATIENCE / 4)
        await trio.sleep(PATIENCE / 8)
        assert [client.watches for client in clients] == [1] * 17 + [0] * 3
        await trio.sleep(PATIENCE)
        assert [client.watches for client in clients] == [1] * 20
        nursery.cancel_scope.cancel()


async def test_failure_of_a_call_is_its_own(autojump_clock):
    async def fail():
        await trio.sleep(1)
        raise ValueError

    client = Client()
    async with open_attendance(15) as attendance:
        with pytest.raises(ExceptionGroup) as caught:
            await attendance.attend(fail, client.watch)
        assert caught.group_contains(ValueError, depth=1)
        await attendance.attend(partial(trio.sleep, 1), client.watch)
    assert client.watches == 2
