"""An outage of the session store, as seen by those who go on using it."""

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from shadowcat.envelope import Direction, MessageEnvelope
from shadowcat.errors import SessionConflict, SessionExists, SessionNotFound, StoreUnavailable
from shadowcat.session import Activity, FailoverConfig, InMemoryStore, Session, SessionId
from shadowcat.session.stores.failover import open_failover_store
from shadowcat.testing import check_session_store

from .flaky import FlakyStore

A, B = SessionId("a"), SessionId("b")


@pytest.fixture
def primary():
    return FlakyStore()


@asynccontextmanager
async def opened(primary, **config):
    async with open_failover_store(primary, FailoverConfig(**config)) as store:
        yield store


async def wait_recovered(store):
    with trio.fail_after(300):
        while store.is_degraded:  # noqa: ASYNC110 - as an operator watches it, from outside
            await trio.sleep(0.5)


def session(name, **fields):
    return Session(id=SessionId(name), expires_at=1000.0, **fields)


def frame(name, text):
    return MessageEnvelope(name, Direction.TO_CLIENT, text, 1.0)


def state_of(session):
    return session.principal, session.revision


def times_of(session):
    return session.last_activity, session.expires_at


async def seen(store, *names):
    for name in names:
        await store.create_session(session(name))


async def test_with_a_primary_that_is_up_it_keeps_the_contract():
    """Two proxies with a wrapper each see the same sessions."""
    shared = FlakyStore()
    with trio.fail_after(60):
        await check_session_store(lambda: opened(shared))


async def test_mid_traffic_nothing_fails(primary, autojump_clock):
    """R27: requests go on, and nothing written in the outage is lost."""
    async with opened(primary) as store:
        await seen(store, "a", "b")
        primary.mode = "down"

        read = await store.get_session(A)
        stored = await store.update_session(attrs.evolve(read, principal="somebody"))
        assert (1, "somebody") == (stored.revision, (await store.get_session(A)).principal)
        with pytest.raises(SessionConflict):
            await store.update_session(read)
        await store.modify(A, lambda s: attrs.evolve(s, upstream_name="second"))
        await store.touch_sessions([Activity(A, 5.0, 2000.0), Activity(B, 6.0, 3000.0)])
        await store.store_last_event_id(A, "7")
        await store.store_last_event_id(A, "8")
        await store.add_frame(frame("a", b"1"))
        await store.create_session(session("born"))
        with pytest.raises(SessionExists):
            await store.create_session(session("born"))
        assert "8" == await store.get_last_event_id(A)
        assert {"a", "b", "born"} == {s.id for s in await store.list_sessions()}
        assert 3 == await store.count_sessions()
        assert store.is_degraded

        primary.mode = "up"
        await wait_recovered(store)
        found = await InMemoryStore.get_session(primary, A)
        assert ("somebody", "second", 2) == (found.principal, found.upstream_name, found.revision)
        assert (5.0, 2000.0) == (found.last_activity, found.expires_at)
        assert (6.0, 3000.0) == times_of(await InMemoryStore.get_session(primary, B))
        assert "8" == await primary.get_last_event_id(A)
        assert [b"1"] == [f.message for f in await primary.get_frames(A)]
        born = await primary.get_session(SessionId("born"))
        assert {"shadowcat.born": "fallback"} == born.metadata
        statistics = store.statistics()
        assert (False, 0, 0) == (statistics.is_degraded, statistics.conflicts, statistics.pending)
        assert statistics.failures >= 5
        assert statistics.fallbacks >= 10
        assert statistics.pushed == 6  # two sessions, two touches, one event id, one frame


