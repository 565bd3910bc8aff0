"""What the store is told of a stream."""

import attrs
import pytest

from shadowcat.session import LogLimits, OwnerId, ResumePoint, StreamKind
from shadowcat.session import stream as module
from shadowcat.session.stream import Ownership

from .test_event_stream import publish, stream_of


@pytest.fixture
def small(monkeypatch):
    """Pieces of ten bytes."""
    monkeypatch.setattr(module, "MAX_APPEND", 10)


def store_all(stream):
    """Return the appends that it takes until the store has everything."""
    appends = []
    while (append := stream.take_append(1.0)) is not None:
        appends.append(append)
        stream.note_stored(append)
        assert len(appends) < 100
    return appends


def positions(append):
    return [event.position for event in append.events]


class TestAppends:
    async def test_each_event_is_stored_once(self, autojump_clock):
        """With where the upstream goes on, and what it is the answer to."""
        stream = stream_of(request_id=b"1", sent_id=b'"x"')
        publish(stream, b"a", b"b", upstream_id="7")
        (append,) = store_all(stream)
        assert (append.key, append.owner, append.fence, append.kind) == (stream.key, "o", 1, StreamKind.ANSWER)
        assert (append.request_id, append.sent_id, append.appended_at) == (b"1", b'"x"', 1.0)
        assert (positions(append), append.last_position, append.resume_id) == ([1, 2], 2, "0:7")
        assert (append.is_ended, append.is_released) == (False, False)
        publish(stream, b"c")
        (append,) = store_all(stream)
        assert (positions(append), append.last_position, append.resume_id) == ([3], 3, "0:7")

    async def test_nothing_new_is_not_stored_again(self, autojump_clock):
        stream = stream_of()
        assert len(store_all(stream)) == 1
        publish(stream, b"a")
        assert len(store_all(stream)) == 1
        assert stream.take_append(2.0) is None

    async def test_events_are_stored_with_their_client_away_or_not(self, autojump_clock):
        """What it has read is not what the store has."""
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, b"a", b"b")
        reader.take()
        reader.take()
        assert [positions(append) for append in store_all(stream)] == [[1, 2]]

    async def test_what_the_store_did_not_take_is_taken_again(self, autojump_clock):
        stream = stream_of()
        publish(stream, b"a")
        assert positions(stream.take_append(1.0)) == [1]
        publish(stream, b"b")
        assert positions(stream.take_append(2.0)) == [1, 2]

    async def test_what_came_while_it_was_stored_is_next(self, autojump_clock):
        stream = stream_of()
        publish(stream, b"a")
        append = stream.take_append(1.0)
        publish(stream, b"b")
        stream.note_stored(append)
        assert positions(stream.take_append(1.0)) == [2]

    async def test_part_of_an_event_is_no_event(self, autojump_clock):
        """It counts, so that whoever takes over knows that something is missing."""
        stream = stream_of()
        publish(stream, b"a", ends=False)
        (append,) = store_all(stream)
        assert (positions(append), append.last_position) == ([], 1)
        publish(stream, b"b", begins=False)
        publish(stream, b"c")
        (append,) = store_all(stream)
        assert (positions(append), append.last_position) == ([2], 2)

    async def test_end_and_parking_and_ids_are_stored_without_events(self, autojump_clock):
        stream = stream_of()
        store_all(stream)
        stream.note_upstream_id("9")
        assert [append.resume_id for append in store_all(stream)] == ["0:9"]
        stream.park(5.0)
        assert [append.is_released for append in store_all(stream)] == [True]
        stream = stream_of()
        store_all(stream)
        stream.end(5.0)
        assert [append.is_ended for append in store_all(stream)] == [True]

    async def test_stream_that_is_answered_is_at_its_end(self, autojump_clock):
        """Though the upstream keeps it open: whoever takes over has nothing to wait for."""
        stream = stream_of()
        publish(stream, b"progress")
        store_all(stream)
        stream.last_position = stream.log.position + 1
        publish(stream, b"answer")
        assert [append.is_ended for append in store_all(stream)] == [True]
        stream.end(1.0)
        assert store_all(stream) == []

    async def test_gap_of_what_was_dropped_before_is_no_failure(self, autojump_clock):
        """A store that was down for long."""
        stream = stream_of(limits=LogLimits(max_events=2))
        publish(stream, b"a", b"b", b"c", b"d")
        (append,) = store_all(stream)
        assert (positions(append), append.last_position) == ([3, 4], 4)


