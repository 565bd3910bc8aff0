"""Streams that this process has or had itself: claimed again, kept within bounds, forgotten."""

import pytest
import trio

from shadowcat.errors import EventsLost
from shadowcat.session import Cursor, InMemoryStore, LogLimits, ResumePoint, StreamConfig, StreamKind

from .managing import create, open_manager
from .streaming import blocks, copy, crash, finish, open_two, park, publish

FOOTPRINT = 2400 + 320 + 1000
"""Bytes that a stream with an event of a thousand bytes counts for."""


class ForgetfulStore(InMemoryStore):
    """Keeps no streams."""

    def __init__(self):
        super().__init__(keeps_streams=False)

    async def append_events(self, appends, limits):
        raise AssertionError("it is not asked to")

    async def claim_stream(self, session_id, stream_id, owner):
        return None


class SlowStore(InMemoryStore):
    """Claims happen at once, and the answer takes a while: less each time."""

    def __init__(self):
        super().__init__()
        self.delays = [2, 1]

    async def claim_stream(self, session_id, stream_id, owner):
        record = await super().claim_stream(session_id, stream_id, owner)
        await trio.sleep(self.delays.pop(0) if self.delays else 0)
        return record


class TestClaimedAgain:
    @pytest.mark.parametrize("store", [InMemoryStore, ForgetfulStore])
    async def test_parked_stream_goes_on_where_its_client_left_it(self, autojump_clock, store):
        """From memory, whether or not the store has it; by another client in the meantime it cannot be read."""
        async with open_manager(store()) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER, b"1", b"2")
            publish(manager, stream, "1", "2", "3")
            park(manager, stream)
            await trio.sleep(10)
            cursor = Cursor(stream.key.stream_id, 1, ResumePoint(0, "1"))
            taken = await manager.streams.claim(session, cursor)
            assert blocks(copy(taken, after=1)) == [b"data: 2", b"data: 3"]
            assert (taken.resume, taken.request_id, taken.sent_id) == (ResumePoint(0, "3"), b"1", b"2")
            assert (stream.is_fenced, taken.is_parked, manager.streams.statistics().kept) == (True, False, 0)
            assert manager.streams.find(session, cursor) is taken
            publish(manager, taken, "4")
            await trio.sleep(0.2)
            assert not taken.is_fenced

    async def test_parked_stream_that_another_has_had_since_is_taken_from_the_store(self, autojump_clock):
        """What this process remembers of it is out of date."""
        async with open_two() as (one, other, session):
            stream = one.streams.begin(session, StreamKind.ANSWER)
            publish(one, stream, "1")
            park(one, stream)
            await trio.sleep(0.2)
            cursor = Cursor(stream.key.stream_id, 1, None)
            taken = await other.streams.claim(session, cursor)
            publish(other, taken, "2", "3")
            park(other, taken)
            await trio.sleep(0.2)
            again = await one.streams.claim(session, cursor)
            assert blocks(copy(again, after=1)) == [b"data: 2", b"data: 3"]
            assert again.ownership.fence > taken.ownership.fence

    async def test_what_was_refused_is_not_remembered(self, autojump_clock):
        """Nobody but the owner says what a stream is."""
        async with open_two() as (zombie, other, session):
            stream = zombie.streams.begin(session, StreamKind.ANSWER)
            publish(zombie, stream, "1")
            await crash(zombie)
            cursor = Cursor(stream.key.stream_id, 1, None)
            taken = await other.streams.claim(session, cursor)
            publish(zombie, stream, "x")
            await trio.sleep(0.2)
            park(other, taken)
            await trio.sleep(0.2)
            again = await zombie.streams.claim(session, cursor)
            assert (copy(again), again.log.position) == ([], 1)

    async def test_client_that_asks_for_what_is_gone_harms_no_other(self, autojump_clock):
        """It is told; the stream that could not be replaced goes on, here and in the store."""
        limits = StreamConfig(limits=LogLimits(max_events=2))
        async with open_manager(streams=limits) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, *"12345")
            reader = stream.attach(4)
            await trio.sleep(0.2)
            publish(manager, stream, "6")
            for _ in range(2):
                with pytest.raises(EventsLost):
                    await manager.streams.claim(session, Cursor(stream.key.stream_id, 1, None))
            publish(manager, stream, "7")
            await trio.sleep(0.2)
            assert not reader.scope.cancel_called
            assert blocks(reader.take()) == [b"data: 5", b"data: 6", b"data: 7"]
            page = await manager.store.read_events(session.id, stream.key.stream_id, 0)
            assert page.record.last_position == 7

    async def test_stream_claimed_while_it_is_stored_is_not_given_up(self, autojump_clock):
        """The store refuses what was taken before; it is taken again."""

        class HeldUpStore(InMemoryStore):
            async def append_events(self, appends, limits):
                await trio.sleep(1)
                return await super().append_events(appends, limits)

        limits = StreamConfig(limits=LogLimits(max_events=2))
        async with open_manager(HeldUpStore(), streams=limits) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, *"123")
            await trio.sleep(5)
            publish(manager, stream, "4")
            await trio.sleep(0.5)
            with pytest.raises(EventsLost):
                await manager.streams.claim(session, Cursor(stream.key.stream_id, 1, None))
            await trio.sleep(5)
            assert not stream.is_fenced
            page = await manager.store.read_events(session.id, stream.key.stream_id, 0)
            assert page.record.last_position == 4

    async def test_newer_client_that_goes_further_back_replaces_the_stream(self, autojump_clock):
        """The upstream is asked from there; the older one is sent away."""
        limits = StreamConfig(limits=LogLimits(max_events=2))
        async with open_manager(streams=limits) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER)
            publish(manager, stream, *"12345")
            reader = stream.attach(5)
            taken = await manager.streams.claim(session, Cursor(stream.key.stream_id, 1, ResumePoint(0, "1")))
            assert (taken.resume, taken.log.position) == (ResumePoint(0, "1"), 5)
            assert reader.scope.cancel_called
            assert list(manager.streams.of(session)) == [taken]

    async def test_of_two_clients_that_claim_at_once_one_is_served(self, autojump_clock):
        """In whatever order the store answers, what is left here may be stored."""
        async with open_manager(SlowStore()) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER)
            publish(manager, stream, "1")
            await trio.sleep(0.2)
            park(manager, stream)
            await trio.sleep(0.2)
            cursor = Cursor(stream.key.stream_id, 1, None)
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(manager.streams.claim, session, cursor)
                    await trio.sleep(0.1)
            (left,) = manager.streams.of(session)
            publish(manager, left, "2")
            await trio.sleep(0.2)
            assert not left.is_fenced
            page = await manager.store.read_events(session.id, stream.key.stream_id, 0)
            assert page.record.last_position == 2

    @pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
    async def test_cancelled_claim_can_be_made_again(self, autojump_clock, seconds):
        """Wherever it was: renewing the lease, claiming, or reading."""

        class FarStore(InMemoryStore):
            async def renew_owner(self, owner, ttl):
                await super().renew_owner(owner, 100)
                await trio.sleep(1)

            async def claim_stream(self, session_id, stream_id, owner):
                record = await super().claim_stream(session_id, stream_id, owner)
                await trio.sleep(1)
                return record

            async def read_events(self, session_id, stream_id, after, limit=100):
                await trio.sleep(1)
                return await super().read_events(session_id, stream_id, after, limit)

        async with open_two(FarStore()) as (one, other, session):
            stream = one.streams.begin(session, StreamKind.ANSWER)
            publish(one, stream, "1", "2")
            park(one, stream)
            await trio.sleep(5)
            cursor = Cursor(stream.key.stream_id, 1, None)
            with trio.move_on_after(seconds) as scope:
                await other.streams.claim(session, cursor)
            assert scope.cancelled_caught
            assert list(other.streams.of(session)) == []
            taken = await other.streams.claim(session, cursor)
            assert blocks(copy(taken, after=1)) == [b"data: 2"]


