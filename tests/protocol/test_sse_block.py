"""Events as the text they were sent in, however the bytes are cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.protocol import SSEBlock, SSEDecoder, SSEEvent, SSEFramer, read_block

from .test_sse import drip, stream_bytes

BOM = b"\xef\xbb\xbf"
CUTS = st.lists(st.integers(1, 12), max_size=40)


def frame(chunks, max_block=1024 * 1024):
    framer = SSEFramer(max_block)
    return [block for chunk in chunks for block in framer.feed(chunk)]


def cut(wire, sizes):
    chunks, start = [], 0
    for size in sizes:
        chunks.append(wire[start : start + size])
        start += size
    return [*chunks, wire[start:]]


def without_line_ends(text):
    return re.sub(rb"[\r\n]", b"", text)


def join(blocks):
    """Put parts together, and see that they fit."""
    texts, is_inside = [], False
    for block in blocks:
        assert block.begins == (not is_inside)
        texts.append(block.text if block.begins else texts.pop() + block.text)
        is_inside = not block.ends
    return texts, is_inside


CASES = [
    pytest.param(b"data: a\n\n", [b"data: a"], id="lf"),
    pytest.param(b"data: a\r\n\r\n", [b"data: a"], id="crlf"),
    pytest.param(b"data: a\r\r", [b"data: a"], id="cr"),
    pytest.param(b"data: a\r\n\n", [b"data: a"], id="crlf-lf"),
    pytest.param(b"data: a\n\r\n\rdata: c\r\r\n", [b"data: a", b"data: c"], id="mixed"),
    pytest.param(b"data: a\r\ndata: b\r\n\r\n", [b"data: a\r\ndata: b"], id="two-lines"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [b"data: a"], id="bom"),
    pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [b"\xef\xbb\xbfdata: a"], id="only-one-bom"),
    pytest.param(b"\n\xef\xbb\xbfdata: a\n\n", [b"\xef\xbb\xbfdata: a"], id="bom-only-leads"),
    pytest.param(b": heartbeat\n\ndata: a\n\n", [b": heartbeat", b"data: a"], id="comment"),
    pytest.param(b"\n\r\n\r\r\ndata: a\n\n\n\n\n", [b"data: a"], id="empty-lines"),
    pytest.param(b"data: a\n", [], id="unfinished"),
    pytest.param(b"", [], id="nothing"),
]


class TestFraming:
    @pytest.mark.parametrize(("wire", "texts"), CASES)
    def test_blocks_are_what_is_between_empty_lines(self, wire, texts):
        """In one piece, and byte by byte."""
        blocks = [SSEBlock(text) for text in texts]
        assert frame([wire]) == blocks
        assert frame(drip(wire)) == blocks

    @given(stream_bytes, CUTS)
    def test_chunking_does_not_matter(self, wire, sizes):
        whole = frame([wire])
        assert frame(drip(wire)) == whole
        assert frame(cut(wire, sizes)) == whole

    @given(stream_bytes, CUTS, st.integers(2, 40))
    def test_parts_of_a_long_block_make_the_block(self, wire, sizes, max_block):
        """However it is cut, and nothing of one event gets into another."""
        whole = [block.text for block in frame([wire])]
        for chunks in ([wire], drip(wire), cut(wire, sizes)):
            texts, is_open = join(frame(chunks, max_block))
            assert (texts[:-1] if is_open else texts) == whole

    @given(stream_bytes, CUTS, st.integers(2, 40))
    def test_no_more_is_held_back_than_the_limit(self, wire, sizes, max_block):
        """Whatever the upstream sends, for as long as it likes."""
        framer, fed, given_out = SSEFramer(max_block), b"", b""
        for chunk in cut(wire, sizes):
            fed += chunk
            given_out += b"".join(block.text for block in framer.feed(chunk))
            assert len(without_line_ends(fed)) - len(without_line_ends(given_out)) <= max_block + len(BOM)

    @given(stream_bytes)
    def test_nothing_but_line_ends_is_lost(self, wire):
        given_out = b"".join(block.text for block in frame([wire + b"\n\n"]))
        assert without_line_ends(given_out) == without_line_ends(wire.removeprefix(BOM))

    def test_event_given_out_in_parts_is_not_complete_before_its_end(self):
        """... though nothing of it is held back."""
        framer = SSEFramer(4)
        (part,) = framer.feed(b"data: a")
        assert part == SSEBlock(b"data: a", ends=False)
        assert framer.feed(b"b\n") == []
        assert framer.feed(b"\n") == [SSEBlock(b"b", begins=False)]


class TestReading:
    @given(stream_bytes)
    def test_decoder_sees_the_same_events(self, wire):
        """Framed and read, or decoded: data, name, id and retry."""
        events = [read_block(block.text)[0] for block in frame([wire])]
        assert [event for event in events if event != SSEEvent()] == SSEDecoder().feed(wire)

    @given(stream_bytes)
    def test_only_lines_with_an_id_are_taken_out(self, wire):
        """The rest is as it was sent, to the byte; read again, it lacks the id and nothing else."""
        for block in frame([wire]):
            event, text = read_block(block.text)
            lines = re.split(rb"\r\n|\n|\r", block.text)
            kept = [line for line in lines if line.partition(b":")[0] != b"id"]
            assert re.split(rb"\r\n|\n|\r", text) == (kept or [b""])
            assert text == block.text or len(kept) < len(lines)
            again, same = read_block(text)
            assert (again.data, again.event, again.retry) == (event.data, event.event, event.retry)
            assert (again.id, same) == (None, text)

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            (b"id: 1\ndata: a", b"data: a"),
            (b"data: a\nid: 1", b"data: a"),
            (b"data: a\r\nid: 1\r\ndata: b", b"data: a\ndata: b"),
            (b"id\ndata: a", b"data: a"),
            (b"id:\0\ndata: a", b"data: a"),
            (b"id: 1\nid: 2\ndata: a", b"data: a"),
            (b"idx: 1\r\ndata: a\n: id: 1", b"idx: 1\r\ndata: a\n: id: 1"),
            (b" id: 1", b" id: 1"),
            (b"id: 1", b""),
        ],
    )
    def test_text_without_ids(self, text, kept):
        """What is left is as it was; where a line was taken out, lines end with LF."""
        assert read_block(text)[1] == kept
