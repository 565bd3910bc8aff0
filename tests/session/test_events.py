"""Event ids, and the newest events of a stream."""

import base64

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowcat.errors import InvalidRequest
from shadowcat.session import (
    Cursor,
    EventTracker,
    LogEntry,
    LogLimits,
    ResumePoint,
    StreamEvent,
    StreamId,
    StreamKind,
    parse_cursor,
    read_upstream_id,
)
from shadowcat.session.events import EventLog, new_stream_id

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

SENDABLE = st.text(max_size=300).map(lambda text: read_upstream_id(text.encode(errors="replace"))).filter(bool)
RESUME = st.none() | st.builds(ResumePoint, st.integers(0, 10**9 - 1), SENDABLE)
STREAM_IDS = st.sampled_from(StreamKind).map(new_stream_id)
CURSORS = st.builds(Cursor, STREAM_IDS, st.integers(0, 10**12), RESUME, st.booleans(), st.integers(1, 10**9 - 1))


class TestCursor:
    @given(CURSORS)
    def test_round_trip(self, cursor):
        """What a client gives back names the same place, unless the upstream's id is too long to be held."""
        is_short = cursor.resume is None or len(cursor.resume.upstream_id.encode()) <= 512
        read = parse_cursor(cursor.encode())
        assert read == (cursor if is_short else attrs.evolve(cursor, resume=None))
        assert read.kind is cursor.kind

    @given(CURSORS)
    def test_id_can_be_sent_in_a_header(self, cursor):
        """Visible ASCII, whatever the upstream's ids look like, and not longer than a header may be."""
        encoded = cursor.encode()
        assert all(0x21 <= byte <= 0x7E for byte in encoded)
        assert len(encoded) < 1024

    @given(SENDABLE, st.integers(0, 10**9 - 1))
    def test_resume_point_round_trip(self, upstream_id, epoch):
        """What the store keeps, colons and all."""
        assert ResumePoint.decode(ResumePoint(epoch, upstream_id).encode()) == ResumePoint(epoch, upstream_id)

    @pytest.mark.parametrize("text", [None, "", "7", ":x", "a:x", "-1:x", "1.5:x", "\u00b2:x"])
    def test_what_is_no_resume_point_is_none(self, text):
        assert ResumePoint.decode(text) is None

    @given(st.binary(max_size=60) | st.from_regex(rb"[al][A-Za-z0-9_-]{12}\.[0-9.]*[A-Za-z0-9_=-]*", fullmatch=True))
    def test_garbage_is_refused_or_read_and_nothing_else(self, value):
        """A client may send anything as Last-Event-ID."""
        try:
            cursor = parse_cursor(value)
        except InvalidRequest:
            return
        assert parse_cursor(cursor.encode()) == cursor

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"7",
            b"a" + b"x" * 12,
            b"b" + b"x" * 12 + b".1",
            b"a" + b"x" * 11 + b".1",
            b"a" + b"x" * 12 + b".-1",
            b"a" + b"x" * 12 + b".1 ",
            b"a" + b"x" * 12 + b".1\n",
            b"a" + b"x" * 12 + b".1-",
            b"a" + b"x" * 12 + b".1-0",
            b"a" + b"x" * 12 + b".1e-2",
            b"a" + b"x" * 12 + b".1ee",
            b"a" + b"x" * 12 + b".e",
            b" a" + b"x" * 12 + b".1",
            b"a" + b"x" * 12 + b".1.2",
            b"a" + b"x" * 12 + b".1.2.A",
            b"a" + b"x" * 12 + b".1.2.AA==",
            b"a" + b"x" * 12 + b".1.2." + base64.urlsafe_b64encode(b"\xff\xfe\xfd"),
            b"a" + b"x" * 12 + b"." + b"1" * 16,
            "a\u0663xxxxxxxxxxxx.1".encode(),
        ],
    )
    def test_what_is_not_ours_is_refused(self, value):
        with pytest.raises(InvalidRequest, match="Last-Event-ID"):
            parse_cursor(value)

    @pytest.mark.parametrize("smuggled", [b"a\r\nx: y", b"a\0", b" a", b"a ", b"\n", b""])
    def test_what_is_no_header_never_goes_upstream(self, smuggled):
        """A cursor comes from the client; what is in it may be forged."""
        encoded = base64.urlsafe_b64encode(smuggled).rstrip(b"=")
        assert parse_cursor(b"axxxxxxxxxxxx.1.0." + encoded).resume is None

    def test_id_is_as_short_as_can_be(self):
        """Most streams never change their owner."""
        assert Cursor(StreamId("axxxxxxxxxxxx"), 1, None).encode() == b"axxxxxxxxxxxx.1"
        assert Cursor(StreamId("axxxxxxxxxxxx"), 1, None, fence=2).encode() == b"axxxxxxxxxxxx.1-2"

    @pytest.mark.parametrize("kind", StreamKind)
    def test_new_ids_tell_their_kind_and_differ(self, kind):
        ids = {new_stream_id(kind) for _ in range(1000)}
        assert len(ids) == 1000
        assert {Cursor(stream_id, 0, None).kind for stream_id in ids} == {kind}


