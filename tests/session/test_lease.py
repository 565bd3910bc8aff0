"""Being known as alive to those that share the store."""

import pytest
import trio

from shadowcat.errors import StoreUnavailable
from shadowcat.session import InMemoryStore, StreamConfig, StreamKind
from shadowcat.session.lease import OwnerLease

from .managing import create, open_manager


class LeaseStore(InMemoryStore):
    """Takes note of renewals; fails or is slow when told to."""

    def __init__(self):
        super().__init__()
        self.renewals = []
        self.error = None
        self.delay = 0.0

    async def renew_owner(self, owner, ttl):
        self.renewals.append((trio.current_time(), ttl))
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        await super().renew_owner(owner, ttl)


@pytest.fixture
def store():
    return LeaseStore()


async def test_lease_is_renewed_when_it_is_time(autojump_clock, store):
    """Three times while it lasts, however often it is asked for."""
    lease = OwnerLease(store, 3.0)
    for _ in range(50):
        await lease.ensure()
        await trio.sleep(0.25)
    assert [when for when, _ in store.renewals] == [float(number) for number in range(13)]
    assert {ttl for _, ttl in store.renewals} == {3.0}


@pytest.mark.parametrize("error", [StoreUnavailable("down"), OSError("disk")])
async def test_lease_that_could_not_be_renewed_is_tried_again_at_once(autojump_clock, store, error):
    lease = OwnerLease(store, 3.0)
    store.error = error
    with pytest.raises(type(error)):
        await lease.ensure()
    store.error = None
    await lease.ensure()
    assert len(store.renewals) == 2


async def test_cancelled_renewal_does_not_count(autojump_clock, store):
    """It may or may not have reached the store."""
    lease = OwnerLease(store, 3.0)
    store.delay = 10
    with trio.move_on_after(1):
        await lease.ensure()
    store.delay = 0
    await lease.ensure()
    assert len(store.renewals) == 2


async def test_slow_renewal_counts_from_when_it_was_sent(autojump_clock, store):
    """Nobody relies on more time than the store may have given."""
    lease = OwnerLease(store, 3.0)
    store.delay = 1.5
    await lease.ensure()
    await lease.ensure()
    assert [when for when, _ in store.renewals] == [0, 1.5]


@pytest.mark.parametrize("seconds", [0.7, 1.0, 3.0, 10.0])
async def test_lease_is_kept_while_it_is_needed(autojump_clock, store, seconds):
    """One renewal may fail, and others still see a sign of life in time."""
    lease = OwnerLease(store, seconds)
    until = trio.current_time() + 20 * seconds
    await lease.keep(lambda: trio.current_time() < until)
    assert trio.current_time() - until < seconds
    times = [when for when, _ in store.renewals]
    assert max(after - before for before, after in zip(times, times[1:], strict=False)) < seconds / 2


async def test_lease_is_kept_over_failures(autojump_clock, store):
    lease = OwnerLease(store, 3.0)
    store.error = StoreUnavailable("down")

    def is_needed():
        if trio.current_time() >= 10:
            store.error = None
        return trio.current_time() < 15

    await lease.keep(is_needed)
    assert len(store.renewals) >= 14


async def test_lease_that_never_was_is_not_given_up(autojump_clock, store):
    """A proxy without streams says nothing."""
    await OwnerLease(store, 3.0).give_up()
    assert store.renewals == []


@pytest.mark.parametrize("error", [None, StoreUnavailable("down"), OSError("disk")])
async def test_lease_is_given_up_if_the_store_can_be_told(autojump_clock, store, error):
    lease = OwnerLease(store, 3.0)
    await lease.ensure()
    store.error = error
    await lease.give_up()
    assert store.renewals[-1] == (0, 0)


class TestManager:
    async def test_lease_is_kept_while_streams_are_read(self, autojump_clock, store):
        """From the first on until the last has ended, and again for a later one."""
        async with open_manager(store) as manager:
            session = await create(manager)
            await trio.sleep(10)
            assert store.renewals == []
            for began in (10, 40):
                await trio.sleep(began - trio.current_time())
                stream = manager.streams.begin(session, StreamKind.LISTENING)
                await trio.sleep(20)
                stream.end(manager.now())
                manager.streams.note_rest(stream)
            await trio.sleep(20)
            times = [when for when, _ in store.renewals]
            assert [round(when) for when in times] == [*range(10, 31), *range(40, 61)]

    @pytest.mark.parametrize("delay", [0, 100])
    async def test_stopping_manager_says_so_within_a_second(self, autojump_clock, store, delay):
        """Others need not wait for the lease to run out, nor this one for the store."""
        async with open_manager(store, streams=StreamConfig(lease_timeout=60)) as manager:
            manager.streams.begin(await create(manager), StreamKind.LISTENING)
            await trio.sleep(1)
            store.delay = delay
        assert store.renewals[-1][1] == 0
        assert trio.current_time() <= 2
