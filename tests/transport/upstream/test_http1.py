"""One HTTP/1.1 connection: what bytes mean, and what cancellation leaves behind."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.transport.upstream.http1 import (
    READ_SIZE,
    Http1Connection,
    PeerDisconnected,
    ResponseParser,
    encode_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

# method, wire, status, body, whether the connection can be used again
ANSWERS = [
    pytest.param("POST", OK + b"Content-Length: 2\r\n\r\nhi", 200, b"hi", True, id="content-length"),
    pytest.param("POST", OK + b"Content-Length: 0\r\n\r\n", 200, b"", True, id="empty"),
    pytest.param("POST", CHUNKED + b"2\r\nhi\r\n4;x=y\r\n you\r\n0\r\n\r\n", 200, b"hi you", True, id="chunked"),
    pytest.param(
        "POST", OK + b"transfer-encoding:Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, b"hi", True, id="coding-case"
    ),
    pytest.param("POST", CHUNKED + b"2\r\nhi\r\n0\r\nDigest: x\r\n\r\n", 200, b"hi", True, id="trailers"),
    pytest.param("POST", OK + b"\r\nhi", 200, b"hi", False, id="until-close"),
    pytest.param("POST", OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False, id="close"),
    pytest.param("POST", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False, id="1.0"),
    pytest.param(
        "POST",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        200,
        b"hi",
        True,
        id="1.0-keep-alive",
    ),
    pytest.param("POST", b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n", 202, b"", True, id="no-reason"),
    pytest.param("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, id="204"),
    pytest.param("GET", b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", 304, b"", True, id="304"),
    pytest.param("HEAD", OK + b"Content-Length: 0\r\n\r\n", 200, b"", True, id="head-empty"),
    # llhttp cannot be told that no body follows, so its state is useless for another answer.
    pytest.param("HEAD", OK + b"Content-Length: 9\r\n\r\n", 200, b"", False, id="head"),
    pytest.param("HEAD", OK + b"Content-Length: 2\r\n\r\nhi", 200, b"", True, id="head-with-body"),
    pytest.param("HEAD", CHUNKED, 200, b"", False, id="head-chunked"),
    pytest.param(
        "POST",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
        200,
        b"hi",
        True,
        id="interim",
    ),
    pytest.param(
        "POST",
        OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        200,
        b"hi",
        True,
        id="upgrade-offered",
    ),
    pytest.param("POST", OK + b"Content-Length: 2\r\n\r\nhiHTTP", 200, b"hi", False, id="surplus-answer"),
    pytest.param("POST", OK + b"Content-Length: 2\r\n\r\nhi\0", 200, b"hi", False, id="surplus-garbage"),
    pytest.param("POST", CHUNKED + b"2\r\nhi\r\n0\r\n\r\n!", 200, b"hi", False, id="surplus-after-chunks"),
]

TRUNCATED = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="interim-only"),
    pytest.param(OK + b"Content-Le", id="header"),
    pytest.param(OK + b"Content-Length: 3\r\n\r\n", id="no-body"),
    pytest.param(OK + b"Content-Length: 3\r\n\r\nhi", id="body"),
    pytest.param(CHUNKED + b"2\r\nhi\r\n", id="no-last-chunk"),
    pytest.param(CHUNKED + b"2\r\nh", id="chunk"),
    pytest.param(CHUNKED + b"0\r\n", id="no-end-of-trailers"),
]

MALFORMED = [
    pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another-protocol"),
    pytest.param(b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", id="status"),
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="switch"),
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="bare-switch"),
    pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\n", id="gzip-until-close"),
    pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip-chunked"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nhi", id="two-framings"),
    pytest.param(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", id="two-lengths"),
    pytest.param(OK + b"Content-Length: -2\r\n\r\nhi", id="negative-length"),
    pytest.param(OK + b"A: b\r\n folded\r\nContent-Length: 0\r\n\r\n", id="folded-header"),
    pytest.param(OK + b"A: b\0\r\nContent-Length: 0\r\n\r\n", id="nul-in-header"),
    pytest.param(OK + b"A : b\r\nContent-Length: 0\r\n\r\n", id="space-after-name"),
    pytest.param(CHUNKED + b"x\r\nhi\r\n0\r\n\r\n", id="chunk-size"),
    pytest.param(CHUNKED + b"2\r\nhi!!0\r\n\r\n", id="chunk-end"),
]

OVERSIZED = [
    pytest.param(OK + b"A: " + b"x" * 2000 + b"\r\n\r\n", id="value"),
    pytest.param(OK + b"A: " + b"x" * 2000, id="unfinished-value"),
    pytest.param(OK + b"A" * 2000, id="unfinished-name"),
    pytest.param(b"HTTP/1.1 200 " + b"x" * 2000, id="reason"),
    pytest.param(OK + b"A: b\r\n" * 17 + b"\r\n", id="count"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="interim-for-ever"),
    pytest.param(b"\r\n" * 1000, id="blank-lines"),
    pytest.param(CHUNKED + b"0\r\nA: " + b"x" * 2000, id="trailer"),
    pytest.param(CHUNKED + b"0\r\n" + b"A: b\r\n" * 500, id="trailers"),
    pytest.param(CHUNKED + b"2;" + b"x" * 2000, id="chunk-extension"),
]


def parse(pieces, method="POST"):
    """Feed *pieces*, then the end if there is more to come; return all there is to know."""
    parser = ResponseParser(max_header_bytes=1000, max_header_count=16)
    parser.start(method)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += parser.take_body()
    if not parser.is_complete:
        parser.feed_eof()
    assert parser.is_complete
    return parser.status, parser.headers, body, parser.is_reusable


def drip(wire):
    return [wire[i : i + 1] for i in range(len(wire))]


@pytest.mark.parametrize(("method", "wire", "status", "body", "is_reusable"), ANSWERS)
def test_answer_is_understood_whole(method, wire, status, body, is_reusable):
    found = parse([wire], method)

    assert (status, body, is_reusable) == (found[0], found[2], found[3])


@pytest.mark.parametrize(("method", "wire", "status", "body", "is_reusable"), ANSWERS)
def test_answer_is_understood_byte_by_byte(method, wire, status, body, is_reusable):
    assert parse([wire], method) == parse(drip(wire), method)


@given(case=st.sampled_from([p.values for p in ANSWERS]), cuts=st.lists(st.integers(0, 120)))
def test_chunking_never_matters(case, cuts):
    method, wire, *_ = case
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]

    assert parse([wire], method) == parse(pieces, method)


def test_headers_keep_order_case_duplicates_and_empty_values():
    wire = OK + b"B: 1\r\na:\r\nB: 2 \r\nContent-Length: 0\r\n\r\n"

    assert [(b"B", b"1"), (b"a", b""), (b"B", b"2"), (b"Content-Length", b"0")] == parse([wire])[1]


def test_trailers_are_not_taken_for_headers():
    wire = CHUNKED + b"0\r\nContent-Type: text/html\r\n\r\n"

    assert [(b"Transfer-Encoding", b"chunked")] == parse(drip(wire))[1]


@pytest.mark.parametrize("wire", TRUNCATED)
@pytest.mark.parametrize("cut", [lambda wire: [wire] if wire else [], drip], ids=["whole", "drip"])
def test_truncated_answer_is_an_error(wire, cut):
    with pytest.raises(PeerDisconnected):
        parse(cut(wire))


@pytest.mark.parametrize("wire", MALFORMED)
@pytest.mark.parametrize("cut", [lambda wire: [wire], drip], ids=["whole", "drip"])
def test_malformed_answer_is_an_error(wire, cut):
    with pytest.raises(httpx.RemoteProtocolError) as excinfo:
        parse(cut(wire))

    assert not isinstance(excinfo.value, PeerDisconnected)


@pytest.mark.parametrize("wire", OVERSIZED)
@pytest.mark.parametrize("cut", [lambda wire: [wire[i : i + 99] for i in range(0, len(wire), 99)], drip])
def test_oversized_header_section_is_an_error(wire, cut):
    with pytest.raises(httpx.RemoteProtocolError, match="too large"):
        parse(cut(wire))


def test_header_section_at_the_limit_is_accepted():
    wire = OK + b"A: " + b"x" * 945 + b"\r\nTransfer-Encoding: chunked\r\n\r\n000000000000001\r\nx\r\n0\r\n\r\n"

    assert b"x" == parse([wire])[2] == parse(drip(wire))[2]


def test_header_limit_does_not_limit_the_body():
    wire = CHUNKED + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"

    assert b"x" * 2000 == parse([wire])[2] == parse(drip(wire))[2]


def test_request_head_is_sent_as_given():
    head = encode_head("POST", b"/mcp?x=%20", [(b"Host", b"h"), (b"X-Y", b"a b"), (b"x-y", b"")])

    assert head == b"POST /mcp?x=%20 HTTP/1.1\r\nHost: h\r\nX-Y: a b\r\nx-y: \r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "name", "value"),
    [
        ("POST", b"/", b"a", b"b\r\nEvil: 1"),
        ("POST", b"/", b"a", b"b\nEvil: 1"),
        ("POST", b"/", b"a", b"b\rc"),
        ("POST", b"/", b"a", b"b\0c"),
        ("POST", b"/", b"a", b"\r\n\r\nGET / HTTP/1.1"),
        ("POST", b"/", b"", b"b"),
        ("POST", b"/", b" a", b"b"),
        ("POST", b"/", b"a\r\nb", b"c"),
        ("POST", b"/ HTTP/1.1\r\nEvil: 1\r\nx:", b"a", b"b"),
        ("POST", b"/a b", b"a", b"b"),
        ("POST", b"", b"a", b"b"),
        ("PO ST", b"/", b"a", b"b"),
    ],
)
def test_request_head_that_would_smuggle_is_refused(method, target, name, value):
    with pytest.raises(httpx.LocalProtocolError):
        encode_head(method, target, [(b"host", b"h"), (name, value)])


class Peer:
    """A connection, the server's end of it, and how often the client closed it."""

    def __init__(self):
        self.client, self.stream = trio.testing.memory_stream_pair()
        self.aborts = 0
        self.connection = Http1Connection(self.client, self.abort)

    def abort(self):
        self.aborts += 1
        self.client.send_stream.close()
        self.client.receive_stream.close()


