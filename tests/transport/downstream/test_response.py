"""A response says where it ends, and nothing in it can end it early."""

from __future__ import annotations

import pytest

from shadowcat.transport.downstream.response import Response, encode_header

LENGTH = [(b"content-length", b"5")]


def encode(response: Response, status: int, headers, *parts: bytes) -> bytes:
    head = response.head(status, headers, close=False)
    last = len(parts) - 1
    return head + b"".join(response.body(part, is_last=n == last) for n, part in enumerate(parts))


@pytest.mark.parametrize(
    ("response", "status", "headers", "parts", "sent"),
    [
        (Response(), 200, LENGTH, [b"hello"], b"content-length: 5\r\n\r\nhello"),
        (Response(), 200, LENGTH, [b"he", b"", b"llo", b""], b"content-length: 5\r\n\r\nhello"),
        (Response(), 200, [], [b"hello"], b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (Response(), 200, [], [b"", b"a", b""], b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        (Response(is_old=True), 200, [], [b"a", b"b"], b"\r\nab"),
        (Response(is_old=True), 200, LENGTH, [b"hello"], b"content-length: 5\r\n\r\nhello"),
        (Response(is_head=True), 200, LENGTH, [b"hello"], b"content-length: 5\r\n\r\n"),
        (Response(is_head=True), 200, [], [b"hello"], b"transfer-encoding: chunked\r\n\r\n"),
        (Response(), 204, [], [b"hello"], b"\r\n"),
        (Response(), 304, LENGTH, [b""], b"content-length: 5\r\n\r\n"),
        (Response(), 200, [(b"transfer-encoding", b"gzip"), *LENGTH], [b"hello"], b"content-length: 5\r\n\r\nhello"),
    ],
)
def test_framing(response, status, headers, parts, sent):
    assert b"HTTP/1.1 %d \r\n%s" % (status, sent) == encode(response, status, headers, *parts)


@pytest.mark.parametrize(
    ("response", "headers", "is_so"),
    [
        (Response(), [], False),
        (Response(), LENGTH, False),
        (Response(is_old=True), [], True),
        (Response(is_old=True), LENGTH, False),
        (Response(is_old=True, is_head=True), [], False),
    ],
)
def test_whether_a_close_would_pass_for_the_end(response, headers, is_so):
    response.head(200, headers, close=True)
    assert is_so is response.ends_by_closing


@pytest.mark.parametrize("parts", [[b"hell", b""], [b"hello!"], [b"hello", b"!"], [b""]])
def test_body_is_as_long_as_declared(parts):
    with pytest.raises(ValueError, match="content-length"):
        encode(Response(), 200, LENGTH, *parts)


@pytest.mark.parametrize(
    "header",
    [
        (b"", b"x"),
        (b"a b", b"x"),
        (b"a:", b"x"),
        (b"a\n", b"x"),
        (b"a", b"x\r\nb: y"),
        (b"a", b"x\n"),
        (b"a", b"\0"),
        (b"content-length", b"+5"),
        (b"content-length", b""),
    ],
)
def test_header_that_would_not_be_read_back(header):
    with pytest.raises(ValueError, match="header|number"):
        Response().head(200, [header], close=False)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_status_that_is_none(status):
    with pytest.raises(ValueError, match="status"):
        Response().head(status, [], close=False)


def test_length_is_declared_once():
    with pytest.raises(ValueError, match="before"):
        Response().head(200, [*LENGTH, *LENGTH], close=False)


def test_close_is_announced_once():
    headers = [(b"connection", b"keep-alive"), *LENGTH]
    head = Response().head(200, headers, close=True)
    assert b"HTTP/1.1 200 \r\ncontent-length: 5\r\nconnection: close\r\n\r\n" == head


def test_application_may_ask_to_close():
    response = Response()
    assert b"\r\nconnection: Close\r\n" in response.head(200, [(b"connection", b"Close"), *LENGTH], close=False)
    assert response.asks_to_close


def test_header_line():
    assert b"x-a: b\xff\tc\r\n" == encode_header(b"x-a", b"b\xff\tc")
