"""One client over HTTP+SSE, as a message stream."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.errors import SessionBusy, SessionNotFound, StreamBroken
from shadowcat.testing import ProxyClient
from shadowcat.transport import Exchange
from shadowcat.transport.downstream import HttpSseClientStream, endpoint_uri

URI = "/messages?session_id=1"
WAITING = 8


async def open_stream(nursery, heartbeat_interval=15.0):
    """Return our side of a stream and the client's, which has read the first event."""
    stream = HttpSseClientStream(heartbeat_interval)

    async def app(scope, receive, send):
        await stream.run(Exchange(scope, receive, send), URI)

    response = await ProxyClient(app, nursery).send("GET", path="/sse")
    event = await response.next_event()
    assert (event.event, event.data) == (b"endpoint", URI.encode())
    return stream, response


@pytest.mark.parametrize(
    ("root_path", "uri"),
    [
        ("", "/messages?session_id=x"),
        ("/", "/messages?session_id=x"),
        ("/tools", "/tools/messages?session_id=x"),
        ("/a b/é/", "/a%20b/%C3%A9/messages?session_id=x"),
    ],
)
def test_uri_begins_where_the_app_is_mounted(root_path, uri):
    """Clients resolve it against the URL of the stream."""
    assert endpoint_uri(root_path, "/messages", "x") == uri


async def test_head_says_what_it_is(nursery):
    """Nobody on the way may keep or gather the events."""
    _, response = await open_stream(nursery)
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"


async def test_messages_go_out_as_events(nursery):
    """2024-11-05: server messages are sent as SSE message events."""
    stream, response = await open_stream(nursery)

    async def speak():
        for message in (b'{"a":1}', b'{"b":\n2}'):
            await stream.send(message)

    nursery.start_soon(speak)
    events = [await response.next_event() for _ in range(2)]
    assert [(event.event, event.data) for event in events] == [(b"message", b'{"a":1}'), (b"message", b'{"b":\n2}')]


async def test_messages_come_in_in_order(nursery):
    """Also those that wait for room."""
    stream, _ = await open_stream(nursery)
    messages = [b"%d" % number for number in range(20)]

    async def post():
        for message in messages:
            await stream.accept(message, 1)

    nursery.start_soon(post)
    assert [await stream.receive() for _ in messages] == messages


async def test_a_slow_reader_holds_up_the_sender(nursery, autojump_clock):
    """One message is being written, one waits to be; the sender of a third waits."""
    stream, response = await open_stream(nursery)
    sent = []

    async def speak():
        for number in range(3):
            await stream.send(b"%d" % number)
            sent.append(number)

    nursery.start_soon(speak)
    await trio.sleep(1)
    assert sent == [0]
    assert [(await response.next_event()).data for _ in range(3)] == [b"0", b"1", b"2"]
    await wait_all_tasks_blocked()
    assert sent == [0, 1, 2]


async def test_a_sender_that_is_cancelled_cuts_no_message(nursery, autojump_clock):
    """All or nothing, while the client does not read."""
    stream, response = await open_stream(nursery)
    for message in (b"1", b"2", b"3"):
        with trio.move_on_after(1):
            await stream.send(message)
    nursery.start_soon(stream.send, b"4")
    assert [(await response.next_event()).data for _ in range(2)] == [b"1", b"4"]


async def test_silence_is_broken_by_comments(nursery, autojump_clock):
    """... that are no events; a message starts the time anew."""
    stream, response = await open_stream(nursery, heartbeat_interval=10)
    assert await response.read_some() == b": heartbeat\n\n"
    assert trio.current_time() == 10
    await trio.sleep(5)
    nursery.start_soon(stream.send, b"1")
    assert await response.read_some() == b"event: message\ndata: 1\n\n"
    assert await response.read_some() == b": heartbeat\n\n"
    assert trio.current_time() == 25


