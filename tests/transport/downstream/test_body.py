"""A body ends where its framing says, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.transport.downstream.body import MAX_LINE, ChunkedBody, LengthBody
from shadowcat.transport.downstream.head import Refused


def decode(data: bytes, step: int) -> tuple[bytes, bytes, bool]:
    decoder, body, pending = ChunkedBody(), b"", b""
    for at in range(0, len(data), step):
        part, pending = decoder.decode(pending + data[at : at + step])
        body += part
    return body, pending, decoder.is_complete


@pytest.mark.parametrize(
    ("length", "data", "parts"),
    [(0, b"more", (b"", b"more")), (4, b"body", (b"body", b"")), (4, b"body, more", (b"body", b", more"))],
)
def test_length(length, data, parts):
    body = LengthBody(length)
    assert body.is_complete is (length == 0)
    assert parts == body.decode(data)
    assert body.is_complete


def test_length_in_pieces():
    body = LengthBody(4)
    assert (b"bo", b"") == body.decode(b"bo")
    assert not body.is_complete
    assert (b"dy", b"!") == body.decode(b"dy!")


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 50), st.binary(max_size=5))
def test_chunks(chunks, step, rest):
    """However they are cut."""
    data = b"".join(b"%x;e=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX: y\r\n\r\n"
    assert (b"".join(chunks), b"", True) == decode(data, step)
    assert (b"".join(chunks), rest, True) == decode(data + rest, len(data + rest))


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n", b"\r\n", b";x\r\n", b" 5\r\n", b"5 \r\n", b"5\n", b"5\r5", b"5\r\nhelloX", b"5\r\nhello\rX",
        b"5\r\nhello\n0", b"-5\r\n", b"0x5\r\n", b"1_0\r\n", b"1234567890123456\r\n", b"5;\0\r\n", b"5;a\nb\r\n",
        b"5;" + b"x" * MAX_LINE, b"0\r\nX\r\n", b"0\r\n: y\r\n", b"0\r\nX : y\r\n", b"0\r\nX: y\r\n z\r\n",
        b"0\r\nX: a\rb\r\n", b"1;eeeeeeee\r\nx\r\n" * 1000, b"0\r\n" + b"X: y\r\n" * 3000, b"\xff\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_refusal(data, step):
    with pytest.raises(Refused) as caught:
        decode(data, step)
    assert 400 == caught.value.status


@pytest.mark.parametrize("size", [b"5", b"000000000000005"])
def test_leading_zeros(size):
    assert (b"hello", b"", True) == decode(size + b"\r\nhello\r\n0\r\n\r\n", 3)


def test_huge_chunk_is_not_waited_for():
    """What has come of it is handed on."""
    decoder = ChunkedBody()
    assert (b"hello", b"") == decoder.decode(b"fffffffffffff\r\nhello")
    assert not decoder.is_complete
