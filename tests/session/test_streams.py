"""Streams of one process, and what it takes over from others through the store."""

import pytest
import trio

from shadowcat.errors import EventsLost, StoreUnavailable
from shadowcat.session import (
    Cursor,
    InMemoryStore,
    LogLimits,
    ResumePoint,
    StreamConfig,
    StreamId,
    StreamKind,
    new_owner_id,
    parse_cursor,
)

from .managing import create, open_manager
from .streaming import blocks, copy, crash, open_two, park, publish

UNKNOWN = StreamId("axxxxxxxxxxxx")


class TestBegin:
    async def test_stream_can_be_found_by_the_id_of_any_of_its_events(self, autojump_clock):
        """From the first priming event on, and where it was begun only."""
        async with open_manager() as manager:
            session, other = await create(manager), await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER, b"1", b"1")
            primed = parse_cursor(stream.last_event_id.encode())
            publish(manager, stream, "1", "2")
            for cursor in (primed, *map(stream.cursor, copy(stream))):
                assert manager.streams.find(session, cursor) is stream
                assert manager.streams.find(other, cursor) is None
            assert list(manager.streams.of(session)) == list(manager.streams.all()) == [stream]
            assert list(manager.streams.of(other)) == []

    async def test_stream_is_not_found_where_it_does_not_go_on_from_there(self, autojump_clock):
        """Unknown, ahead of what there is, dropped, fenced or parked."""
        config = StreamConfig(limits=LogLimits(max_events=2))
        async with open_manager(streams=config) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.ANSWER)
            publish(manager, stream, "1", "2", "3")

            def find(position, stream_id=stream.key.stream_id):
                return manager.streams.find(session, Cursor(stream_id, position, None))

            assert [find(position) for position in range(5)] == [None, stream, stream, stream, None]
            assert find(1, UNKNOWN) is None
            park(manager, stream)
            assert find(3) is None

    async def test_stream_that_is_about_to_be_parked_is_not_found(self, autojump_clock):
        """A client that comes at that moment would wait for what nobody reads."""
        async with open_manager(streams=StreamConfig(linger=20)) as manager:
            session = await create(manager)
            stream = manager.streams.begin(session, StreamKind.LISTENING)
            publish(manager, stream, "1")
            await trio.sleep(20)
            cursor = stream.cursor_before(stream.log.end)
            assert manager.streams.find(session, cursor) is None
            again = await manager.streams.claim(session, cursor)
            assert again is not stream
            assert (again.resume, again.log.position) == (ResumePoint(0, "1"), 1)
            assert not again.presence.cancel_called

    async def test_streams_are_counted(self, autojump_clock):
        async with open_manager() as manager:
            session = await create(manager)
            first, _ = (manager.streams.begin(session, StreamKind.LISTENING) for _ in range(2))
            park(manager, first)
            await manager.streams.claim(session, Cursor(UNKNOWN, 1, ResumePoint(0, "1")))
            with pytest.raises(EventsLost):
                await manager.streams.claim(session, Cursor(StreamId("ayyyyyyyyyyyy"), 1, None))
            statistics = manager.streams.statistics()
            assert (statistics.open, statistics.kept, statistics.opened) == (2, 1, 2)
            assert (statistics.claimed, statistics.losses, statistics.duplicates) == (1, 1, 0)