def begin_many(manager, session, count, size=1000):
    streams = [manager.streams.begin(session, StreamKind.ANSWER) for _ in range(count)]
    for stream in streams:
        stream.publish(b"x" * size, None, manager.now())
    return streams


class TestBounds:
    async def test_session_keeps_so_many_streams(self, autojump_clock):
        """Those that have ended go, the oldest first; those that are open stay, however many."""
        limits = StreamConfig(limits=LogLimits(max_streams=3))
        async with open_manager(streams=limits) as manager:
            session, other = await create(manager), await create(manager)
            streams = begin_many(manager, session, 5)
            begin_many(manager, other, 3)
            assert list(manager.streams.of(session)) == streams
            for stream in streams:
                finish(manager, stream)
            assert list(manager.streams.of(session)) == streams[2:]
            assert manager.streams.statistics().kept == 3
            assert len(list(manager.streams.of(other))) == 3

    async def test_so_many_bytes_are_kept_of_all_sessions(self, autojump_clock):
        """The ones that came to rest first go first, whether ended or parked; each costs something by itself."""
        async with open_manager(streams=StreamConfig(max_resting_bytes=3 * FOOTPRINT)) as manager:
            sessions = [await create(manager) for _ in range(5)]
            streams = [begin_many(manager, session, 1)[0] for session in sessions]
            for number, stream in enumerate(reversed(streams)):
                (park if number % 2 else finish)(manager, stream)
            kept = [stream for session in sessions for stream in manager.streams.of(session)]
            assert kept == streams[:3]
            assert manager.streams.statistics().kept == 3

    async def test_client_that_reads_the_rest_is_not_cut_off(self, autojump_clock):
        """What has ended is dropped here, and read to its end all the same."""
        async with open_manager(streams=StreamConfig(max_resting_bytes=0)) as manager:
            session = await create(manager)
            (stream,) = begin_many(manager, session, 1)
            reader = stream.attach(0)
            finish(manager, stream)
            assert list(manager.streams.of(session)) == []
            assert not reader.scope.cancel_called
            assert (len(reader.take()), reader.is_at_end) == (1, True)

    async def test_dropped_stream_is_to_be_had_from_the_store(self, autojump_clock):
        """It is stored though it was dropped before."""
        async with open_manager(streams=StreamConfig(max_resting_bytes=0)) as manager:
            session = await create(manager)
            (stream,) = begin_many(manager, session, 1)
            finish(manager, stream)
            await trio.sleep(0.2)
            taken = await manager.streams.claim(session, Cursor(stream.key.stream_id, 0, None))
            assert (len(copy(taken)), taken.is_ended) == (1, True)

    async def test_old_streams_go_when_it_is_swept(self, autojump_clock):
        """By when they came to rest; events of open ones by their own age."""
        async with open_manager(streams=StreamConfig(limits=LogLimits(max_age=60))) as manager:
            session = await create(manager)
            first, second, open_one = begin_many(manager, session, 3)
            open_one.publish(b"y", None, manager.now())
            finish(manager, first)
            await trio.sleep(30)
            park(manager, second)
            await trio.sleep(29)
            manager.streams.sweep()
            assert list(manager.streams.of(session)) == [first, second, open_one]
            assert open_one.log.first == 0
            await trio.sleep(1.1)
            manager.streams.sweep()
            assert list(manager.streams.of(session)) == [second, open_one]
            assert blocks(open_one.log.read(0, 9)) == [b"y"]
            await trio.sleep(30)
            manager.streams.sweep()
            assert list(manager.streams.of(session)) == [open_one]
            assert second.is_fenced

    async def test_what_is_counted_is_what_is_kept(self, autojump_clock):
        """However streams come to rest and go: told twice, dropped, claimed again, swept or forgotten."""
        bound = 4 * FOOTPRINT
        config = StreamConfig(max_resting_bytes=bound, limits=LogLimits(max_age=60))
        async with open_manager(ForgetfulStore(), streams=config) as manager:
            for round_ in range(20):
                session = await create(manager)
                one, two, three, four = begin_many(manager, session, 4)
                for stream in (one, one, two, three):
                    finish(manager, stream)
                park(manager, four)
                manager.streams.drop(one)
                manager.streams.drop(one)
                manager.streams.note_rest(one)
                await manager.streams.claim(session, Cursor(two.key.stream_id, 0, None))
                four = await manager.streams.claim(session, Cursor(four.key.stream_id, 1, ResumePoint(0, "x")))
                if round_ % 3 == 0:
                    await manager.end(session.id)
                if round_ % 5 == 0:
                    await trio.sleep(61)
                    manager.streams.sweep()
            await trio.sleep(61)
            manager.streams.sweep()
            assert manager.streams.statistics().kept == 0
            session = await create(manager)
            for stream in begin_many(manager, session, 6):
                finish(manager, stream)
            assert manager.streams.statistics().kept == 4


