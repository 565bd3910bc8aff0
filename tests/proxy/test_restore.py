"""Putting the caller's id back wherever the minted one stands."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadowcat.protocol import mint_id
from shadowcat.proxy.restore import IdRestorer

MINTED = b'"ab"'
ORIGINAL = b'"1"'

near_misses = st.lists(
    st.sampled_from([MINTED, b'"', b'"a', b'"ab', b'ab"', b'b"', b"a", b'""', b"\n\n", b"x" * 9]), max_size=12
).map(b"".join)


def restored(chunks, minted=MINTED, original=ORIGINAL):
    restorer = IdRestorer(minted, original)
    return b"".join([*map(restorer.feed, chunks), restorer.flush()])


def cut(wire, places):
    ends = sorted({place % (len(wire) + 1) for place in places})
    return [wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True)]


@settings(deadline=None)
@given(near_misses, st.lists(st.integers(0, 10**6)), st.sampled_from([ORIGINAL, b"", b'"', b'"a', MINTED]))
@example(b'"ab"ab"', [4], ORIGINAL)
@example(b'"a"ab"', [1, 2, 3], ORIGINAL)
def test_chunking_does_not_matter(wire, places, original):
    """However the bytes are cut, they become what one replacement would make of the whole."""
    expected = wire.replace(MINTED, original)

    assert expected == restored([wire], original=original)
    assert expected == restored([bytes([byte]) for byte in wire], original=original)
    assert expected == restored(cut(wire, places), original=original)
    assert expected == IdRestorer(MINTED, original).restore(wire)


def test_only_a_beginning_of_the_minted_id_is_kept_back():
    """A client waits for no byte that can be sent on."""
    restorer = IdRestorer(b'"minted"', b"7")

    assert b"data: x" == restorer.feed(b"data: x")
    assert b"data: " == restorer.feed(b'data: "mint')
    assert b'"mint!' == restorer.feed(b"!")
    assert b"" == restorer.feed(b'"minted')
    assert b"7}\n\n" == restorer.feed(b'"}\n\n')
    assert b"" == restorer.flush()


def test_what_was_kept_back_comes_at_the_end_once():
    """A stream that is cut within the id loses nothing."""
    restorer = IdRestorer(b'"minted"', b"7")

    assert b"a" == restorer.feed(b'a"mi')
    assert b'"mi' == restorer.flush()
    assert b"" == restorer.flush()


def test_whole_document_does_not_disturb_the_stream():
    """An event may be looked at while its bytes are still passing."""
    restorer = IdRestorer(b'"minted"', b"7")
    assert b"" == restorer.feed(b'"min')
    assert b'{"id":7}' == restorer.restore(b'{"id":"minted"}')
    assert b"7" == restorer.feed(b'ted"')


def test_minted_ids_are_strings_that_nobody_else_has():
    """An id is a JSON string, and long enough to stand nowhere by accident."""
    ids = {mint_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(isinstance(json.loads(minted), str) and len(minted) > 24 for minted in ids)