class TestUnknown:
    """The store has never heard of the stream: its proxy died within a moment, or nothing is stored."""

    async def test_upstream_is_asked_from_where_the_client_is(self, autojump_clock):
        async with open_manager() as manager:
            session = await create(manager)
            stream = await manager.streams.claim(session, Cursor(UNKNOWN, 7, ResumePoint(0, "g")))
            assert (stream.resume, stream.log.position, stream.is_ended) == (ResumePoint(0, "g"), 7, False)
            publish(manager, stream, "h")
            assert [stream.cursor(entry).position for entry in copy(stream, after=7)] == [8]
            await trio.sleep(0.2)
            page = await manager.store.read_events(session.id, UNKNOWN, 0)
            assert ([event.position for event in page.events], page.record.last_position) == ([8], 8)

    @pytest.mark.parametrize("position", [0, 7])
    async def test_client_is_told_when_the_upstream_cannot_be_asked(self, autojump_clock, position):
        """Its cursor holds no id of the upstream."""
        async with open_manager() as manager:
            session = await create(manager)
            with pytest.raises(EventsLost):
                await manager.streams.claim(session, Cursor(UNKNOWN, position, None))
            assert list(manager.streams.of(session)) == []

    async def test_store_that_fails_is_no_loss(self, autojump_clock):
        """The client comes back."""

        class DownStore(InMemoryStore):
            async def claim_stream(self, session_id, stream_id, owner):
                raise StoreUnavailable("down")

        async with open_manager(DownStore()) as manager:
            session = await create(manager)
            with pytest.raises(StoreUnavailable):
                await manager.streams.claim(session, Cursor(UNKNOWN, 7, None))
            assert manager.streams.statistics().losses == 0


