"""A stream between whoever reads the upstream and the client that reads it."""

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.session import (
    EventStream,
    LogLimits,
    OwnerId,
    ResumePoint,
    SessionId,
    StreamId,
    StreamKey,
    StreamKind,
    new_owner_id,
)
from shadowcat.session.stream import Ownership


def stream_of(*, kind=StreamKind.ANSWER, linger=60.0, limits=None, **options):
    key = StreamKey(SessionId("s"), StreamId("axxxxxxxxxxxx"))
    return EventStream(key, kind, limits or LogLimits(), Ownership(owner=OwnerId("o")), linger=linger, **options)


def publish(stream, *blocks, upstream_id=None, **parts):
    for block in blocks:
        stream.publish(block, upstream_id, 0.0, **parts)


def blocks(entries):
    return [entry.event.block for entry in entries]


async def read_all(reader, got):
    """Copy until nothing more will come."""
    with reader.scope:
        while not reader.is_at_end:
            got.extend(reader.take())
            await reader.wait()


async def is_over(nursery, wait):
    """Whether *wait* returns by itself, without time passing."""
    with trio.CancelScope() as scope:

        async def give_up():
            await wait_all_tasks_blocked()
            scope.cancel()

        nursery.start_soon(give_up)
        await wait()
    return not scope.cancelled_caught


class TestReading:
    async def test_client_gets_everything_in_order(self, autojump_clock):
        """What was there before it came, and what comes; each once."""
        stream, got = stream_of(), []
        publish(stream, b"1", b"2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, stream.attach(0), got)
            for number in range(3, 200):
                publish(stream, b"%d" % number)
                if number % 7 == 0:
                    await trio.sleep(1)
            stream.end(0.0)
        assert blocks(got) == [b"%d" % number for number in range(1, 200)]
        assert [entry.event.position for entry in got] == list(range(1, 200))

    async def test_burst_is_given_in_pieces(self, autojump_clock):
        stream = stream_of()
        publish(stream, *[b"x"] * 150)
        reader = stream.attach(0)
        assert [len(reader.take()) for _ in range(4)] == [64, 64, 22, 0]
        assert reader.unread == 0

    async def test_parts_of_an_event_have_one_position(self, autojump_clock):
        stream = stream_of()
        publish(stream, b"a", ends=False)
        publish(stream, b"b", begins=False, ends=False)
        publish(stream, b"c", begins=False)
        publish(stream, b"d")
        assert [entry.event.position for entry in stream.attach(0).take()] == [1, 1, 1, 2]

    async def test_waiting_is_over_when_something_comes_or_nothing_will(self, autojump_clock, nursery):
        """... and not before."""
        stream = stream_of()
        reader = stream.attach(0)
        assert not await is_over(nursery, reader.wait)
        publish(stream, b"x")
        assert await is_over(nursery, reader.wait)
        reader.take()
        assert not await is_over(nursery, reader.wait)
        stream.end(0.0)
        assert await is_over(nursery, reader.wait)
        assert reader.is_at_end

    async def test_end_comes_after_what_was_left(self, autojump_clock):
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, b"x")
        stream.end(0.0)
        assert not reader.is_at_end
        assert blocks(reader.take()) == [b"x"]
        assert reader.is_at_end

    async def test_waiting_is_a_checkpoint_even_if_there_is_something(self, autojump_clock):
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, b"x")
        with trio.testing.assert_checkpoints():
            await reader.wait()

    async def test_cancelled_wait_loses_nothing(self, autojump_clock):
        """A heartbeat interrupts it time and again."""
        stream, got = stream_of(), []
        reader = stream.attach(0)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read():
                while not reader.is_at_end:
                    got.extend(blocks(reader.take()))
                    with trio.move_on_after(0.3):
                        await reader.wait()

            for number in range(20):
                await trio.sleep(0.1 * number)
                publish(stream, b"%d" % number)
            stream.end(0.0)
        assert got == [b"%d" % number for number in range(20)]

    async def test_id_of_an_event_is_where_the_upstream_goes_on(self, autojump_clock):
        """In the upstream session that gave it."""
        stream = stream_of()
        assert stream.cursor_before(stream.log.end).position == 0
        publish(stream, b"a", upstream_id="7")
        stream.begin_epoch(1)
        publish(stream, b"b", upstream_id="1")
        publish(stream, b"c")
        cursors = [stream.cursor(entry) for entry in stream.attach(0).take()]
        assert [(cursor.position, cursor.resume) for cursor in cursors] == [
            (1, ResumePoint(0, "7")),
            (2, ResumePoint(1, "1")),
            (3, None),
        ]
        assert stream.cursor_before(stream.log.end).resume == ResumePoint(1, "1")

    async def test_id_of_the_answer_says_that_nothing_follows(self, autojump_clock):
        """A client that comes back with it needs no stream, even where that is no longer known."""
        stream = stream_of()
        publish(stream, b"progress")
        stream.last_position = stream.log.position + 1
        publish(stream, b"answer", b"log message")
        cursors = [stream.cursor(entry) for entry in stream.attach(0).take()]
        assert [cursor.is_last for cursor in cursors] == [False, True, False]

    async def test_place_before_an_entry_has_an_id(self, autojump_clock):
        """That of the event before; at the end, it is where the upstream goes on."""
        stream = stream_of()
        publish(stream, b"1", b"2", upstream_id="7")
        publish(stream, b"3", upstream_id="8", ends=False)
        publish(stream, b"3", begins=False)
        places = [stream.cursor_before(number) for number in range(5)]
        assert [place.position for place in places] == [0, 1, 2, 2, 3]
        assert [place.resume for place in places] == [None] * 4 + [ResumePoint(0, "8")]
        assert places[4].encode().decode() == stream.last_event_id

    async def test_each_owner_has_ids_of_its_own(self, autojump_clock):
        """One may have handed out more than the next has heard of."""
        ids = set()
        for fence in (1, 2, 3):
            stream = stream_of(position=3)
            stream.ownership = Ownership(owner=new_owner_id(), fence=fence)
            publish(stream, b"4")
            (entry,) = stream.attach(0).take()
            ids |= {stream.cursor(entry).encode(), stream.cursor_before(0).encode()}
        assert len(ids) == 6

    async def test_id_without_data_is_news_and_no_event(self, autojump_clock, nursery):
        stream = stream_of()
        reader = stream.attach(0)
        nursery.start_soon(reader.wait)
        await wait_all_tasks_blocked()
        stream.note_upstream_id("9")
        assert (stream.resume, reader.take(), stream.log.position) == (ResumePoint(0, "9"), [], 0)

    async def test_new_epoch_knows_no_ids(self, autojump_clock):
        stream = stream_of()
        publish(stream, b"a", upstream_id="1")
        stream.tracker.record("1")
        stream.begin_epoch(3)
        assert (stream.resume, stream.tracker.record("1")) == (None, True)