async def test_a_message_that_is_not_taken_in_time_is_dropped(nursery, autojump_clock):
    """A few may wait; the client is told to send the next again, and it is not there twice."""
    stream, _ = await open_stream(nursery)
    for number in range(WAITING):
        await stream.accept(b"%d" % number, 4)
    with pytest.raises(SessionBusy, match="again"):
        await stream.accept(b"too many", 4)
    assert trio.current_time() == 4
    assert [await stream.receive() for _ in range(WAITING)] == [b"%d" % number for number in range(WAITING)]
    with trio.move_on_after(1) as scope:
        await stream.receive()
    assert scope.cancelled_caught


async def test_leaving_breaks_the_stream(nursery):
    """What was accepted before can be received; nothing is accepted or sent any more."""
    stream, response = await open_stream(nursery)
    await stream.accept(b"1", 1)
    response.leave()
    await wait_all_tasks_blocked()

    assert await stream.receive() == b"1"
    for use in (stream.receive, stream.receive, lambda: stream.send(b"2")):
        with pytest.raises(StreamBroken, match="left"):
            await use()
    with pytest.raises(SessionNotFound):
        await stream.accept(b"3", 1)


async def test_leaving_wakes_whoever_waits(nursery):
    """... on either side of the stream.  What is sent at that very moment may have been taken still."""
    woken: list[type[Exception] | None] = []

    async def use(fn, *args):
        try:
            await fn(*args)
        except (StreamBroken, SessionNotFound) as error:
            woken.append(type(error))
        else:
            woken.append(None)

    stream, response = await open_stream(nursery)
    nursery.start_soon(use, stream.receive)
    await wait_all_tasks_blocked()
    response.leave()
    await wait_all_tasks_blocked()
    assert woken == [StreamBroken]

    stream, response = await open_stream(nursery)
    for _ in range(WAITING):
        await stream.accept(b"1", 1)
    nursery.start_soon(use, stream.accept, b"2", 60)
    await wait_all_tasks_blocked()
    response.leave()
    await wait_all_tasks_blocked()
    assert woken[1:] == [SessionNotFound]

    stream, response = await open_stream(nursery)
    await stream.send(b"3")
    nursery.start_soon(use, stream.send, b"4")
    await wait_all_tasks_blocked()
    response.leave()
    await wait_all_tasks_blocked()
    assert woken[2:] in ([StreamBroken], [None])


async def test_finishing_sends_what_was_taken_and_ends_the_answer(nursery):
    """The client sees a proper end behind the last message."""
    stream, response = await open_stream(nursery)
    await stream.send(b"last")
    nursery.start_soon(stream.finish)

    assert (await response.next_event()).data == b"last"
    with pytest.raises(trio.EndOfChannel):
        await response.next_event()
    with pytest.raises(SessionNotFound):
        await stream.accept(b"1", 1)


async def test_finishing_does_not_wait_for_ever(nursery, autojump_clock):
    """A client that does not read misses the end."""
    stream, _ = await open_stream(nursery)
    await stream.send(b"last")
    await stream.finish()
    assert trio.current_time() == 5


async def test_cancelling_cuts_the_answer(nursery):
    """Then nothing can be done with the stream either."""
    stream = HttpSseClientStream(15)
    scope = trio.CancelScope()

    async def app(asgi, receive, send):
        with scope:
            await stream.run(Exchange(asgi, receive, send), URI)

    response = await ProxyClient(app, nursery).send("GET", path="/sse")
    await response.next_event()
    scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await response.next_event()
    with pytest.raises(StreamBroken):
        await stream.receive()


@pytest.mark.parametrize("method", ["send", "accept", "receive"])
async def test_cancelled_beforehand_does_nothing(nursery, method):
    """Each is a checkpoint, all or nothing."""
    stream, response = await open_stream(nursery)
    if method == "receive":
        await stream.accept(b"kept", 1)
    arguments = {"send": (b"lost",), "accept": (b"lost", 1), "receive": ()}[method]
    with trio.CancelScope() as scope:
        scope.cancel()
        await getattr(stream, method)(*arguments)
    assert scope.cancelled_caught

    if method == "send":
        await stream.send(b"kept")
        assert (await response.next_event()).data == b"kept"
        return
    if method == "accept":
        await stream.accept(b"kept", 1)
    assert await stream.receive() == b"kept"
