"""A head is read in one way only, the way h11 reads it, or it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from shadowcat.transport.downstream.head import Refused, can_begin, parse_head

from .reading import read_h11, read_ours


def request(*fields: str, line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: a", *fields, "", ""]).encode("latin1")


def test_fields():
    head = parse_head(request("X-Empty:", "X-A: b \t", "X-A:\tc\xff", line="POST /a%20b?c=d HTTP/1.1"))
    assert ("POST", b"/a%20b?c=d", "1.1") == (head.method, head.target, head.version)
    assert [(b"host", b"a"), (b"x-empty", b""), (b"x-a", b"b"), (b"x-a", b"c\xff")] == head.headers
    assert (0, True, False, False) == (head.length, head.keeps_alive, head.expects_continue, head.is_websocket)


@pytest.mark.parametrize(
    ("data", "name", "value"),
    [
        (request("Content-Length: 15"), "length", 15),
        (request("Transfer-Encoding: Chunked"), "length", None),
        (request("Connection: x , Close"), "keeps_alive", False),
        (request("Connection: x", "Connection: close"), "keeps_alive", False),
        (request(line="GET / HTTP/1.0"), "keeps_alive", False),
        (request("Expect: 100-Continue"), "expects_continue", True),
        (request("Expect: 100-continue", line="POST / HTTP/1.0"), "expects_continue", False),
        (request("Connection: keep-alive, Upgrade", "Upgrade: WebSocket"), "is_websocket", True),
        (request("Connection: Upgrade", "Upgrade: websocket", line="GET / HTTP/1.0"), "is_websocket", False),
        (request("Connection: Upgrade", "Upgrade: websocket", line="POST / HTTP/1.1"), "is_websocket", False),
        (request("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0"), "is_websocket", False),
        (request("Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"), "is_websocket", False),
        (request("Connection: Upgrade", "Upgrade: h2c"), "is_websocket", False),
        (request("Upgrade: websocket"), "is_websocket", False),
        (request(line="OPTIONS * HTTP/1.1"), "target", b"*"),
        (request(line="GET http://a/b?c HTTP/1.1"), "target", b"/b?c"),
        (request(line="GET HTTP://a HTTP/1.1"), "target", b"/"),
    ],
)
def test_meaning(data, name, value):
    assert value == getattr(parse_head(data), name)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(line="GET  / HTTP/1.1"), 400),
        (request(line="GET / HTTP/1.1 "), 400),
        (request(line="GET /a b HTTP/1.1"), 400),
        (request(line="GET / http/1.1"), 400),
        (request(line="GET /"), 400),
        (request(line="GET /\xff HTTP/1.1"), 400),
        (request(line="G(T / HTTP/1.1"), 400),
        (request(line="GET a HTTP/1.1"), 400),
        (request(line="GET * HTTP/1.1"), 400),
        (request(line="GET http:// HTTP/1.1"), 400),
        (request(line="GET http://b/ HTTP/1.1"), 400),
        (request(line="GET http://a?b HTTP/1.1"), 400),
        (request(line="GET ftp://a/ HTTP/1.1"), 400),
        (request(line="JUMP / HTTP/1.1"), 501),
        (request(line="get / HTTP/1.1"), 501),
        (request(line="CONNECT a:1 HTTP/1.1"), 501),
        (request(line="GET / HTTP/1.2"), 505),
        (request(line="GET / HTTP/0.9"), 505),
        (request(line="GET / HTTP/2.0"), 505),
        (request("X : a"), 400),
        (request(" X: a"), 400),
        (request("X: a", " folded"), 400),
        (request("X: a", "\tfolded"), 400),
        (request("X"), 400),
        (request(": a"), 400),
        (request("X\xff: a"), 400),
        (request("X: a\nY: b"), 400),
        (request("X: a\rY: b"), 400),
        (request("X: a\0"), 400),
        (request("X: a\x7f"), 400),
        (request("Content-Length: 5", "Content-Length: 5"), 400),
        (request("Content-Length: 5, 5"), 400),
        (request("Content-Length: +5"), 400),
        (request("Content-Length: -5"), 400),
        (request("Content-Length: 0x5"), 400),
        (request("Content-Length: 5 5"), 400),
        (request("Content-Length:"), 400),
        (request("Content-Length: " + "9" * 19), 400),
        (request("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (request("Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (request("Transfer-Encoding: chunked", line="POST / HTTP/1.0"), 400),
        (request("Transfer-Encoding: gzip"), 501),
        (request("Transfer-Encoding: gzip, chunked"), 501),
        (request("Transfer-Encoding: xchunked"), 501),
        (request("Transfer-Encoding:"), 400),
        (request("Host: a"), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (request(*["X: y"] * 128), 431),
    ],
)
def test_refusal(data, status):
    with pytest.raises(Refused) as caught:
        parse_head(data)
    assert status == caught.value.status


def test_first_byte():
    """Who speaks TLS, or WebSocket frames, learns at once that this is HTTP."""
    assert not any(map(can_begin, b"\x16\x80\r\n\0 :\xff"))
    assert all(map(can_begin, b"GPgp"))


# ----------------------------------------------------- the same as h11, or for a reason

METHODS = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "get", "JUMP", "CONNECT", "PRI", "G T", "SOURCE", ""]
TARGETS = ["/", "/a?b=c", "*", "http://a/b", "http://b/", "a", "/\xe9", "/a#b", "/a b", "//a", "/%00", "/\x7f", ""]
VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/11", ""]
NAMES = [
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "X", "x-y", "X ", " X", "X\xe9",
    "", "Content_Length", "Content-Length\t", "Transfer-Encoding ", "X\0", "Trailer", "Proxy-Connection", "Keep-Alive",
]  # fmt: skip
VALUES = [
    "a", "5", "0", "005", "+5", "-1", "5,5", "5, 5", "0x5", "5 ", "\t5", "", " ", "chunked", "Chunked", "gzip",
    "chunked, chunked", "gzip, chunked", "identity", "chunked;x", "\x0bchunked", "close", "keep-alive", "Upgrade",
    "websocket", "h2c", "100-continue", "x\xe9", "x\0", "x\x01", "x\x7f", "a\tb", 'a"b', "18446744073709551617",
]  # fmt: skip
BODIES = [
    "", "hello", "5\r\nhello\r\n0\r\n\r\n", "5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n", "05\r\nhello\r\n00\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n", "5 ;x\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhello0\r\n\r\n", "zz\r\n",
    "5\r\nhelloxx0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n", "0\r\nX\r\n\r\n",
    "a\r\n0123456789\r\n0\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n y\r\n\r\n", "0\r\n: y\r\n\r\n",
    "5;\x01\r\nhello\r\n0\r\n\r\n", "5;x\ny\r\nhello\r\n0\r\n\r\n", "5\r\r\nhello\r\n0\r\n\r\n", "\r\n5\r\nhello",
]  # fmt: skip
ENDS = ["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\r\n\t", "\r\r\n", "\r\n\r\n", "", "\0\r\n"]


def mostly(usual: str, others: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), st.sampled_from(others))


@st.composite
def requests(draw: Callable) -> str:
    line = " ".join([draw(mostly("POST", METHODS)), draw(mostly("/", TARGETS)), draw(mostly("HTTP/1.1", VERSIONS))])
    fields = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=4))
    body = draw(st.sampled_from(BODIES))
    framing = draw(mostly("", ["Transfer-Encoding: chunked", f"Content-Length: {len(body)}", "Content-Length: 5"] * 3))
    lines = [line, draw(mostly("Host: a", ["", "host:a", "Host : a"])), *(f"{n}: {v}" for n, v in fields), framing]
    end = draw(mostly("\r\n", ENDS))
    return "".join(text + draw(mostly("\r\n", [end])) for text in lines if text) + "\r\n" + body


CONVERSATIONS = st.lists(requests(), min_size=1, max_size=3).map(lambda parts: "".join(parts).encode("latin1"))


def found(pattern: str) -> Callable[[bytes], object]:
    return re.compile(pattern.encode("latin1"), re.IGNORECASE | re.MULTILINE).search


STRICTER = {
    "a bare LF ends a line for h11": found(r"(?<!\r)\n"),
    "a bare CR is part of a value for h11": found(r"\r(?!\n)"),
    "a folded line continues the last for h11 (obs-fold)": found(r"\n[ \t]"),
    "control characters are part of a value for h11": found(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
    "h11 takes a length twice if it is the same": found(r"^content-length:[^\n]*(,|[^\0]*^content-length:)"),
    "h11 lets the coding win over the length": found(r"^(content-length|transfer-encoding):[^\0]*^(c|t)\S+g?th?g?:"),
    "h11 takes a coding from HTTP/1.0": found(r"HTTP/1.0[^\0]*^transfer-encoding:"),
    "h11 takes any method": found(r"^(?-i:(?!(GET|POST|HEAD|OPTIONS|DELETE|PUT) ))\S+ \S+ HTTP"),
    "h11 leaves the version to the application": found(r"HTTP/[0-9.]*(?<!1.1)(?<!1.0)\r"),
    "h11 leaves the form of the target to the application": found(r"^\S+ (\*|[a-z]|\S*#)"),
    "spaces around a chunk size are nothing to h11": found(r"^[0-9a-f]+[ \t]+(;|\r)"),
    "h11 does not look at trailers or extensions": found(r"^[0-9a-f]+;|^0+\r\n[^\r]"),
    "h11 takes upgrades and expectations twice": found(r"^(upgrade|expect):[^\0]*^(upgrade|expect):"),
    "h11 takes 20 digits of length": found(r"\d{19}"),
}
LOOSER = {
    "an empty line before a request is nothing to us": found(r"\A\r\n|\r\n\r\n\r\n|hello\r\n"),
}


@settings(max_examples=600, deadline=None)
@given(CONVERSATIONS)
def test_same_as_h11(data):
    """Every disagreement is one of those above, and in every one of them but the last we refuse."""
    ours, theirs = read_ours(data), read_h11(data)
    common = min(len(ours.requests), len(theirs.requests))
    for mine, other in zip(ours.requests, theirs.requests, strict=False):
        assert _normal(mine) == _normal(other)
    if (len(ours.requests), bool(ours.refused)) == (len(theirs.requests), bool(theirs.refused)):
        event("agreed")
        return
    reasons = STRICTER
    if len(ours.requests) > common or not ours.refused:
        # Or we still wait for the line end that h11 has seen in a bare LF.
        reasons = LOOSER | dict(list(STRICTER.items())[:1])
    assert [reason for reason, is_there in reasons.items() if is_there(data)], (ours, theirs)


def _normal(request):
    method, target, version, headers, body = request
    return method, target.replace(b"http://a", b""), version, headers, body


@settings(max_examples=200, deadline=None)
@given(CONVERSATIONS, st.integers(1, 40))
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1)
def test_cuts_change_nothing(data, step):
    assert read_ours(data) == read_ours(data, step)