class TestUpstreamId:
    @pytest.mark.parametrize("value", [b"7", b"a b", b"a:b/c==", b"~!", "\u00e9\U0001f600".encode(), b"x" * 2048])
    def test_what_can_be_sent_back_is_kept(self, value):
        """Spaces within and letters of any script."""
        assert read_upstream_id(value) == value.decode()

    @pytest.mark.parametrize(
        "value", [None, b"", b" ", b" a", b"a ", b"a\tb", b"a\0", b"\x7f", b"\xff", b"a\nb", b"\r", b"x" * 2049]
    )
    def test_what_cannot_be_sent_back_is_none(self, value):
        assert read_upstream_id(value) is None


class TestTracker:
    def test_each_id_is_new_once(self):
        tracker = EventTracker()
        assert [tracker.record(name) for name in "abab"] == [True, True, False, False]
        assert (tracker.duplicates, tracker.last_event_id) == (2, "b")

    def test_window_forgets_the_oldest(self):
        """Those within it are duplicates whenever they come."""
        tracker = EventTracker(window=3)
        assert all(tracker.record(name) for name in "abcd")
        assert [tracker.record(name) for name in "bcd"] == [False] * 3
        assert tracker.record("a")

    def test_reset_forgets_all(self):
        """An upstream session that begins anew counts from one again."""
        tracker = EventTracker()
        tracker.record("1")
        tracker.reset()
        assert tracker.last_event_id is None
        assert tracker.record("1")
        assert tracker.duplicates == 0

    def test_streams_do_not_share_ids(self):
        """MCP: ids are unique within a session for one upstream; others count each stream on its own."""
        one, other = EventTracker(), EventTracker()
        assert one.record("1")
        assert other.record("1")


def event(position, block=b"x", at=0.0):
    return StreamEvent(position, str(position), block, at)


def log_of(*entries, position=0, **limits):
    log = EventLog(LogLimits(**limits), position)
    for entry in entries:
        log.append(entry)
    return log


def whole(*positions, block=b"x"):
    return [LogEntry(event(position, block)) for position in positions]


def positions(log, after=-1):
    return [entry.position for entry in log.events_after(after)]


