"""Messages on their way to one caller."""

import pytest
import trio
import trio.testing

from shadowcat.errors import UpstreamDisconnected
from shadowcat.protocol import Call, ResponseMode, SSEDecoder
from shadowcat.transport.upstream.pipe_exchange import PipeExchange, answer_with, encode_message


def exchange_with(*own_ids, max_queued=100, is_plain=True):
    exchange = PipeExchange(max_queued, is_plain=is_plain)
    calls = [Call(own_id, own_id, None, "m", exchange) for own_id in own_ids]
    exchange.calls.update(dict.fromkeys(calls))
    return exchange, calls


async def read(body):
    return b"".join([chunk async for chunk in body])


async def test_document_carries_the_headers_given(autojump_clock):
    """And closes the exchange, since nothing else will come."""
    exchange, (call,) = exchange_with(b"1")
    closed = []
    exchange.on_close = lambda closing, unread: closed.append((closing, unread))
    exchange.answer(call, b"{}", None)
    response = await exchange.respond(10, [(b"x", b"y")])

    assert (ResponseMode.JSON, b"2", b"y") == (
        response.mode,
        response.header(b"content-length"),
        response.header(b"x"),
    )
    assert b"{}" == await read(response.body)
    await response.aclose()
    assert [(exchange, [])] == closed


async def test_answer_to_one_of_several_does_not_end_it(autojump_clock):
    """It is over with the last."""
    exchange, (one, two) = exchange_with(b"1", b"2", is_plain=False)
    exchange.answer(one, b"1", None)
    response = await exchange.respond(10)
    assert ResponseMode.SSE_STREAM is response.mode
    assert not exchange.is_over
    exchange.answer(two, b"2", None)

    assert b"event: message\ndata: 1\n\nevent: message\ndata: 2\n\n" == await read(response.body)


@pytest.mark.parametrize("message", [b'{"a":1}', b'{\n"a":1}', b'{\r\n"a":1\r}'])
def test_event_has_the_whole_message(message):
    """Line ends become spaces or line ends; JSON does not mind."""
    events = SSEDecoder().feed(encode_message(message))
    assert [message.replace(b"\r\n", b"\n").replace(b"\r", b"\n")] == [event.data for event in events]


async def test_error_is_raised_before_any_message(autojump_clock):
    """It becomes the answer then."""
    exchange, _ = exchange_with(b"1")
    exchange.fail(UpstreamDisconnected("gone"))
    exchange.fail(UpstreamDisconnected("later"))
    with pytest.raises(UpstreamDisconnected, match="gone"):
        await exchange.respond(10)
    assert await exchange.wait_response() is None


async def test_cancelled_reader_loses_nothing(autojump_clock):
    """It can read on."""
    exchange, _ = exchange_with(b"1")
    response = exchange.as_events()
    with trio.move_on_after(1):
        await anext(response.body)
    exchange.put(b"{}")
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(response.body)

    assert encode_message(b"{}") == await anext(response.body)


async def test_room_is_made_by_reading_or_leaving(autojump_clock):
    """A writer waits for either."""
    exchange, _ = exchange_with(b"1", max_queued=3)
    response = exchange.as_events()
    exchange.put(b"abc")
    assert exchange.is_full
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        await anext(response.body)
    exchange.put(b"abc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        await response.aclose()
    assert not exchange.is_full


async def test_reader_that_waits_is_woken_by_the_end(autojump_clock):
    """By closing too."""
    for end in (PipeExchange.end, PipeExchange.close):
        exchange, _ = exchange_with(b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, exchange.as_events().body)
            await trio.testing.wait_all_tasks_blocked()
            end(exchange)


async def test_answer_of_our_own(autojump_clock):
    """With a body or without."""
    answer = answer_with(400, b"{}")
    assert (400, ResponseMode.JSON, b"{}") == (answer.status, answer.mode, await read(answer.body))
    await answer.aclose()
    empty = answer_with(202)
    assert (ResponseMode.PASSTHROUGH, b"") == (empty.mode, await read(empty.body))
