"""What a client gets for what it sends."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from shadowcat.transport.downstream.wire import Wire

CLOSE = "Connection: close"


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /{path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *headers).replace(b"GET", b"POST") + body


def chunked(path: str, body: bytes) -> bytes:
    return get(path, "Transfer-Encoding: chunked").replace(b"GET", b"POST") + body


H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REFUSED = [
    pytest.param(b"\xff\xff\xff\r\n\r\n", 400, id="no HTTP"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
    pytest.param(get("é"), 400, id="path is not ASCII"),
    pytest.param(b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="method is not ASCII"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
    pytest.param(get("ok", "Host: b"), 400, id="two hosts"),
    pytest.param(get("ok", "no colon"), 400, id="no colon"),
    pytest.param(get("ok", "Content-Length: x"), 400, id="length is no number"),
    pytest.param(get("ok", "Content-Length: 1", "Content-Length: 2"), 400, id="two lengths"),
    pytest.param(get("ok", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, id="two framings"),
    pytest.param(get("ok", "Transfer-Encoding: gzip"), 501, id="unknown framing"),
    pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, id="CONNECT"),
    pytest.param(H2_PREFACE, 505, id="HTTP/2"),
    pytest.param(H2_PREFACE + b"\0\0\5\2\0\0\0\0\1\0\0\0\0\0" * 1100, 505, id="HTTP/2 with many PRIORITY frames"),
    pytest.param(b"GET / HTTP/3.0\r\n\r\n", 505, id="HTTP/3.0"),
    pytest.param(get("ok", "X: " + "x" * 40_000), 431, id="large header"),
    pytest.param(get("x" * 40_000), 431, id="long path"),
    pytest.param(get("ok", "X: " + "x" * 40_000)[:-2], 431, id="large header without end"),
    pytest.param(get("ok", *["X: x"] * 200), 431, id="many headers"),
    pytest.param(chunked("ok", b"5\r\nhello\r\nzz\r\n"), 400, id="bad chunk"),
    pytest.param(chunked("wait", b"5\r\nhello\r\nzz\r\n"), 400, id="bad chunk before the answer"),
]


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
async def test_bad_request_is_refused(serve, app, caplog, request_bytes, status):
    """With a status and a close, however it is cut up; no such request is an error of ours."""
    async with serve(app) as server:
        for cut in (len(request_bytes), 1, len(request_bytes) // 2, len(request_bytes) - 1):
            answer = await server.exchange(request_bytes[:cut], request_bytes[cut:])
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"connection: close" in head
            assert b"" == rest
        await server.assert_alive()
    assert [] == caplog.records


async def test_bad_chunk_during_the_answer_cuts_it(serve, app):
    """The app is told; hypercorn ends the process here."""
    async with serve(app) as server, server.connect() as client:
        await client.send(chunked("flood", b"5\r\nhello\r\n"))
        await client.read_until(b"\r\n\r\n")
        await client.send(b"zz\r\n")
        assert not (await client.read_to_end()).endswith(b"0\r\n\r\n")
        with trio.fail_after(0.5):
            await app.disconnected.wait()
        await server.assert_alive()


async def test_answer_after_a_refusal_goes_nowhere(serve, caplog):
    """The app could not know, so that is no failure of its."""

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app) as server:
        answer = await server.exchange(chunked("ok", b"5\r\nhello\r\n"), b"zz\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert 1 == answer.count(b"HTTP/1.1")
    assert [] == caplog.records


async def test_bad_chunk_after_an_early_answer_changes_nothing(serve, app):
    """The answer stands, the connection is closed."""
    async with serve(app) as server:
        for _ in range(20):
            answer = await server.exchange(chunked("early", b"5\r\nhello\r\nzz\r\n"))
            assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
            assert 1 == answer.count(b"HTTP/1.1")
        await server.assert_alive()


@pytest.mark.parametrize(
    "headers",
    [
        ["Upgrade: websocket"],
        ["Connection: Upgrade"],
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: !"],
    ],
    ids=["upgrade only", "connection only", "h2c", "bad h2c settings"],
)
async def test_upgrade_is_ignored(serve, app, caplog, headers):
    """The request is served as if the header were not there, and the connection lives on."""
    async with serve(app) as server, server.connect() as client:
        await client.send(get("echo", *headers))
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await client.send(post("echo", b"hello"))
        await client.read_until(b"hello")
        assert ["http", "http"] == [scope["type"] for scope in app.calls]
    assert [] == caplog.records


async def test_pipelined_requests_are_answered_in_order(serve, app):
    """One after the other, each complete before the next begins."""
    async with serve(app) as server:
        answer = await server.exchange(b"".join(post("echo", b"<%d>" % n) for n in range(20)), get("ok", CLOSE))
        assert [b"<%d>" % n for n in range(20)] == [part[-4:].strip() for part in answer.split(b"HTTP/1.1 200")[1:21]]


async def test_body_in_pieces(serve, app):
    """The app sees one body, whatever the framing and the cuts."""
    request = chunked("echo", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    async with serve(app) as server, server.connect() as client:
        for cut in range(1, len(request)):
            await client.send(request[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await client.send(request[cut:])
            await client.read_until(b"hello world")


async def test_large_body_in_and_out(serve, app):
    """Far beyond every buffer on the way."""
    body = bytes(range(256)) * 20_000
    async with serve(app) as server, server.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, post("echo", body, CLOSE))
        answer = await client.read_to_end()
        assert body == answer.partition(b"\r\n\r\n")[2]


async def test_expect_continue(serve, app):
    async with serve(app) as server, server.connect() as client:
        await client.send(post("echo", b"hello", "Expect: 100-continue")[:-5])
        assert b"HTTP/1.1 100 \r\n\r\n" == await client.read_until(b"\r\n\r\n")
        for part in (b"he", b"llo"):
            await client.send(part)
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200 ")


async def test_continue_is_said_once(serve, app):
    """Some clients send the body again for each."""
    async with serve(app) as server, server.connect() as client:
        await client.send(post("echo", b"hello", "Expect: 100-continue")[:-5])
        assert b"HTTP/1.1 100 \r\n\r\n" == await client.read_until(b"\r\n\r\n")
        for part in (b"he", b"ll", b"o"):
            await trio.testing.wait_all_tasks_blocked()
            await client.send(part)
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200 ")


async def test_continue_is_not_said_to_who_has_begun(serve, app):
    async with serve(app) as server, server.connect() as client:
        await client.send(post("echo", b"hello", "Expect: 100-continue")[:-2])
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"lo")
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200 ")


async def test_short_answer_is_one_write(serve, app, monkeypatch):
    """Head and body share a packet: that is most of what a call costs."""
    writes = []
    send = Wire.send

    async def record(self, data):
        writes.append(bytes(data))
        await send(self, data)

    monkeypatch.setattr(Wire, "send", record)
    async with serve(app) as server:
        answer = await server.exchange(post("echo", b"hello", CLOSE))
    assert [answer] == writes


async def test_head_of_a_stream_is_sent_at_once(serve):
    """A client that opens an event stream waits for it."""

    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await trio.sleep_forever()

    async with serve(app) as server, server.connect() as client:
        await client.send(get("ok"))
        assert b"text/event-stream" in await client.read_until(b"\r\n\r\n")


async def test_last_part_of_a_stream_ends_it(serve):
    """The terminator comes with the data."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    async with serve(app) as server:
        answer = await server.exchange(get("ok", CLOSE))
    assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize(("method", "status", "body"), [("HEAD", 200, b"hello"), ("GET", 304, b""), ("GET", 204, b"")])
