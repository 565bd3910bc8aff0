"""The event stream codec, as the WHATWG rules have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.protocol import HEARTBEAT, SSEBoundary, SSEDecoder, SSEEvent, encode_event


def events_of(*data):
    return [SSEEvent(text) for text in data]


CASES = [
    pytest.param(b"data: a\n\n", [SSEEvent(b"a")], id="lf"),
    pytest.param(b"data: a\r\n\r\n", [SSEEvent(b"a")], id="crlf"),
    pytest.param(b"data: a\r\r", [SSEEvent(b"a")], id="cr"),
    pytest.param(b"data: a\r\n\ndata: b\n\r\n\rdata: c\r\r\n", events_of(b"a", b"b", b"c"), id="mixed"),
    pytest.param(b"data: a\ndata: b\ndata:\n\n", [SSEEvent(b"a\nb\n")], id="several-data-lines"),
    pytest.param(b"data:a\n\ndata:  a\n\ndata\n\n", events_of(b"a", b" a", b""), id="one-space-goes"),
    pytest.param(b"data: a: b\n\n", [SSEEvent(b"a: b")], id="colon-in-value"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [SSEEvent(b"a")], id="bom"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [SSEEvent(b"b")], id="only-one-bom"),
    pytest.param(b"\n\xef\xbb\xbfdata: a\n\n", [], id="bom-only-leads"),
    pytest.param(b"\xef\xbb", [], id="half-a-bom"),
    pytest.param(b": note\n\n:\n\n:data: x\n\n", [], id="comments"),
    pytest.param(b": note\ndata: a\n: more\n\n", [SSEEvent(b"a")], id="comments-within"),
    pytest.param(b"event: e\nid: 7\nretry: 10\ndata: a\n\n", [SSEEvent(b"a", b"e", b"7", 10)], id="all-fields"),
    pytest.param(b"id: 7\ndata: a\n\ndata: b\n\n", [SSEEvent(b"a", id=b"7"), SSEEvent(b"b")], id="id-stays"),
    pytest.param(b"id: a\0b\ndata: x\n\n", [SSEEvent(b"x")], id="id-with-nul"),
    pytest.param(b"id: 1\nid: \0\ndata: x\n\n", [SSEEvent(b"x", id=b"1")], id="id-with-nul-changes-nothing"),
    pytest.param(b"id: a\0b\n\n", [], id="only-id-with-nul"),
    pytest.param(b"id\ndata: x\n\n", [SSEEvent(b"x", id=b"")], id="id-without-value-resets"),
    pytest.param(b"id: 1\ndata:\n\n", [SSEEvent(b"", id=b"1")], id="priming-event"),
    pytest.param(b"id: 1\n\n", [SSEEvent(id=b"1")], id="id-without-data"),
    pytest.param(b"retry: 5\n\n", [SSEEvent(retry=5)], id="retry-without-data"),
    pytest.param(b"retry: 5s\n\nretry: -1\n\nretry:\n\nretry: \xc2\xb2\n\n", [], id="retry-of-other-than-digits"),
    pytest.param(b"event: a\nevent: b\ndata: x\n\n", [SSEEvent(b"x", b"b")], id="last-event-name-counts"),
    pytest.param(b"Data: a\nwhat: b\n data: c\n\n", [], id="unknown-fields"),
    pytest.param(b"data: a\n", [], id="unfinished-event"),
    pytest.param(b"\n\r\n\r\r\n", [], id="blank-lines"),
]

stream_bytes = st.lists(
    st.sampled_from(
        [
            b"data",
            b"data: x",
            b"data:y",
            b"id: 1",
            b"id: \0",
            b"event: e",
            b"retry: 9",
            b": c",
            b"\xef\xbb\xbf",
            b"z" * 70,
        ]
        + [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n"] * 2
    )
    | st.binary(max_size=4),
    max_size=30,
).map(b"".join)
lines = st.binary(max_size=20).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
ids = lines.map(lambda text: text.replace(b"\0", b""))
events = st.builds(
    SSEEvent,
    data=st.none() | st.lists(lines, min_size=1, max_size=3).map(b"\n".join),
    event=st.none() | lines,
    id=st.none() | ids,
    retry=st.none() | st.integers(0, 10**12),
).filter(lambda event: event != SSEEvent())


def decode(chunks, max_event=16 * 2**20):
    decoder = SSEDecoder(max_event)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def drip(wire):
    return [wire[i : i + 1] for i in range(len(wire))]


def cut(wire, places):
    ends = sorted({place % (len(wire) + 1) for place in places})
    return [wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True)]


@pytest.mark.parametrize(("wire", "expected"), CASES)
def test_events_are_those_of_the_specification(wire, expected):
    """WHATWG HTML, 9.2.6: interpreting an event stream; whole and byte by byte."""
    assert expected == decode([wire])
    assert expected == decode(drip(wire))


@given(stream_bytes, st.lists(st.integers(0, 10**6)), st.sampled_from([10, 70, 2**20]))
def test_chunking_does_not_matter(wire, places, max_event):
    """The decoder yields the same events however the bytes are cut up, also at its limit."""
    whole = decode([wire], max_event)

    assert whole == decode(drip(wire), max_event)
    assert whole == decode(cut(wire, places), max_event)


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(0, 20))
def test_no_bytes_make_the_decoder_raise(chunks, max_event):
    """What an upstream sends is relayed, whatever it is."""
    decode(chunks, max_event)


@given(st.lists(events, max_size=4))
def test_decoding_undoes_encoding(sent):
    """An event that is sent arrives as it was."""
    assert sent == decode([b"".join(map(encode_event, sent))])


@pytest.mark.parametrize("data", [b"a\r\nb", b"a\rb", b"a\nb"])
def test_line_ends_in_data_become_data_lines(data):
    """WHATWG HTML, 9.2.6: several data lines are joined by LF; a bare CR would end a line."""
    assert b"data: a\ndata: b\n\n" == encode_event(SSEEvent(data))


def test_heartbeat_is_a_comment():
    """WHATWG HTML, 9.2.7: authors can include a comment line every 15 seconds or so."""
    assert [] == decode([HEARTBEAT])
    assert [SSEEvent(b"a")] == decode([HEARTBEAT, b"data: a\n\n", HEARTBEAT])


class TestLimit:
    @pytest.mark.parametrize("size", [0, 1, 99, 100])
    def test_event_as_long_as_the_limit_is_whole(self, size):
        """The limit counts bytes of data, not of the field name."""
        wire = encode_event(SSEEvent(b"x" * size))
        assert [SSEEvent(b"x" * size)] == decode([wire], 100) == decode(drip(wire), 100)

    @pytest.mark.parametrize("size", [101, 106, 107, 170, 5000])
    def test_beginning_of_a_longer_one_is_kept_and_marked(self, size):
        """What is kept is the beginning and nothing else, and the next event is intact."""
        data = bytes(ord("a") + i % 26 for i in range(size))
        wire = encode_event(SSEEvent(data, id=b"7")) + b"data: next\n\n"
        expected = [SSEEvent(data[:100], id=b"7", is_truncated=True), SSEEvent(b"next")]

        assert expected == decode([wire], 100)
        assert expected == decode(drip(wire), 100)
        assert expected == decode([wire[i : i + 7] for i in range(0, len(wire), 7)], 100)

    def test_lines_together_count(self):
        """Many short data lines are one long event."""
        wire = b"data: 1234\n" * 50 + b"\n"
        (event,) = decode([wire], 23)

        assert (b"1234\n1234\n1234\n1234\n123", True) == (event.data, event.is_truncated)

    def test_bytes_of_the_middle_are_not_taken_for_the_beginning(self):
        """A line that was cut is never glued to its end."""
        wire = b"data: " + b"a" * 300 + b"zzz\nid: " + b"1" * 300 + b"zzz\nevent: e\n\n"
        assert [SSEEvent(b"a" * 100, b"e", is_truncated=True)] == decode([wire], 100) == decode(drip(wire), 100)

    @pytest.mark.parametrize("line", [b": " + b"c" * 500, b"unknown: " + b"u" * 500, b"n" * 500])
    def test_long_line_that_says_nothing_truncates_nothing(self, line):
        """A comment of any length leaves its event whole."""
        wire = line + b"\ndata: a\n\n"
        assert [SSEEvent(b"a")] == decode([wire], 100) == decode(drip(wire), 100)

    @pytest.mark.parametrize(
        "wire", [b"data: " + b"x" * 4096, b"data: xxxxxxxxx\n" * 256, b"id: " + b"x" * 4096, b"x" * 4096]
    )
    def test_memory_is_bounded(self, wire):
        """Ten megabytes of one event leave no more than the limit behind."""
        decoder = SSEDecoder(1024)
        for _ in range(2500):
            decoder.feed(wire)
        kept = len(decoder._buffer) + sum(map(len, decoder._data))

        assert kept < 4 * 1024
        decoder.feed(b"\n\n")
        assert [SSEEvent(b"next")] == decoder.feed(b"data: next\n\n")


class TestCost:
    """Each feed looks at a bounded number of bytes; any of these takes minutes if it does not."""

    def test_long_event_in_pieces_is_linear(self):
        """16 MiB in pieces of 64 KiB: the limit of one event."""
        decoder = SSEDecoder()
        piece = b"x" * 65536
        decoder.feed(b"data: ")
        for _ in range(256):
            assert [] == decoder.feed(piece)
        (event,) = decoder.feed(b"\n\n")

        assert SSEEvent(b"x" * 16 * 2**20) == event

    def test_long_event_in_small_pieces_is_linear(self):
        """Pieces of 64 bytes, each the end of a packet."""
        decoder = SSEDecoder()
        for _ in range(65536):
            decoder.feed(b"x" * 64)
        assert [] == decoder.feed(b"\n\n")

    def test_line_that_has_not_ended_is_not_searched_again(self):
        """A piece of 1 MiB that ends within a line."""
        assert [SSEEvent(b"a")] == decode([b"data: a\n\ndata: " + b"x" * 2**20])


class TestBoundary:
    @pytest.mark.parametrize(
        ("wire", "expected"),
        [
            (b"", True),
            (b"data: a\n\n", True),
            (b"data: a\r\n\r\n", True),
            (b"data: a\r\r", True),
            (b"data: a\n", False),
            (b"data: a\r\n", False),
            (b"data: a\r", False),
            (b"data: a\n\nd", False),
            (b"data: a\n\n: c\n", False),
        ],
    )
    def test_only_a_blank_line_ends_an_event(self, wire, expected):
        """WHATWG HTML, 9.2.6: the event is dispatched at an empty line."""
        for chunks in ([wire], drip(wire)):
            boundary = SSEBoundary()
            for chunk in chunks:
                boundary.feed(chunk)
            assert expected == boundary.is_between_events

    @given(stream_bytes.filter(lambda wire: not wire.startswith(b"\xef")), st.lists(st.integers(0, 10**6)))
    def test_heartbeat_between_events_changes_none(self, wire, places):
        """Something of our own, put in wherever it may be, leaves the events what they were."""
        boundary = SSEBoundary()
        sent = []
        for chunk in cut(wire, places):
            if boundary.is_between_events:
                sent.append(HEARTBEAT)
            boundary.feed(chunk)
            sent.append(chunk)

        assert decode([wire]) == decode(sent)

    @given(stream_bytes)
    def test_end_of_every_event_is_seen(self, wire):
        """Where the decoder has just completed an event, the boundary agrees."""
        decoder, boundary = SSEDecoder(), SSEBoundary()
        for byte in drip(wire):
            boundary.feed(byte)
            if decoder.feed(byte):
                assert boundary.is_between_events
