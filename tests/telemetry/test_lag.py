"""How late the event loop is."""

import trio
import trio.testing

from shadowcat.telemetry import LoopLag


def test_lag_is_by_how_much_a_sleep_was_too_long():
    """On a clock of the test's own: on time once, and once late by a quarter of a second."""
    clock = trio.testing.MockClock()
    found = trio.run(_measure, clock, clock=clock)

    assert found.count == 2
    assert found.total == 0.25


async def _measure(clock):
    lag = LoopLag(interval=0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        for seconds in (0.5, 0.75):
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return lag.histogram