class TestSlowReader:
    """What a client that is there has yet to read is not dropped, whatever the limits of what is kept."""

    async def test_burst_beyond_what_is_kept(self, autojump_clock):
        """One read from the upstream may hold more small events than are kept."""
        stream = stream_of(limits=LogLimits(max_events=10))
        reader = stream.attach(0)
        publish(stream, *(b"%d" % number for number in range(100)))
        assert blocks([*reader.take(), *reader.take()]) == [b"%d" % number for number in range(100)]
        assert (reader.take(), reader.unread) == ([], 0)
        publish(stream, b"x")
        assert (blocks(reader.take()), len(stream.log.read(0, 1000))) == ([b"x"], 10)

    async def test_client_that_is_held_up_for_long(self, autojump_clock):
        """Age is for those that are away."""
        stream = stream_of(limits=LogLimits(max_age=60))
        publish(stream, b"1", b"2", b"3")
        reader = stream.attach(1)
        stream.log.trim(1000)
        assert blocks(reader.take()) == [b"2", b"3"]
        stream.log.trim(1000)
        assert blocks(stream.log.read(0, 10)) == [b"3"]

    async def test_what_it_leaves_behind_is_within_the_limits(self, autojump_clock):
        stream = stream_of(limits=LogLimits(max_bytes=10))
        reader = stream.attach(0)
        publish(stream, *[b"x"] * 50)
        assert stream.log.size == 50
        stream.detach(reader)
        publish(stream, b"x")
        assert stream.log.size == 10

    async def test_one_that_comes_late_begins_with_what_is_left(self, autojump_clock):
        stream = stream_of(limits=LogLimits(max_events=2))
        publish(stream, b"1", b"2", b"3", b"4")
        reader = stream.attach(0)
        publish(stream, b"5")
        assert reader.unread == 3
        assert blocks(reader.take()) == [b"3", b"4", b"5"]
        assert reader.unread == 0