async def test_answers_without_a_body(serve, method, status, body):
    """The connection can be used again after them."""

    async def app(scope, receive, send):
        headers = [(b"content-length", b"5")] if status != 204 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with serve(app) as server, server.connect() as client:
        for _ in range(2):
            await client.send(get("ok").replace(b"GET", method.encode()))
            assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
        await trio.testing.wait_all_tasks_blocked()


async def test_failure_before_the_answer_is_a_500(serve, app, caplog):
    """Also when the app had declared the head, which is not out yet."""

    async def fail_in_between(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        raise RuntimeError("on purpose")

    for failing in (app, fail_in_between):
        async with serve(failing) as server:
            answer = await server.exchange(post("fail", b"hello"))
            assert b"http/1.1 500 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n" == answer.lower()
    assert 2 == [record.message for record in caplog.records].count("the application failed")


async def test_failure_during_the_answer_cuts_it(serve, app):
    """The terminator is missing, so the client can tell a cut from an end."""
    async with serve(app) as server:
        answer = await server.exchange(get("fail_late"))
        assert answer.endswith(b"\r\n\r\n4\r\npart\r\n")


async def test_failure_during_an_answer_that_ends_by_closing_resets(serve, app):
    """In HTTP/1.0 an orderly close would pass for the end."""
    async with serve(app) as server:
        with pytest.raises(trio.BrokenResourceError):
            await server.exchange(b"GET /fail_late HTTP/1.0\r\n\r\n")


async def test_http10_answer(serve, app):
    async with serve(app) as server:
        answer = await server.exchange(b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        assert answer.lower().endswith(b"connection: close\r\n\r\nhello")


async def test_answer_longer_than_declared_is_cut(serve, caplog):
    """The client never takes part of one answer for the next."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two", "more_body": False})

    async with serve(app) as server:
        assert (await server.exchange(get("ok") + get("ok"))).endswith(b"\r\n\r\none")
    assert ["the application failed"] == [record.message for record in caplog.records]


@pytest.mark.parametrize("header", [(b"bad name", b"x"), (b"x", b"bad\r\nvalue")])
async def test_bad_response_header_is_a_500(serve, header):
    """No header of an upstream can inject a line into the response."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [header]})

    async with serve(app) as server:
        assert (await server.exchange(get("ok"))).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"2")]], ids=["stream", "document"])
async def test_an_answer_that_was_cancelled_before_its_head_can_be_another(serve, headers):
    """Nothing was sent yet, so the application can still say what became of the request."""

    async def app(scope, receive, send):
        with trio.CancelScope() as scope:
            scope.cancel()
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})

    async with serve(app) as server:
        answer = await server.exchange(get("ok", CLOSE))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\nno")


