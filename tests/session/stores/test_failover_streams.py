"""Event streams while the store that keeps them is down."""

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from shadowcat.errors import StoreUnavailable
from shadowcat.session import FailoverConfig, InMemoryStore, open_failover_store
from shadowcat.testing.store_contract.client import (
    LIMITS,
    OTHER,
    OWNER,
    A,
    S,
    append,
    append_of,
    event_at,
    found,
    positions_of,
    session_called,
)

from .flaky import FlakyStore
from .test_failover import wait_recovered

CALLS = {
    "append_events": lambda s: s.append_events([append_of([event_at(2)])], LIMITS),
    "read_events": lambda s: s.read_events(A, S, 0),
    "claim_stream": lambda s: s.claim_stream(A, S, OTHER),
    "renew_owner": lambda s: s.renew_owner(OWNER, 60.0),
    "expire_streams": lambda s: s.expire_streams(1e9),
}


@pytest.fixture
def primary():
    return FlakyStore()


@asynccontextmanager
async def opened(primary, **config):
    async with open_failover_store(primary, FailoverConfig(**config)) as store:
        yield store


@pytest.mark.parametrize("keeps_streams", [True, False])
async def test_it_keeps_streams_if_the_primary_does(keeps_streams, autojump_clock):
    async with opened(InMemoryStore(keeps_streams=keeps_streams)) as store:
        assert keeps_streams == store.keeps_streams


@pytest.mark.parametrize("mode", ["down", "hung"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_in_an_outage_nothing_is_made_up(primary, autojump_clock, call, mode):
    """StoreUnavailable within the timeout, and at once when the breaker is open; nothing was done."""
    async with opened(primary, retry_interval=1e6) as store:
        await store.create_session(session_called(A))
        await append(store, append_of([event_at(1)]))
        before = await found(primary)
        primary.mode = mode
        started = trio.current_time()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await call(store)
        assert (10.0 if mode == "hung" else 0.0) == trio.current_time() - started
        assert 5 == store.statistics().failures
        primary.mode = "up"
        assert before == await found(primary)


async def test_what_is_refused_in_an_outage_is_taken_afterwards(primary, autojump_clock):
    """A session that the primary has never heard of is not gone: the worker keeps what it has and tries again."""
    async with opened(primary) as store:
        primary.mode = "down"
        await store.create_session(session_called(A))
        one = append_of([event_at(1)])
        for mode in ("down", "up"):
            primary.mode = mode
            with pytest.raises(StoreUnavailable):
                await store.append_events([one], LIMITS)

        await wait_recovered(store)
        assert [] == list(await store.append_events([one], LIMITS))
        assert [1] == positions_of((await found(primary)).events)


async def test_what_was_changed_in_an_outage_is_written_first(primary, autojump_clock):
    """Also of a session that ended: it is refused when the primary knows of its end."""
    async with opened(primary) as store:
        await store.create_session(session_called(A))
        await append(store, append_of([event_at(1)]))
        primary.mode = "down"
        await store.delete_session(A)
        primary.mode = "up"
        with pytest.raises(StoreUnavailable):
            await store.append_events([append_of([event_at(2)])], LIMITS)

        await wait_recovered(store)
        assert [append_of().key] == await store.append_events([append_of([event_at(2)])], LIMITS)
        assert await store.read_events(A, S, 0) is None


async def test_a_lost_reply_does_not_double_events(primary, autojump_clock):
    async with opened(primary) as store:
        await store.create_session(session_called(A))
        primary.mode = "deaf"
        with pytest.raises(StoreUnavailable):
            await store.append_events([append_of([event_at(1)])], LIMITS)
        primary.mode = "up"
        await wait_recovered(store)
        await append(store, append_of([event_at(1), event_at(2)]))
        assert [1, 2] == positions_of((await found(store)).events)


async def test_waiting_is_no_failure(primary, autojump_clock):
    """A primary may be silent for a second, whatever the timeout for its answers."""

    class Waiting(FlakyStore):
        async def wait_events(self, session_id, stream_id, after):
            await trio.sleep(1)

    async with opened(Waiting(), primary_timeout=0.1) as store:
        started = trio.current_time()
        await store.wait_events(A, S, 0)
        assert 1.0 == trio.current_time() - started
        assert 0 == store.statistics().failures


async def test_the_owner_of_before_the_outage_goes_on(primary, autojump_clock):
    """Nobody claimed its stream meanwhile, so it appends what it has kept."""
    async with opened(primary) as store:
        await store.create_session(session_called(A))
        await store.renew_owner(OWNER, 10.0)
        await append(store, append_of([event_at(1)]))
        primary.mode = "down"
        await trio.sleep(60)
        with pytest.raises(StoreUnavailable):
            await store.append_events([append_of([event_at(2)])], LIMITS)
        primary.mode = "up"
        await wait_recovered(store)
        await append(store, append_of([event_at(2), event_at(3)]))
        record = (await found(store)).record
        assert (None, 3) == (record.owner, record.last_position)
        await store.renew_owner(OWNER, 10.0)
        assert attrs.evolve(record, owner=OWNER) == (await found(store)).record