class TestReplacing:
    async def test_newer_client_sends_the_older_away(self, autojump_clock):
        """Which is noticed by its scope; what it does at the end does the newer no harm."""
        stream, got = stream_of(), []
        publish(stream, b"1")
        old = stream.attach(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, old, got)
            await wait_all_tasks_blocked()
            new = stream.attach(0)
            await wait_all_tasks_blocked()
            assert old.scope.cancelled_caught
            stream.detach(old)
            assert stream.is_attended
            publish(stream, b"2")
        assert (blocks(got), blocks(new.take())) == ([b"1"], [b"1", b"2"])

    async def test_newer_client_passes_over_what_it_has_seen(self, autojump_clock):
        """It came back with a position that is yet to be repeated by the upstream."""
        stream = stream_of(position=3, resume=ResumePoint(0, "3"))
        reader = stream.attach(0, after=5)
        publish(stream, b"4", b"5", b"6")
        assert blocks(reader.take()) == [b"6"]
        assert reader.unread == 0

    async def test_what_is_not_repeated_is_not_passed_over(self, autojump_clock):
        """An upstream that was given no id to go on from, or has lost its session, begins with what is new."""
        stream = stream_of(kind=StreamKind.LISTENING, position=3)
        reader = stream.attach(0, after=5)
        publish(stream, b"new")
        assert blocks(reader.take()) == [b"new"]

        stream = stream_of(kind=StreamKind.LISTENING, position=3, resume=ResumePoint(0, "3"))
        reader = stream.attach(0, after=5)
        stream.begin_epoch(1)
        publish(stream, b"new")
        assert blocks(reader.take()) == [b"new"]

    async def test_what_a_new_epoch_brings_is_not_counted_like_what_the_client_has_seen(self, autojump_clock):
        """Or the client, cut off before it had any of that, would come back for what is behind it."""
        stream = stream_of(kind=StreamKind.LISTENING, position=3, resume=ResumePoint(0, "3"))
        reader = stream.attach(0, after=5)
        publish(stream, b"again", upstream_id="4")
        stream.detach(reader)
        stream.begin_epoch(1)
        publish(stream, b"6", b"7")
        assert [stream.log.find(position) for position in (4, 5, 6)] == [None, 1, 2]
        assert blocks(stream.attach(1, after=5).take()) == [b"6", b"7"]

    async def test_error_that_ends_a_stream_is_not_passed_over(self, autojump_clock):
        """The upstream could not repeat what the client had seen; the client is told what became of its request."""
        stream = stream_of(position=3, resume=ResumePoint(0, "3"))
        reader = stream.attach(0, after=5)
        stream.publish(b"error", None, 0.0, is_last=True)
        stream.end(0.0)
        assert blocks(reader.take()) == [b"error"]

    async def test_delivered_counts_what_was_written(self, autojump_clock):
        """What was taken last may have been lost on the way."""
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, *[b"x"] * 70)
        reader.take()
        assert stream.delivered == 0
        reader.take()
        assert stream.delivered == 64
        stream.detach(reader)
        stream.attach(0).take()
        assert stream.delivered == 64


class TestBackPressure:
    @pytest.mark.parametrize("burst", [[b"x" * 100_000] * 3, [b"x"] * 257])
    async def test_upstream_waits_for_a_client_that_is_far_behind(self, autojump_clock, nursery, burst):
        """In bytes or in events."""
        stream = stream_of()
        reader = stream.attach(0)
        assert await is_over(nursery, stream.wait_room)
        publish(stream, *burst)
        nursery.start_soon(stream.wait_room)
        assert not await is_over(nursery, stream.wait_room)
        reader.take()
        assert await is_over(nursery, stream.wait_room)

    async def test_upstream_does_not_wait_for_nobody(self, autojump_clock, nursery):
        """What nobody reads is dropped at the limits."""
        stream = stream_of()
        publish(stream, *[b"x" * 10_000] * 300)
        assert await is_over(nursery, stream.wait_room)

    @pytest.mark.parametrize("leave", ["detach", "attach"])
    async def test_wait_is_over_when_the_client_leaves(self, autojump_clock, leave):
        """By itself, or because one comes that is further on."""
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, *[b"x"] * 300)
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.wait_room)
                await wait_all_tasks_blocked()
                if leave == "detach":
                    stream.detach(reader)
                else:
                    stream.attach(300)

    async def test_client_that_comes_far_behind_is_waited_for(self, autojump_clock, nursery):
        stream = stream_of()
        publish(stream, *[b"x" * 100_000] * 5)
        reader = stream.attach(0)
        assert reader.unread == 500_000
        assert not await is_over(nursery, stream.wait_room)

    async def test_cancelled_wait_can_be_made_again(self, autojump_clock):
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, *[b"x"] * 300)
        with trio.move_on_after(1) as scope:
            await stream.wait_room()
        assert scope.cancelled_caught
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.wait_room)
                await wait_all_tasks_blocked()
                reader.take()


class TestLinger:
    async def wait_presence(self, stream):
        with stream.presence:
            await trio.sleep(1000)
        return trio.current_time()

    async def test_upstream_is_read_for_a_while_without_a_client(self, autojump_clock):
        """Counted from when the client left, not from the last event."""
        stream, ended = stream_of(linger=60), []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def pump():
                ended.append(await self.wait_presence(stream))

            for back, gone in [(50, 200), (259, 300), (301, 311)]:
                await trio.sleep(back - trio.current_time())
                reader = stream.attach(0)
                await trio.sleep(gone - trio.current_time())
                publish(stream, b"x")
                stream.detach(reader)
                await trio.sleep(0.5)
                publish(stream, b"x")
        assert ended == [371]

    async def test_client_that_was_replaced_leaves_no_deadline(self, autojump_clock):
        stream = stream_of()
        old, new = stream.attach(0), stream.attach(0)
        stream.detach(old)
        assert stream.presence.deadline == math.inf
        stream.detach(new)
        assert stream.presence.deadline == 60

    @pytest.mark.parametrize("linger", [0, 0.001])
    async def test_new_stream_waits_for_its_client_to_arrive(self, autojump_clock, linger):
        """However short a time it is read for one that has left."""
        stream = stream_of(linger=linger)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.wait_presence, stream)
            await trio.sleep(1)
            reader = stream.attach(0)
            assert not stream.presence.cancel_called
            await trio.sleep(100)
            stream.detach(reader)
        assert trio.current_time() == 101 + linger