class TestLimits:
    def test_oldest_goes_when_there_are_too_many(self):
        log = log_of(*whole(1, 2, 3, 4, 5), max_events=3)
        assert positions(log) == [3, 4, 5]
        assert (log.first, log.end, log.floor, log.position, log.size) == (2, 5, 2, 5, 3)

    def test_oldest_goes_when_they_are_too_long(self):
        log = log_of(*whole(1, 2, 3, block=b"xxxx"), max_bytes=9)
        assert positions(log) == [2, 3]
        assert (log.size, log.floor) == (8, 1)

    def test_newest_is_kept_however_long_it_is(self):
        log = log_of(*whole(1, 2), *whole(3, block=b"x" * 100), max_bytes=10)
        assert positions(log) == [3]
        assert (log.size, log.floor) == (100, 2)
        log.append(LogEntry(event(4)))
        assert (positions(log), log.size) == ([4], 1)

    def test_old_ones_go_when_a_newer_comes_and_when_asked_to(self):
        log = log_of(*(LogEntry(event(number, at=number * 10.0)) for number in range(1, 6)), max_age=25)
        assert positions(log) == [3, 4, 5]
        log.trim(66)
        assert positions(log) == [5]
        log.trim(1e9)
        assert (positions(log), log.floor) == ([5], 4)

    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.booleans()), max_size=40),
        st.integers(1, 8),
        st.integers(1, 20),
    )
    def test_what_is_kept_is_counted(self, script, max_events, max_bytes):
        """Size, numbers and floor agree with the entries, and the limits hold but for the newest."""
        log, position, now = EventLog(LogLimits(max_events=max_events, max_bytes=max_bytes, max_age=9)), 0, 0.0
        for sent, (size, seconds, begins) in enumerate(script, 1):
            now += seconds
            position += begins or position == 0
            log.append(LogEntry(event(position, b"x" * size, now), begins=begins))
            kept = log.read(log.first, 1000)
            assert log.size == sum(len(entry.event.block) for entry in kept) < log.footprint
            assert log.end == log.first + len(kept) == sent
            assert len(kept) == 1 or (len(kept) <= max_events and log.size <= max_bytes)
            assert all(entry.event.recorded_at >= now - 9 for entry in kept)
            assert log.position == position
            assert log.find(log.floor) is not None
            assert log.floor == 0 or log.find(log.floor - 1) is None


class TestReading:
    def test_read_gives_what_is_there(self):
        """From a number on; from the oldest if that is gone."""
        log = log_of(*whole(1, 2, 3, 4), max_events=3)
        assert [[entry.event.position for entry in log.read(*asked)] for asked in [(1, 2), (0, 9), (3, 9), (4, 9)]] == [
            [2, 3],
            [2, 3, 4],
            [4],
            [],
        ]

    def test_find_gives_the_number_of_the_first_beyond(self):
        log = log_of(*whole(1, 2, 3, 4), max_events=3)
        assert [log.find(position) for position in range(6)] == [None, 1, 2, 3, 4, 4]

    def test_log_that_begins_later_reaches_back_to_there(self):
        """A stream that was taken over at a position."""
        log = log_of(position=7)
        assert [log.find(position) for position in (6, 7, 8)] == [None, 0, 0]
        log.append(LogEntry(event(8)))
        assert [log.find(position) for position in (6, 7, 8)] == [None, 0, 1]

    def test_positions_that_are_passed_over_count_as_gone(self):
        """Even while older entries are kept, and when those go."""
        log = log_of(*whole(1, 2, 3), max_events=3)
        log.pass_over(2)
        assert [log.find(position) for position in (2, 3)] == [2, 3]
        log.pass_over(7)
        log.append(LogEntry(event(8)))
        assert (positions(log), log.floor) == ([2, 3, 8], 7)
        assert [log.find(position) for position in (3, 6, 7, 8)] == [None, None, 3, 4]

    def test_parts_are_found_together(self):
        """A client that has seen some parts of an event gets all of them again."""
        log = log_of(*whole(1), LogEntry(event(2), ends=False), LogEntry(event(2), begins=False, ends=False), *whole(3))
        assert [log.find(position) for position in (0, 1, 2, 3)] == [0, 1, 3, 4]
        assert positions(log) == [1, 3]

    def test_event_that_is_not_whole_any_more_is_gone(self):
        """When its first part is dropped, nobody can have it replayed."""
        parts = [LogEntry(event(2), ends=False), LogEntry(event(2), begins=False)]
        log = log_of(*whole(1), *parts, *whole(3), max_events=2)
        assert log.floor == 2
        assert [log.find(position) for position in (1, 2, 3)] == [None, 3, 4]

    def test_only_whole_events_are_stored(self):
        log = log_of(*whole(1, 2), LogEntry(event(3), ends=False), LogEntry(event(3), begins=False), *whole(4))
        assert positions(log) == [1, 2, 4]
        assert positions(log, after=2) == [4]
        assert positions(log, after=4) == []

    def test_stream_id_is_taken_as_it_is(self):
        assert parse_cursor(b"a____________.0").stream_id == StreamId("a____________")