class TestPieces:
    async def test_much_is_stored_in_pieces(self, autojump_clock, small):
        """None longer than the limit, unless one event is; the end comes with the last."""
        stream = stream_of()
        publish(stream, b"xxxx", b"xxxx", b"xxxx", b"x" * 30, b"x", b"x" * 9, b"x")
        stream.end(0.0)
        appends = store_all(stream)
        assert [positions(append) for append in appends] == [[1, 2], [3], [4], [5, 6], [7]]
        assert [append.last_position for append in appends] == [2, 3, 4, 6, 7]
        assert [append.is_ended for append in appends] == [False] * 4 + [True]

    async def test_piece_says_where_the_upstream_goes_on_after_it(self, autojump_clock, small):
        """Were it the newest id, whoever takes over after the piece would never see the rest."""
        stream = stream_of()
        for number in range(1, 5):
            publish(stream, b"xxxxxx", upstream_id=str(number))
        publish(stream, b"xxxxxx")
        publish(stream, b"xxxxxx", upstream_id="6")
        assert [append.resume_id for append in store_all(stream)] == ["0:1", "0:2", "0:3", "0:4", "0:4", "0:6"]

    async def test_piece_without_an_id_goes_on_where_the_last_did(self, autojump_clock, small):
        stream = stream_of(resume=ResumePoint(0, "before"))
        publish(stream, b"xxxxxx", b"xxxxxx")
        publish(stream, b"xxxxxx", upstream_id="3")
        assert [append.resume_id for append in store_all(stream)] == ["0:before", "0:before", "0:3"]

    async def test_piece_of_an_upstream_session_before(self, autojump_clock, small):
        stream = stream_of()
        publish(stream, b"xxxxxx", upstream_id="1")
        stream.begin_epoch(1)
        publish(stream, b"xxxxxx", upstream_id="1")
        publish(stream, b"xxxxxx", upstream_id="2")
        assert [append.resume_id for append in store_all(stream)] == ["0:1", "1:1", "1:2"]

    async def test_rest_is_marked(self, autojump_clock, small):
        marks = []
        stream = stream_of(mark=marks.append)
        publish(stream, b"xxxxxx", b"xxxxxx")
        stream.note_stored(stream.take_append(1.0))
        assert len(marks) == 2
        stream.note_stored(stream.take_append(1.0))
        assert len(marks) == 2


class TestWorthAWrite:
    async def test_answer_that_was_delivered_at_once_is_not_stored(self, autojump_clock):
        """Most are: whoever lost it on the way is served from memory."""
        stream = stream_of()
        publish(stream, b"a")
        stream.end(0.0)
        stream.is_delivered = True
        assert stream.take_append(1.0) is None

    @pytest.mark.parametrize(("is_ended", "is_delivered"), [(False, False), (False, True), (True, False)])
    async def test_anything_else_is(self, autojump_clock, is_ended, is_delivered):
        stream = stream_of()
        publish(stream, b"a")
        if is_ended:
            stream.end(0.0)
        stream.is_delivered = is_delivered
        assert positions(stream.take_append(1.0)) == [1]

    async def test_end_of_what_the_store_knows_is_stored(self, autojump_clock):
        """Whether this process has told it or the one before."""
        stream = stream_of()
        store_all(stream)
        taken_over = stream_of()
        taken_over.ownership = Ownership(owner=OwnerId("o"), fence=2)
        for known in (stream, taken_over):
            publish(known, b"a")
            known.end(0.0)
            known.is_delivered = True
            assert [append.is_ended for append in store_all(known)] == [True]


class TestMarks:
    async def test_mark_is_made_once_until_it_is_taken(self, autojump_clock):
        """However much comes meanwhile."""
        marks = []
        stream = stream_of(mark=marks.append)
        publish(stream, *[b"a"] * 50)
        assert marks == [stream]
        append = stream.take_append(1.0)
        stream.note_stored(append)
        assert marks == [stream]
        publish(stream, *[b"a"] * 50)
        assert marks == [stream] * 2

    async def test_what_comes_after_it_was_taken_is_marked(self, autojump_clock):
        """... also if the store takes its time, or does not take it."""
        marks = []
        stream = stream_of(mark=marks.append)
        for change in (lambda: stream.note_upstream_id("1"), lambda: stream.end(1.0), lambda: stream.park(1.0)):
            stream.take_append(1.0)
            change()
            assert marks.pop() is stream
        assert marks == [stream]


class TestRefusal:
    async def test_refused_stream_is_given_up(self, autojump_clock):
        """Its client goes elsewhere, its upstream is not read, and nothing of it is stored."""
        stream = stream_of()
        reader = stream.attach(0)
        publish(stream, b"a")
        stream.note_refused()
        assert (stream.is_fenced, stream.presence.cancel_called, reader.scope.cancel_called) == (True, True, True)
        assert stream.take_append(1.0) is None

    async def test_refused_stream_need_not_have_a_client(self, autojump_clock):
        stream = stream_of()
        stream.note_refused()
        assert (stream.is_fenced, stream.presence.cancel_called) == (True, True)

    async def test_stored_append_says_nothing_of_its_events(self, autojump_clock):
        """They are in the log, or not kept at all."""
        stream = stream_of()
        publish(stream, b"a")
        append = stream.take_append(1.0)
        stream.note_stored(append)
        stream.note_stored(attrs.evolve(append))
        assert stream.take_append(2.0) is None