class TestTakingOver:
    """From a proxy that has died, through the store."""

    @pytest.mark.parametrize("seen", [0, 1, 3])
    async def test_client_gets_what_it_has_not_seen(self, autojump_clock, seen):
        """What is stored from the store, the rest from the upstream; numbered as before."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER, b'"r"', b'"s"')
            publish(dead, stream, "1", "2", "3")
            await crash(dead)
            cursor = Cursor(stream.key.stream_id, seen, None)
            taken = await alive.streams.claim(session, cursor)
            assert (taken.request_id, taken.sent_id, taken.kind) == (b'"r"', b'"s"', StreamKind.ANSWER)
            assert taken.resume == ResumePoint(0, "3")
            assert not taken.tracker.record("3") or seen == 3
            publish(alive, taken, "4")
            entries = copy(taken, taken.log.find(seen), after=seen)
            assert [taken.cursor(entry).position for entry in entries] == list(range(seen + 1, 5))
            assert alive.streams.find(session, cursor) is taken

    async def test_many_events_are_read_page_by_page(self, autojump_clock):
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, *map(str, range(250)))
            await crash(dead)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 7, None))
            assert len(blocks(taken.log.read(0, 1000))) == 243

    async def test_client_that_knows_more_than_the_store(self, autojump_clock):
        """The last moment of the dead one was not stored; the upstream is asked from where the client is."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, "1")
            await crash(dead)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 3, ResumePoint(0, "3")))
            assert (taken.resume, taken.log.position, taken.log.end) == (ResumePoint(0, "3"), 3, 0)

    async def test_client_that_knows_more_and_not_the_id(self, autojump_clock):
        """The upstream repeats from the id that is stored; what the client has seen is passed over."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, "1")
            await crash(dead)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 3, None))
            publish(alive, taken, "2", "3", "4")
            assert blocks(copy(taken, after=3)) == [b"data: 4"]

    @pytest.mark.parametrize("upstream_id", [None, "1"])
    async def test_client_that_knows_more_of_an_answer_is_told(self, autojump_clock, upstream_id):
        """Without any id of the upstream, or when by the store there was an end before."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, upstream_id)
            if upstream_id is not None:
                stream.end(dead.now())
            await crash(dead)
            with pytest.raises(EventsLost):
                await alive.streams.claim(session, Cursor(stream.key.stream_id, 3, None))

    async def test_listening_begins_anew_without_an_id(self, autojump_clock):
        """What is new is not taken for what the client has seen, now or later, nor has it an id that was given out."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.LISTENING)
            publish(dead, stream, None)
            await crash(dead)
            cursor = Cursor(stream.key.stream_id, 3, None)
            taken = await alive.streams.claim(session, cursor)
            publish(alive, taken, None, None)
            fence = taken.ownership.fence
            for first in (copy(taken, after=3), copy(taken, taken.log.find(3), after=3)):
                assert [(taken.cursor(entry).position, taken.cursor(entry).fence) for entry in first] == [
                    (4, fence),
                    (5, fence),
                ]
            assert alive.streams.find(session, cursor) is taken
            assert fence > cursor.fence

    @pytest.mark.parametrize("is_ended", [False, True])
    async def test_client_that_was_away_while_much_happened(self, autojump_clock, is_ended):
        """What it has not seen is dropped everywhere; the upstream is asked again, if it can be."""
        limits = StreamConfig(limits=LogLimits(max_events=2))
        async with open_two(streams=limits) as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, *"12345")
            if is_ended:
                stream.end(dead.now())
            await crash(dead)
            with pytest.raises(EventsLost):
                await alive.streams.claim(session, Cursor(stream.key.stream_id, 1, None))
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 1, ResumePoint(0, "1")))
            assert (taken.resume, taken.log.position, taken.is_ended) == (ResumePoint(0, "1"), 5, False)
            publish(alive, taken, "2")
            assert [taken.cursor(entry).position for entry in copy(taken, after=1)] == [6]

    async def test_ended_stream_is_replayed_to_its_end(self, autojump_clock):
        """... and kept here, since its client may be cut off again."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            publish(dead, stream, "1", "2")
            stream.end(dead.now())
            await crash(dead)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 1, None))
            reader = taken.attach(0)
            assert (blocks(reader.take()), reader.is_at_end) == ([b"data: 2"], True)
            assert alive.streams.statistics().kept == 1
            assert list(alive.streams.all()) == []

    async def test_live_owner_keeps_its_stream(self, autojump_clock):
        """Its events are to be had from the store."""
        async with open_two() as (one, other, session):
            stream = one.streams.begin(session, StreamKind.ANSWER)
            publish(one, stream, "1")
            await trio.sleep(100)
            assert await other.streams.claim(session, Cursor(stream.key.stream_id, 1, None)) is None
            publish(one, stream, "2")
            await trio.sleep(0.2)
            assert not stream.is_fenced
            assert len((await other.store.read_events(session.id, stream.key.stream_id, 0)).events) == 2

    async def test_new_owner_is_alive_at_once(self, autojump_clock):
        """Of two proxies that come for the same stream, the second waits for the first."""
        async with open_two() as (dead, alive, session):
            stream = dead.streams.begin(session, StreamKind.ANSWER)
            await crash(dead)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 0, None))
            record = await alive.store.claim_stream(session.id, stream.key.stream_id, new_owner_id())
            assert record.owner == taken.ownership.owner

    async def test_zombie_is_refused_and_told(self, autojump_clock):
        """It only seemed dead: its stream and its client here are given up."""
        async with open_two() as (zombie, alive, session):
            stream = zombie.streams.begin(session, StreamKind.ANSWER)
            reader = stream.attach(0)
            publish(zombie, stream, "1")
            await crash(zombie)
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 1, None))
            assert taken.ownership.fence > stream.ownership.fence
            publish(alive, taken, "2")
            publish(zombie, stream, "x", "y")
            await trio.sleep(0.2)
            assert (stream.is_fenced, stream.presence.cancel_called, reader.scope.cancel_called) == (True, True, True)
            page = await alive.store.read_events(session.id, stream.key.stream_id, 0)
            assert [event.upstream_id for event in page.events] == ["1", "2"]
            assert zombie.streams.find(session, stream.cursor_before(stream.log.end)) is None

    async def test_streams_of_one_that_stops_are_free_at_once(self, autojump_clock):
        """An orderly stop stores what there is and says so."""
        store = InMemoryStore()
        async with open_manager(store) as alive:
            session = await create(alive)
            async with open_manager(store) as stopped:
                stream = stopped.streams.begin(session, StreamKind.ANSWER)
                publish(stopped, stream, "1")
            began = trio.current_time()
            taken = await alive.streams.claim(session, Cursor(stream.key.stream_id, 0, None))
            assert blocks(copy(taken)) == [b"data: 1"]
            assert trio.current_time() == began
