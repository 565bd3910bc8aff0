"""Holding back the answer to initialize until it is known."""

import json

import pytest
import trio

from shadowcat.errors import RemoteProtocolError, UpstreamDisconnected
from shadowcat.proxy import opening
from shadowcat.proxy.opening import hold_opening
from shadowcat.testing import error, notification, result
from shadowcat.transport import UpstreamResponse

JSON, EVENTS = b"application/json", b"text/event-stream"


class Body:
    """What an upstream sends, step by step: bytes, an error, or nothing for ever."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.read = 0
        self.closed = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        self.read += 1
        if not self.steps:
            raise StopAsyncIteration
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if step is None:
            await trio.sleep_forever()
        return step

    async def close(self):
        await trio.lowlevel.checkpoint()
        self.closed += 1


def answer(*steps, content_type=JSON, status=200):
    body = Body(*steps)
    headers = [(b"content-type", content_type), (b"mcp-session-id", b"u")]
    return UpstreamResponse(status, headers, body, body.close), body


def event(message):
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


def result_of(held):
    assert held.response is not None
    return held.response.result


async def read(response):
    return [chunk async for chunk in response.body]


async def test_json_answer_is_read_whole_and_replayed_as_it_came():
    """The session id goes into the head of ours, so the result must be known first."""
    text = b' {"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}\n'
    upstream, body = answer(text[:9], text[9:])
    held = await hold_opening(upstream, b"1")

    assert b'{"protocolVersion":"2025-11-25"}' == result_of(held)
    assert [text[:9], text[9:]] == await read(held.replayed)
    assert (upstream.status, upstream.headers, upstream.mode) == (200, held.replayed.headers, held.replayed.mode)
    await held.replayed.aclose()
    assert body.closed == 1


async def test_event_stream_is_read_no_further_than_the_response():
    """A server may keep the stream open after it; nobody waits for its end."""
    first, second = event(notification("notifications/message")), event(result(1, a=2))
    upstream, body = answer(b"id: 1\ndata:\n\n", first[:9], first[9:] + second, None, content_type=EVENTS)
    held = await hold_opening(upstream, b"1")

    assert b'{"a": 2}' == result_of(held)
    assert body.read == 3
    assert [b"id: 1\ndata:\n\n", first[:9], first[9:] + second] == [await anext(held.replayed.body) for _ in range(3)]


async def test_rest_follows_what_was_held_back():
    """The relay sees one body."""
    upstream, _ = answer(event(result(1)), b": more\n\n", b": end\n\n", content_type=EVENTS)
    held = await hold_opening(upstream, b"1")

    assert [event(result(1)), b": more\n\n", b": end\n\n"] == await read(held.replayed)


async def test_replay_goes_on_after_a_cancelled_read(autojump_clock):
    """The relay gives up waiting, sends a heartbeat, and reads again."""
    upstream, body = answer(event(result(1)), None, content_type=EVENTS)
    held = await hold_opening(upstream, b"1")
    await anext(held.replayed.body)
    with trio.move_on_after(1):
        await anext(held.replayed.body)
    body.steps.append(b"more")

    assert b"more" == await anext(held.replayed.body)


@pytest.mark.parametrize(
    ("sent", "found"),
    [(b"1", 1), (b"1.0", 1), (b'"1"', "1"), (b'"\\u00e9"', "é"), (b"null", None)],
)
async def test_response_has_the_id_of_the_request(sent, found):
    """JSON-RPC 2.0, 5: the same value, which may be spelt in another way."""
    for content_type, body in ((JSON, json.dumps(result(found)).encode()), (EVENTS, event(result(found)))):
        held = await hold_opening(answer(body, content_type=content_type)[0], sent)
        assert held.response is not None


@pytest.mark.parametrize(
    "message", [result(2), result("1"), notification("x"), {"jsonrpc": "2.0", "result": {}}, [], 5]
)
@pytest.mark.parametrize("content_type", [JSON, EVENTS])
async def test_anything_else_is_no_response(message, content_type):
    """It is relayed, and opens no session."""
    text = event(message) if content_type == EVENTS else json.dumps(message).encode()
    held = await hold_opening(answer(text, content_type=content_type)[0], b"1")

    assert held.response is None
    assert [text] == await read(held.replayed)


async def test_event_stream_holds_no_bare_document():
    """What is announced as events is read as events."""
    held = await hold_opening(answer(json.dumps(result(1)).encode(), content_type=EVENTS)[0], b"1")
    assert held.response is None


async def test_error_is_a_response():
    """... whose error tells that no session is to be opened."""
    held = await hold_opening(answer(json.dumps(error(1, -32602, "no")).encode())[0], b"1")
    assert held.response is not None
    assert held.response.is_error


@pytest.mark.parametrize(("status", "content_type"), [(200, b"text/html"), (401, JSON), (500, EVENTS), (302, JSON)])
async def test_answer_of_another_kind_is_not_read(status, content_type):
    """It passes as it comes, however long it takes."""
    upstream, body = answer(b'{"jsonrpc":"2.0","id":1,"result":{}}', None, status=status, content_type=content_type)
    held = await hold_opening(upstream, b"1")

    assert (held.response, body.read) == (None, 0)


@pytest.mark.parametrize("content_type", [JSON, EVENTS])
async def test_answer_without_end_is_refused(content_type, monkeypatch):
    """Memory that an upstream can take is bounded."""
    monkeypatch.setattr(opening, "_MAX_HELD", 100)
    await hold_opening(answer(*[b"x"] * 100, content_type=content_type)[0], b"1")
    upstream, body = answer(*[b"x"] * 1000, content_type=content_type)
    with pytest.raises(RemoteProtocolError):
        await hold_opening(upstream, b"1")
    assert body.read == 101


async def test_upstream_that_breaks_off_is_an_error():
    """Nothing has been sent to the client, so it can still be told."""
    upstream, body = answer(b'{"jsonrpc"', UpstreamDisconnected("gone"))
    with pytest.raises(UpstreamDisconnected):
        await hold_opening(upstream, b"1")
    assert body.closed == 0


async def test_cancelled_wait_leaves_the_answer_to_its_owner(autojump_clock):
    """Whoever asked closes it."""
    upstream, body = answer(b"{", None)
    with trio.move_on_after(5) as scope:
        await hold_opening(upstream, b"1")

    assert (scope.cancelled_caught, body.closed) == (True, 0)