async def test_a_failure_costs_no_call_once_the_breaker_is_open(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "down"
        for _ in range(5):
            await store.get_session(A)
        calls = primary.calls
        for _ in range(1000):
            await store.get_session(A)
        assert calls == primary.calls
        assert (5, 1005) == (store.statistics().failures, store.statistics().fallbacks)


async def test_a_hung_primary_costs_five_timeouts_and_no_more(primary, autojump_clock):
    """R55: never a hang."""
    async with opened(primary, retry_interval=1000.0) as store:
        await seen(store, "a")
        primary.mode = "hung"
        started = trio.current_time()
        for _ in range(100):
            assert A == (await store.get_session(A)).id
        assert 10.0 == trio.current_time() - started


async def test_calls_that_hang_at_once_hang_once(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "hung"
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(store.get_session, A)
        assert 2.0 == trio.current_time() - started


async def test_not_found_is_an_answer(primary, autojump_clock):
    """The first sketch counted it as a failure, and asked the fallback."""
    async with opened(primary) as store:
        for _ in range(20):
            with pytest.raises(SessionNotFound):
                await store.get_session(A)
        assert (0, 0) == (store.statistics().failures, store.statistics().fallbacks)
        assert not store.is_degraded


async def test_what_is_not_known_is_not_denied(primary, autojump_clock):
    """A client that is told 404 throws its session away; 503 lets it try again."""
    async with opened(primary) as store:
        await seen(store, "a")
        await InMemoryStore.create_session(primary, session("of another proxy"))
        primary.mode = "down"
        for call in (store.get_session, store.delete_session, store.get_last_event_id):
            with pytest.raises(StoreUnavailable):
                await call(SessionId("of another proxy"))
        with pytest.raises(StoreUnavailable):
            await store.get_frames(A)


async def test_a_delete_in_the_outage_is_remembered(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        await store.store_last_event_id(A, "1")
        primary.mode = "down"
        await store.touch_sessions([Activity(A, 5.0, 2000.0)])
        await store.delete_session(A)
        for call in (store.get_session, store.delete_session, store.get_last_event_id):
            with pytest.raises(SessionNotFound):
                await call(A)
        assert [] == await store.list_sessions()

        primary.mode = "up"
        with pytest.raises(SessionNotFound):
            await store.get_session(A)
        await wait_recovered(store)
        assert 0 == await InMemoryStore.count_sessions(primary)
        with pytest.raises(SessionNotFound):
            await store.get_session(A)


async def test_a_session_born_and_ended_in_the_outage_leaves_no_trace(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "down"
        for _ in range(5):
            await store.get_session(A)
        for _ in range(3):
            await store.create_session(session("b"))
            await store.store_last_event_id(B, "1")
            await store.add_frame(frame("b", b"1"))
            assert ("1", 1) == (await store.get_last_event_id(B), await store.count_frames(B))
            await store.delete_session(B)
        assert 0 == store.statistics().pending


async def test_a_newer_update_elsewhere_stays(primary, autojump_clock):
    """R27: nothing stale overwrites newer."""
    async with opened(primary) as store:
        await seen(store, "a")
        read = await store.get_session(A)
        primary.mode = "down"
        await store.update_session(attrs.evolve(read, principal="here"))
        for _ in range(2):
            await InMemoryStore.modify(InMemoryUp(primary), A, lambda s: attrs.evolve(s, principal="elsewhere"))

        primary.mode = "up"
        await wait_recovered(store)
        assert ("elsewhere", 2) == state_of(await store.get_session(A))
        assert 1 == store.statistics().conflicts


async def test_a_newer_update_here_wins(primary, autojump_clock):
    """It is written over what it was compared with, so that revisions never go back."""
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "down"
        for number in range(3):
            await store.modify(A, lambda s, n=number: attrs.evolve(s, principal=f"here {n}"))
        await InMemoryStore.modify(InMemoryUp(primary), A, lambda s: attrs.evolve(s, principal="elsewhere"))

        primary.mode = "up"
        await wait_recovered(store)
        found = await store.get_session(A)
        assert ("here 2", 3) == (found.principal, found.revision)
        assert 1 == store.statistics().conflicts


async def test_a_session_ended_elsewhere_stays_ended(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "down"
        await store.modify(A, lambda s: attrs.evolve(s, principal="here"))
        await store.store_last_event_id(A, "1")
        await InMemoryStore.delete_session(InMemoryUp(primary), A)

        primary.mode = "up"
        await wait_recovered(store)
        with pytest.raises(SessionNotFound):
            await store.get_session(A)
        assert 1 == store.statistics().conflicts


async def test_a_lost_reply_is_no_conflict(primary, autojump_clock):
    """What the primary took before it fell silent is known again when it is back."""
    async with opened(primary) as store:
        await seen(store, "a", "gone")
        primary.mode = "deaf"
        await store.modify(A, lambda s: attrs.evolve(s, principal="here"))
        await store.create_session(session("b"))
        await store.delete_session(SessionId("gone"))
        primary.mode = "down"
        await store.modify(A, lambda s: attrs.evolve(s, upstream_name="second"))

        primary.mode = "up"
        await wait_recovered(store)
        found = await InMemoryStore.get_session(primary, A)
        assert ("here", "second", 2) == (found.principal, found.upstream_name, found.revision)
        assert {"a", "b"} == {s.id for s in await InMemoryStore.list_sessions(primary)}
        assert 0 == store.statistics().conflicts


async def test_flapping_loses_nothing(primary, autojump_clock):
    """Up, down, deaf, hung and up again: every change is in the end result, in order."""
    async with opened(primary) as store:
        await seen(store, "a")
        for number in range(60):
            primary.mode = ("up", "down", "deaf", "up", "hung")[number % 5]
            await store.modify(A, lambda s: attrs.evolve(s, metadata={"n": str(int(s.metadata.get("n", "0")) + 1)}))
            await store.store_last_event_id(A, str(number))
            await trio.sleep(number % 7)
        primary.mode = "up"
        await wait_recovered(store)
        found = await InMemoryStore.get_session(primary, A)
        assert ("60", 60) == (found.metadata["n"], found.revision)
        assert "59" == await primary.get_last_event_id(A)
        assert 0 == store.statistics().conflicts


async def test_what_changes_during_recovery_is_written_too(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a", "b")
        primary.mode = "down"
        for name in (A, B):
            await store.modify(name, lambda s: attrs.evolve(s, principal="0"))
        primary.mode = "up"
        number = 0
        while store.is_degraded:
            number += 1
            await store.modify(A, lambda s, n=number: attrs.evolve(s, principal=str(n)))
            await trio.sleep(0 if number % 100 else 0.1)
        assert (str(number), 1 + number) == state_of(await InMemoryStore.get_session(primary, A))


async def test_memory_is_bounded(primary, autojump_clock):
    """Copies are dropped, the oldest first; what is owed is not, so that no more is taken."""
    async with opened(primary, max_copies=50, max_pending=20) as store:
        await seen(store, *(f"s{n}" for n in range(200)))
        assert 50 == store._backlog.copies
        primary.mode = "down"
        assert 50 == await store.count_sessions()
        for number in range(150, 170):
            await store.modify(SessionId(f"s{number}"), lambda s: attrs.evolve(s, principal="here"))
        assert 20 == store.statistics().pending
        await store.modify(SessionId("s150"), lambda s: attrs.evolve(s, principal="again"))
        with pytest.raises(StoreUnavailable):
            await store.modify(SessionId("s170"), lambda s: attrs.evolve(s, principal="here"))
        with pytest.raises(StoreUnavailable):
            await store.touch_sessions([Activity(A, 1.0, 1.0)])
        with pytest.raises(StoreUnavailable):
            await store.create_session(session("one more"))
        assert "s170" == (await store.get_session(SessionId("s170"))).id

        primary.mode = "up"
        await wait_recovered(store)
        principals = [s.principal for s in await InMemoryStore.list_sessions(primary)]
        assert (19, 1) == (principals.count("here"), principals.count("again"))


async def test_garbage_ids_do_not_push_copies_out(primary, autojump_clock):
    """A client that guesses ids cannot make the proxy forget its sessions."""
    async with opened(primary, max_copies=10) as store:
        await seen(store, "a")
        for number in range(100):
            with pytest.raises(SessionNotFound):
                await store.get_session(SessionId(f"guess-{number}"))
        primary.mode = "down"
        assert A == (await store.get_session(A)).id


async def test_expiry_waits_for_the_primary(primary, autojump_clock):
    """What another proxy may have used is not ended on hearsay; what was born here is."""
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "down"
        await store.touch_sessions([Activity(A, 900.0, 2000.0)])
        for _ in range(5):
            await store.get_session(A)
        await store.create_session(session("b"))
        assert ["b"] == [s.id for s in await store.expire_sessions(1500.0)]

        primary.mode = "up"
        assert [] == await store.expire_sessions(1500.0)
        await wait_recovered(store)
        assert [] == await store.expire_sessions(1500.0)
        assert ["a"] == [s.id for s in await store.expire_sessions(2000.0)]


async def test_expiry_waits_for_what_is_pending(primary, autojump_clock):
    """A session used in the outage is not ended before the primary knows."""
    async with opened(primary, retry_interval=1000.0) as store:
        await seen(store, "a", "b")
        primary.mode = "down"
        await store.touch_sessions([Activity(A, 900.0, 2000.0)])
        await store.modify(B, lambda s: attrs.evolve(s, principal="here"))
        primary.mode = "up"
        assert [] == await store.expire_sessions(1500.0)
        assert A == (await store.get_session(A)).id


async def test_event_ids_that_are_owed_are_the_newest(primary, autojump_clock):
    """Neither an older one in the primary is read, nor is a newer one overtaken."""
    async with opened(primary) as store:
        await seen(store, "a", "b")
        await store.store_last_event_id(A, "1")
        primary.mode = "down"
        await store.store_last_event_id(A, "2")
        primary.mode = "up"
        assert "2" == await store.get_last_event_id(A)
        await store.store_event_ids_batch([(A, "3"), (B, "1")])
        assert "3" == await store.get_last_event_id(A)
        await wait_recovered(store)
        assert "3" == await primary.get_last_event_id(A)


async def test_a_read_shows_the_times_that_are_still_owed(primary, autojump_clock):
    """A session that was used all through an outage is not idle the moment it ends."""
    async with opened(primary, retry_interval=1000.0) as store:
        await seen(store, "a")
        primary.mode = "down"
        await store.touch_sessions([Activity(A, 900.0, 2000.0)])
        primary.mode = "up"
        assert (900.0, 2000.0) == times_of(await store.get_session(A))
        assert 2000.0 == (await store.list_sessions())[0].expires_at
        assert 2000.0 == (await store.get_sessions_batch([A]))[0].expires_at


async def test_frames_keep_their_order_over_an_outage(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a")
        for number in range(9):
            primary.mode = "down" if 3 <= number < 6 else "up"
            await store.add_frame(frame("a", str(number).encode()))
        assert list(range(9)) == [int(f.message) for f in await store.get_frames(A)]
        assert 9 == await store.count_frames(A)
        await wait_recovered(store)
        assert list(range(9)) == [int(f.message) for f in await primary.get_frames(A)]


async def test_batches_go_on_in_an_outage(primary, autojump_clock):
    async with opened(primary) as store:
        await seen(store, "a", "b", "gone")
        await store.delete_session(SessionId("gone"))
        primary.mode = "down"
        names = [B, SessionId("gone"), A]
        found = await store.get_sessions_batch(names)
        assert ["b", "a"] == [s.id for s in found]
        assert ["b"] == await store.update_sessions_batch([attrs.evolve(found[0], revision=5), found[1]])
        assert ["gone"] == await store.store_event_ids_batch([(name, "1") for name in names])
        primary.mode = "up"
        await wait_recovered(store)
        assert "1" == await primary.get_last_event_id(B)


async def test_closing_writes_what_is_pending(primary, autojump_clock):
    """Also while the breaker is open: the primary may have come back since."""
    async with opened(primary) as store:
        await seen(store, "a", "b")
        primary.mode = "down"
        for _ in range(6):
            await store.modify(A, lambda s: attrs.evolve(s, principal="here"))
            await store.get_session(B)
        primary.mode = "up"
        calls = primary.calls
        await store.get_session(B)
        assert calls == primary.calls
    assert ("here", 6) == state_of(await InMemoryStore.get_session(primary, A))


async def test_a_hung_primary_cannot_keep_the_process_alive(primary, autojump_clock):
    async with opened(primary, primary_timeout=100.0) as store:
        await seen(store, "a")
        primary.mode = "down"
        await store.modify(A, lambda s: attrs.evolve(s, principal="here"))
        primary.mode = "hung"
        started = trio.current_time()
    assert 5.0 == trio.current_time() - started


async def test_a_cancelled_call_is_no_failure(primary, autojump_clock):
    """Clients that hang up say nothing against the store."""
    async with opened(primary) as store:
        await seen(store, "a")
        primary.mode = "hung"
        for _ in range(20):
            with trio.move_on_after(0.1) as scope:
                await store.get_session(A)
            assert scope.cancelled_caught
        assert 0 == store.statistics().failures
        primary.mode = "up"
        assert A == (await store.get_session(A)).id


@pytest.mark.parametrize("delay", range(40))
async def test_recovery_can_be_cancelled_anywhere(primary, delay, autojump_clock):
    """What was under way is written by the next attempt, once."""
    async with opened(primary, retry_interval=1e6) as store:
        await seen(store, "a", "b")
        primary.mode = "down"
        await store.modify(A, lambda s: attrs.evolve(s, principal="here"))
        await store.modify(A, lambda s: attrs.evolve(s, principal="there"))
        await store.create_session(session("born"))
        await store.delete_session(B)
        await store.store_last_event_id(A, "1")
        primary.mode = "up"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.flush)
            for _ in range(delay):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await store.flush()
        found = await InMemoryStore.get_session(primary, A)
        assert ("there", 2) == (found.principal, found.revision)
        assert {"a", "born"} == {s.id for s in await InMemoryStore.list_sessions(primary)}
        assert "1" == await primary.get_last_event_id(A)
        assert (0, 0) == (store.statistics().pending, store.statistics().conflicts)


class InMemoryUp(InMemoryStore):
    """The same sessions as a `FlakyStore` has, through a connection of another proxy's."""

    def __init__(self, primary):
        self._entries, self._due = primary._entries, primary._due


async def pages_of(store, after=None, limit=2):
    pages = []
    while True:
        page = await store.list_session_ids(after, limit)
        pages.append(list(page.ids))
        after = page.next
        if after is None:
            return pages


async def test_pages_go_on_from_memory_in_an_outage(primary, autojump_clock):
    """Whoever is half through a listing as the primary fails misses none of those that are known."""
    async with opened(primary) as store:
        await seen(store, "a", "b", "c", "d", "e")
        half = await store.list_session_ids(None, 2)
        primary.mode = "down"

        assert [["a", "b"], ["c", "d"], ["e"]] == await pages_of(store, half.next)


async def test_pages_end_with_what_the_primary_has_not_heard_of(primary, autojump_clock):
    """Sessions that were opened in the outage are listed while it is made good."""
    async with opened(primary) as store:
        await seen(store, "a", "b", "c")
        primary.mode = "down"
        await store.create_session(session("born"))
        primary.mode = "up"

        assert [["a", "b"], ["c"], ["born"]] == await pages_of(store)