async def test_request_is_one_write_and_the_answer_comes_in_parts():
    peer = Peer()
    await peer.connection.send(b"POST / HTTP/1.1\r\n\r\n")
    await peer.stream.send_all(OK + b"Content-Length: 6\r\n\r\nabc")

    assert (200, [(b"Content-Length", b"6")]) == await peer.connection.read_head("POST")
    assert b"abc" == await peer.connection.read_body()
    assert not peer.connection.is_complete
    await peer.stream.send_all(b"def")
    assert b"def" == await peer.connection.read_body()
    assert peer.connection.is_reusable
    assert b"" == await peer.connection.read_body()


async def test_connection_serves_one_answer_after_the_other():
    peer = Peer()
    for body in (b"one", b"two", b""):
        await peer.stream.send_all(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert 200 == (await peer.connection.read_head("POST"))[0]
        assert body == await peer.connection.read_body()
        assert peer.connection.is_reusable


async def test_cancelled_read_loses_nothing(autojump_clock):
    peer = Peer()
    await peer.stream.send_all(CHUNKED + b"3\r\nabc\r\n3\r\nd")
    await peer.connection.read_head("GET")
    received = await peer.connection.read_body()
    with trio.move_on_after(1) as scope:
        await peer.connection.read_body()
    assert scope.cancelled_caught

    await peer.stream.send_all(b"ef\r\n0\r\n\r\n")
    while data := await peer.connection.read_body():
        received += data

    assert b"abcdef" == received
    assert peer.connection.is_reusable
    assert 0 == peer.aborts


async def test_cancelling_before_a_read_of_buffered_bytes_loses_nothing():
    peer = Peer()
    await peer.stream.send_all(OK + b"Content-Length: 3\r\n\r\nabc")
    await peer.connection.read_head("GET")
    with trio.CancelScope() as scope:
        scope.cancel()
        await peer.connection.read_body()
    assert scope.cancelled_caught

    assert b"abc" == await peer.connection.read_body()


async def test_cancelled_wait_for_the_head_closes_the_connection(autojump_clock):
    peer = Peer()
    with trio.move_on_after(1):
        await peer.connection.read_head("GET")

    assert 1 == peer.aborts
    assert not peer.connection.is_reusable


async def test_cancelled_write_closes_the_connection(autojump_clock):
    client, _ = trio.testing.lockstep_stream_pair()
    aborts = []
    connection = Http1Connection(client, lambda: aborts.append("once"))
    with trio.move_on_after(1):
        await connection.send(b"x")

    assert ["once"] == aborts


async def test_closing_twice_aborts_once():
    peer = Peer()
    peer.connection.close()
    peer.connection.close()

    assert 1 == peer.aborts


async def test_end_within_a_body_is_an_error_each_time_it_is_read():
    peer = Peer()
    await peer.stream.send_all(OK + b"Content-Length: 6\r\n\r\nabc")
    await peer.stream.aclose()
    await peer.connection.read_head("GET")
    assert b"abc" == await peer.connection.read_body()

    with pytest.raises(PeerDisconnected):
        await peer.connection.read_body()
    with pytest.raises(httpx.ReadError):
        await peer.connection.read_body()
    assert 1 == peer.aborts


async def test_broken_connection_is_a_read_error():
    peer = Peer()
    peer.client.receive_stream.close()

    with pytest.raises(httpx.ReadError):
        await peer.connection.read_head("GET")
    assert 1 == peer.aborts


async def test_write_to_a_peer_that_does_not_listen_leaves_its_answer_readable():
    peer = Peer()
    await peer.stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    peer.stream.receive_stream.close()

    with pytest.raises(httpx.WriteError):
        await peer.connection.send(b"x")
    assert 413 == (await peer.connection.read_head("POST"))[0]
    assert not peer.connection.is_reusable


async def test_nothing_is_read_ahead_of_its_reader():
    """Each read of the body is at most one read of the stream, of bounded size."""
    reads = []

    class Endless(trio.abc.Stream):
        async def receive_some(self, max_bytes=None):
            await trio.lowlevel.checkpoint()
            reads.append(max_bytes)
            return OK + b"\r\n" if len(reads) == 1 else b"x" * max_bytes

        async def send_all(self, data):
            raise NotImplementedError

        async def wait_send_all_might_not_block(self):
            raise NotImplementedError

        async def aclose(self):
            raise NotImplementedError

    connection = Http1Connection(Endless(), lambda: None)
    await connection.read_head("GET")
    for _ in range(3):
        assert READ_SIZE == len(await connection.read_body())
    assert [READ_SIZE] * 4 == reads
