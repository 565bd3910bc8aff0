"""A scripted server on a pipe."""

import pytest
import trio

from shadowcat.errors import MessageTooLong, StreamBroken, UpstreamUnavailable
from shadowcat.testing import ScriptedConnector, result


async def test_messages_pass_both_ways(autojump_clock):
    """And the block says when it is left."""
    connector = ScriptedConnector()
    async with connector.open([(b"a", b"b")]) as stream, trio.open_nursery() as nursery:
        server = await connector.next_stream()
        assert [(b"a", b"b")] == server.headers
        await stream.send(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{}}')
        nursery.start_soon(server.answer)
        assert b'{"jsonrpc": "2.0", "id": 1, "result": {}}' == await stream.receive()
        await stream.send(b'{"jsonrpc":"2.0","id":2,"method":"initialize"}')
        nursery.start_soon(server.answer_initialize)
        assert b"2025-11-25" in await stream.receive()
    assert stream.closed.is_set()
    assert (1, 0) == (connector.opened, connector.open_now)


async def test_stream_breaks_for_the_reason_given(autojump_clock):
    """In both directions, and again."""
    connector = ScriptedConnector()
    async with connector.open(()) as stream:
        stream.stop("because")
        for _ in range(2):
            with pytest.raises(StreamBroken, match="because"):
                await stream.receive()
        with pytest.raises(StreamBroken):
            await stream.send(b"{}")


async def test_overlong_message_is_an_error_once(autojump_clock):
    """What comes then is read."""
    async with ScriptedConnector().open(()) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.overflow)
        with pytest.raises(MessageTooLong):
            await stream.receive()
        nursery.start_soon(stream.say, result(1))
        assert b'{"jsonrpc": "2.0", "id": 1, "result": {}}' == await stream.receive()


async def test_stalled_server_does_not_read(autojump_clock):
    """Until it goes on."""
    async with ScriptedConnector().open(()) as stream, trio.open_nursery() as nursery:
        stream.stalled = trio.Event()
        nursery.start_soon(stream.send, b'{"a":1}')
        with trio.move_on_after(5) as waiting:
            await stream.next_message()
        assert waiting.cancelled_caught
        stream.stalled.set()
        assert {"a": 1} == await stream.next_message()


async def test_opening_and_closing_take_the_time_they_are_given(autojump_clock):
    """Closing even if it is cancelled."""
    connector = ScriptedConnector()
    connector.open_delay, connector.close_delay = 2, 3
    with trio.move_on_after(4):
        async with connector.open(()):
            await trio.sleep_forever()
    assert trio.current_time() == 7
    connector.failure = UpstreamUnavailable("no")
    with pytest.raises(UpstreamUnavailable):
        async with connector.open(()):
            pass
