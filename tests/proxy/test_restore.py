"""Putting the callers' ids back wherever minted ones stand."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadowcat.protocol import mint_id
from shadowcat.proxy.restore import IdRestorer

MINTED, OTHER, FOREIGN = [b'"shadowcat-' + digits * 2 + b'"' for digits in (b"0123456789ab", b"0" * 12, b"f" * 12)]
ORIGINALS = {MINTED: b'"1"', OTHER: b"7"}

near_misses = st.lists(
    st.sampled_from(
        [MINTED, OTHER, FOREIGN, b'"', MINTED[1:], MINTED[:-1], MINTED[:11], MINTED[11:], b'"shadow', b"\n\n"]
    )
    | st.integers(0, len(MINTED)).map(lambda end: MINTED[:end]),
    max_size=8,
).map(b"".join)


def restored(chunks, originals):
    restorer = IdRestorer(originals)
    return b"".join([*map(restorer.feed, chunks), restorer.flush()])


def cut(wire, places):
    ends = sorted({place % (len(wire) + 1) for place in places})
    return [wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True)]


@settings(deadline=None)
@given(near_misses, st.lists(st.integers(0, 10**6)), st.sampled_from([b"1", b'"1"', b'""', b'"shadowcat-', OTHER]))
@example(MINTED + MINTED[1:], [len(MINTED)], b'"1"')
def test_chunking_does_not_matter(wire, places, original):
    """However the bytes are cut, they become what one replacement makes of the whole."""
    originals = {MINTED: original}
    expected = IdRestorer(originals).restore(wire)
    if FOREIGN not in wire and OTHER not in wire:
        assert expected == wire.replace(MINTED, original)

    assert expected == restored([wire], originals)
    assert expected == restored([bytes([byte]) for byte in wire], originals)
    assert expected == restored(cut(wire, places), originals)


def test_ids_are_found_as_they_are_minted():
    """Whatever random digits they have."""
    for _ in range(100):
        minted = mint_id()
        assert b"[7]" == restored([b"[" + minted[:20], minted[20:] + b"]"], {minted: b"7"})


def test_each_id_becomes_its_callers():
    """A stream may bring several answers; ids that others minted stay."""
    wire = b"[" + b",".join([MINTED, OTHER, FOREIGN, MINTED]) + b"]"
    assert b'["1",7,' + FOREIGN + b',"1"]' == restored([wire[:50], wire[50:]], ORIGINALS)


def test_ids_that_come_to_be_known_are_restored_from_then_on():
    """A listening stream lives longer than the calls of its session."""
    originals: dict = {}
    restorer = IdRestorer(originals)

    assert b'{"id":' + MINTED + b'}"sh' == restorer.feed(b'{"id":' + MINTED + b'}"sh')
    originals[MINTED] = b"1"
    assert b'{"id":1}' == restorer.feed(b'{"id":' + MINTED + b"}")
    assert b"" == restorer.feed(MINTED[:9])
    originals.clear()
    assert MINTED == restorer.feed(MINTED[9:])


@pytest.mark.parametrize("end", range(1, len(MINTED)))
def test_only_a_beginning_of_a_minted_id_is_kept_back(end):
    """A client waits for no byte that can be sent on."""
    restorer = IdRestorer(ORIGINALS)

    assert b"data: x" == restorer.feed(b"data: x")
    assert b"data: " == restorer.feed(b"data: " + MINTED[:end])
    assert MINTED[:end] + b"!" == restorer.feed(b"!")
    assert b"" == restorer.feed(MINTED[:end])
    assert b'"1"}\n\n' == restorer.feed(MINTED[end:] + b"}\n\n")
    assert b"" == restorer.flush()


def test_what_was_kept_back_comes_at_the_end_once():
    """A stream that is cut within an id loses nothing."""
    restorer = IdRestorer(ORIGINALS)

    assert b"a" == restorer.feed(b'a"shadow')
    assert b'"shadow' == restorer.flush()
    assert b"" == restorer.flush()


def test_whole_document_does_not_disturb_the_stream():
    """An event may be looked at while its bytes are still passing."""
    restorer = IdRestorer(ORIGINALS)
    assert b"" == restorer.feed(MINTED[:5])
    assert b'{"id":7}' == restorer.restore(b'{"id":' + OTHER + b"}")
    assert b'"1"' == restorer.feed(MINTED[5:])