async def test_early_answer_is_not_preceded_by_continue(serve, app):
    """The body is asked for only when somebody reads it."""
    async with serve(app) as server:
        answer = await server.exchange(post("early", b"hello", "Expect: 100-continue")[:-5])
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in answer


async def test_continue_does_not_follow_the_head(serve):
    """Nor is it sent when the body comes unasked."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = (await receive())["body"]
        await send({"type": "http.response.body", "body": body})

    async with serve(app) as server:
        request = post("ok", b"hello", "Expect: 100-continue", CLOSE)
        for parts in ([request[:-5], b"hello"], [request]):
            answer = await server.exchange(*parts)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"5\r\nhello\r\n0\r\n\r\n")


async def test_body_nobody_read_is_dropped(serve, app):
    """When all of it is here, the connection can be used again."""
    async with serve(app) as server, server.connect() as client:
        for request in (post("early", b"hello"), chunked("early", b"5\r\nhello\r\n0\r\n\r\n")):
            await client.send(request)
            assert b"close" not in await client.read_until(b"\r\n\r\n")
            await client.read_until(b"no")
        await client.send(post("echo", b"still here"))
        await client.read_until(b"still here")


async def test_body_can_be_read_after_the_answer_has_begun(serve):
    """Nothing of it is lost to whoever looks whether it is here."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            event = await receive()
            more = event["more_body"]
            await send({"type": "http.response.body", "body": event["body"].upper(), "more_body": more})

    async with serve(app) as server, server.connect() as client:
        for request in (post("ok", b"hello"), chunked("ok", b"5\r\nhello\r\n0\r\n\r\n")):
            await client.send(request)
            assert b"5\r\nHELLO\r\n0\r\n\r\n" in await client.read_until(b"0\r\n\r\n")


async def test_whoever_waits_in_receive_is_told_of_the_end(serve):
    """The client is still there, but has all it asked for."""
    told = []

    async def watch(receive):
        while (event := await receive())["type"] != "http.disconnect":
            pass
        told.append(event)

    async def app(scope, receive, send):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, receive)
            await trio.testing.wait_all_tasks_blocked()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app) as server, server.connect() as client:
        for request in (post("ok", b"hello"), get("ok")):
            await client.send(request)
            await client.read_until(b"ok")
            await trio.testing.wait_all_tasks_blocked()
    assert [{"type": "http.disconnect"}] * 2 == told


async def test_empty_line_before_a_request(serve, app):
    """Some clients send one after a body (RFC 9112, 2.2)."""
    async with serve(app) as server, server.connect() as client:
        for request in (b"\r\n" + post("echo", b"<1>"), post("echo", b"<2>") + b"\r", b"\n" + post("echo", b"<3>")):
            await client.send(request)
            await trio.testing.wait_all_tasks_blocked()
        for answer in (b"<1>", b"<2>", b"<3>"):
            await client.read_until(answer)


async def test_other_protocol_is_refused_at_its_first_byte(serve, app):
    """A TLS client sends no empty line, and would wait for an answer."""
    async with serve(app, header_timeout=60) as server:
        assert (await server.exchange(b"\x16\x03\x01\x02\x00\x01")).startswith(b"HTTP/1.1 400 ")


async def test_target_with_a_host(serve, app):
    async with serve(app) as server:
        answer = await server.exchange(get("ok", CLOSE).replace(b"/ok", b"http://a/ok%20?b=c"))
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert ("/ok ", b"/ok%20", b"b=c") == tuple(app.calls[0][key] for key in ("path", "raw_path", "query_string"))


async def test_requests_sent_in_advance_keep_nobody_waiting(serve):
    """There is a checkpoint between two of them."""
    served = []

    async def app(scope, receive, send):
        served.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serve(app) as server, server.connect() as many, server.connect() as one:
        await many.send(get("many") * 500)
        await one.send(get("one"))
        await one.read_until(b"\r\n\r\n")
        assert len(served) < 400


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.push"}],
        [{"type": "http.response.start", "status": 99}],
        [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}] * 2,
    ],
    ids=["body first", "unknown", "no status", "two heads"],
)
async def test_misbehaving_application(serve, caplog, events):
    """Its mistake ends its own connection, and the client can tell."""

    async def app(scope, receive, send):
        for event in events:
            await send(event)

    async with serve(app) as server:
        answer = await server.exchange(get("ok"))
        assert answer.startswith(b"HTTP/1.1 500 ") or not answer.endswith(b"0\r\n\r\n")
    assert ["the application failed"] == [record.message for record in caplog.records]


@pytest.mark.parametrize("is_last", [False, True])
async def test_part_that_was_cancelled_is_neither_sent_nor_counted(serve, is_last):
    """Else what is sent next would come without a head, or be shorter than the head says."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        with trio.CancelScope() as scope:
            scope.cancel()
            await send({"type": "http.response.body", "body": b"no" if is_last else b"n", "more_body": not is_last})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app) as server:
        answer = await server.exchange(get("ok", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nok")