class TestForget:
    async def test_streams_end_with_their_session(self, autojump_clock):
        """Open, ended or parked; their clients are sent away, also those that still read the rest."""
        async with open_manager() as manager:
            session, other = await create(manager), await create(manager)
            streams = begin_many(manager, session, 3)
            (kept,) = begin_many(manager, other, 1)
            readers = [stream.attach(0) for stream in streams[:2]]
            finish(manager, streams[1])
            park(manager, streams[2])
            await manager.end(session.id)
            assert all(stream.is_fenced and stream.presence.cancel_called for stream in streams)
            assert all(reader.scope.cancel_called for reader in readers)
            assert list(manager.streams.all()) == [kept]
            assert manager.streams.statistics().kept == 0
            assert not kept.is_fenced
            await trio.sleep(1)
            assert manager.store.keeps_streams

    async def test_stream_that_is_given_up_is_not_found(self, autojump_clock):
        """Whoever reads it is sent away and comes back; dropping it twice harms none that took its place."""
        async with open_manager() as manager:
            session = await create(manager)
            (stream,) = begin_many(manager, session, 1)
            reader = stream.attach(0)
            await trio.sleep(0.2)
            manager.streams.drop(stream)
            assert reader.scope.cancel_called
            assert manager.streams.find(session, stream.cursor_before(stream.log.end)) is None
            taken = await manager.streams.claim(session, stream.cursor_before(stream.log.end))
            manager.streams.drop(stream)
            assert list(manager.streams.of(session)) == [taken]


async def test_every_stream_here_can_be_looked_at(autojump_clock):
    """Those that have ended too, until they are dropped."""
    async with open_manager() as manager:
        session = await create(manager)
        stream = manager.streams.begin(session, StreamKind.ANSWER)
        stream.end(manager.now())
        assert [stream.key] == manager.streams.keys()
        assert manager.streams.get(stream.key) is stream
        manager.streams.drop(stream)
        assert ([], None) == (manager.streams.keys(), manager.streams.get(stream.key))
