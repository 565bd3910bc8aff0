"""Messages over one WebSocket: both ways, and every way it can end."""

import contextlib
from functools import partial

import pytest
import trio
from trio.testing import assert_checkpoints, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage
from wsproto.utilities import generate_accept_token

from shadowcat.errors import StreamBroken, UpstreamUnavailable
from shadowcat.transport.upstream.websocket_link import CLOSE_TIMEOUT, open_link

from .websocket_peer import LIMITS, Peer, meet


class TestMessages:
    async def test_a_message_is_a_text_frame(self, autojump_clock):
        """To the byte, both ways."""
        async with meet() as meeting:
            with assert_checkpoints():
                await meeting.link.send('{"ä": "\U0001f408"}'.encode())
            assert await meeting.peer.receive_text() == '{"ä": "\U0001f408"}'
            await meeting.peer.text('["ä"]')
            with assert_checkpoints():
                assert await meeting.link.receive() == '["ä"]'.encode()
        assert meeting.farewell.code == 1000
        assert trio.current_time() == 0

    async def test_fragments_are_one_message(self, autojump_clock):
        """RFC 6455, 5.4."""
        async with meet() as meeting:
            await meeting.peer.text("[", message_finished=False)
            await meeting.peer.ping()
            await meeting.peer.text("]")
            assert await meeting.link.receive() == b"[]"
            await meeting.peer.expect(Pong)

    async def test_cancelled_sender_cuts_no_message(self, autojump_clock):
        """... although the peer reads it only later."""
        async with meet(pair=lockstep_stream_pair) as meeting:
            with trio.move_on_after(1):
                await meeting.link.send(b"first")
                await meeting.link.send(b"never taken")
            assert trio.current_time() == 1
            assert await meeting.peer.receive_text() == "first"
            await meeting.link.send(b"second")
            assert await meeting.peer.receive_text() == "second"

    async def test_peer_that_does_not_read_makes_the_sender_wait(self, autojump_clock):
        """Back pressure."""
        async with meet(pair=lockstep_stream_pair) as meeting:
            await meeting.link.send(b"taken")
            with trio.move_on_after(5) as scope:
                await meeting.link.send(b"waits")
            assert scope.cancelled_caught
            assert await meeting.peer.receive_text() == "taken"

    async def test_who_does_not_receive_makes_the_peer_wait(self, autojump_clock):
        """Nothing is read ahead but one message; and the peer is not dead meanwhile."""
        async with meet(pair=lockstep_stream_pair, parts=False) as meeting:
            sent = []

            async def talk():
                for number in range(5):
                    await meeting.peer.text(str(number))
                    sent.append(number)

            async def read():
                while True:
                    await meeting.peer.stream.receive_some()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                nursery.start_soon(read)
                await trio.sleep(3600)
                assert len(sent) <= 1
                received = [await meeting.link.receive() for _ in range(5)]
                nursery.cancel_scope.cancel()
            assert received == [b"0", b"1", b"2", b"3", b"4"]

    async def test_cancelled_receiver_loses_nothing(self, autojump_clock):
        """The message that comes later is the next one's."""
        async with meet() as meeting:
            with trio.move_on_after(1):
                await meeting.link.receive()
            await meeting.peer.text("[]")
            assert await meeting.link.receive() == b"[]"

    async def test_message_at_the_limit_passes(self, autojump_clock):
        """In bytes."""
        async with meet() as meeting:
            await meeting.peer.text("ä" * 500)
            assert await meeting.link.receive() == ("ä" * 500).encode()


class TestHandshake:
    async def test_it_carries_headers_and_subprotocol(self, autojump_clock):
        near, far = memory_stream_pair()
        peer = Peer(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._open, near, [(b"authorization", b"Bearer x")])
            request = await peer.accept()
            nursery.cancel_scope.cancel()
        assert (request.host, request.target, request.subprotocols) == ("host:1", "/ws?a=b", ["mcp"])
        assert (b"authorization", b"Bearer x") in request.extra_headers

    async def _open(self, stream, headers=()):
        async with open_link(stream, "host:1", "/ws?a=b", headers, LIMITS, trio.current_time() + 5):
            await trio.sleep_forever()

    async def test_server_need_not_choose_a_subprotocol(self, autojump_clock):
        """Many do not know it."""
        async with meet(subprotocol=None) as meeting:
            await meeting.link.send(b"[]")
            assert await meeting.peer.receive_text() == "[]"

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 1000000\r\n\r\n", "status 401; check the credentials"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "status 403; check the credentials"),
            (b"HTTP/1.0 404 Not Found\r\n\r\nno length", "status 404; check the path"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://x/secret\r\n\r\n", "status 302; set the url"),
            (b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", "status 503; try again later"),
            (b"HTTP/1.1 429 Too Many\r\n\r\n", "status 429; try again later"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "status 200; check that its url"),
            (b"HTTP/1.1 426 Upgrade\r\n\r\n", "status 426; check that its url"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100; check that its url"),
            (b"\x00\x01garbage of some length", "broke the WebSocket handshake"),
            (b"HTTP/1.1 101 Switching\r\n\r\n", "broke the WebSocket handshake"),
            (b"HTTP/1.1 101 Switching\r\nno field\r\n\r\n", "broke the WebSocket handshake"),
            (b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "broke the WebSocket handshake"),
            (b"HTTP/1.1 101 S\r\nSec-WebSocket-Protocol: \xff\r\n\r\n", "broke the WebSocket handshake"),
            (b"HTTP/1.1 101 S\r\nx: " + b"x" * 100_000, "broke the WebSocket handshake"),
            (b"", "did not answer the WebSocket handshake in time"),
            (b"HTTP/1.1", "did not answer the WebSocket handshake in time"),
        ],
    )
    async def test_refusal_is_told_with_its_status(self, autojump_clock, answer, words):
        """... and with what to do; at once, whatever body is to come."""
        near, far = memory_stream_pair()
        await far.send_all(answer)
        with pytest.raises(UpstreamUnavailable, match=words) as excinfo:
            await self._open(near)
        assert "secret" not in str(excinfo.value)
        assert trio.current_time() == (5 if "in time" in words else 0)

    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1", b"HTTP/1.1 101 Switching\r\n"])
    async def test_server_that_hangs_up_is_not_waited_for(self, autojump_clock, sent):
        """trio-websocket would."""
        near, far = memory_stream_pair()
        await far.send_all(sent)
        await far.send_eof()
        with pytest.raises(UpstreamUnavailable):
            await self._open(near)
        assert trio.current_time() == 0

    async def test_connection_that_is_gone(self, autojump_clock):
        near, far = memory_stream_pair()
        await far.aclose()
        with pytest.raises(UpstreamUnavailable):
            await self._open(near)
        assert trio.current_time() == 0

    async def test_subprotocol_that_was_not_offered(self, autojump_clock):
        """RFC 6455, 4.1: the client MUST fail the connection."""

        async def accept(stream):
            request = (await stream.receive_some()).decode("ascii")
            key = request.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
            await stream.send_all(
                b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
                % generate_accept_token(key.encode())
            )

        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, far)
            with pytest.raises(UpstreamUnavailable, match="broke the WebSocket handshake"):
                await self._open(near)
        assert trio.current_time() == 0

    async def test_it_can_be_cancelled(self, autojump_clock):
        near, far = memory_stream_pair()
        with trio.move_on_after(1) as scope:
            await self._open(near)
        assert (scope.cancelled_caught, trio.current_time()) == (True, 1)

    async def test_message_may_follow_the_answer_at_once(self, autojump_clock):
        """In the same packet."""
        near, far = memory_stream_pair()
        peer = Peer(far)

        async def accept():
            await peer.expect(Request)
            answer = peer.protocol.send(AcceptConnection(subprotocol="mcp"))
            await far.send_all(answer + peer.protocol.send(TextMessage(data="[]")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            async with open_link(near, "host:1", "/", (), LIMITS, 5.0) as link:
                assert await link.receive() == b"[]"
                await trio.aclose_forcefully(far)


async def assert_broken(link, words):
    """Check that *link* is of no use any more, and says why, for ever."""
    for _ in range(2):
        with assert_checkpoints(), pytest.raises(StreamBroken, match=words):
            await link.receive()
    with contextlib.suppress(StreamBroken):
        # This one may be taken before the writer notices.
        await link.send(b"[]")
    await wait_all_tasks_blocked()
    for _ in range(2):
        with assert_checkpoints(), pytest.raises(StreamBroken, match=words):
            await link.send(b"[]")


class TestServerEnds:
    async def test_close_is_told_with_code_and_reason(self, autojump_clock):
        """The messages before it arrive."""
        async with meet(parts=False) as meeting:
            await meeting.peer.text("last")
            await meeting.peer.close(4001, "no\nmore")
            assert await meeting.link.receive() == b"last"
            await assert_broken(meeting.link, r"closed with code 4001: 'no\\nmore'$")
            await meeting.peer.expect(CloseConnection)
        assert trio.current_time() == 0

    async def test_close_without_reason(self, autojump_clock):
        async with meet(parts=False) as meeting:
            await meeting.peer.close(1001)
            await assert_broken(meeting.link, "closed with code 1001$")

    async def test_reason_is_bounded(self, autojump_clock):
        """RFC 6455 allows 123 bytes, escapes take more."""
        async with meet(parts=False) as meeting:
            await meeting.peer.close(1011, "\x00" * 123)
            with pytest.raises(StreamBroken) as excinfo:
                await meeting.link.receive()
        assert len(str(excinfo.value)) < 500
        assert str(excinfo.value).isprintable()

    @pytest.mark.parametrize("ending", ["eof", "half", "gone"])
    async def test_connection_that_breaks(self, autojump_clock, ending):
        """Between two messages or within one."""
        async with meet(parts=False) as meeting:
            if ending == "half":
                frame = meeting.peer.protocol.send(TextMessage(data="x" * 100))
                await meeting.peer.stream.send_all(frame[:50])
            if ending == "gone":
                await meeting.peer.stream.aclose()
            else:
                await meeting.peer.stream.send_eof()
            await assert_broken(meeting.link, "broke off")
        assert trio.current_time() == 0

    async def test_who_waits_is_told(self, autojump_clock, nursery):
        """A receiver, and senders."""
        told = []

        async def fail(act):
            with pytest.raises(StreamBroken):
                await act()
            told.append(act)

        async with meet(pair=lockstep_stream_pair, parts=False) as meeting:
            await meeting.link.send(b"in the writer's hands")
            acts = [meeting.link.receive, partial(meeting.link.send, b"1"), partial(meeting.link.send, b"2")]
            for act in acts:
                nursery.start_soon(fail, act)
            await wait_all_tasks_blocked()
            await meeting.peer.stream.aclose()
            await wait_all_tasks_blocked()
            assert len(told) == len(acts)
        assert trio.current_time() == 0

    async def test_binary_message_ends_it(self, autojump_clock):
        """RFC 6455, 7.4.1: 1003, it cannot accept this type of data."""
        async with meet() as meeting:
            await meeting.peer.binary(b"[]")
            await assert_broken(meeting.link, "binary")
        assert meeting.farewell.code == 1003

    @pytest.mark.parametrize("text", ["x" * 1001, "ä" * 501, "\U0001f408" * 900])
    async def test_message_that_is_too_long_ends_it(self, autojump_clock, text):
        """RFC 6455, 7.4.1: 1009; in bytes."""
        async with meet() as meeting:
            await meeting.peer.text(text)
            await assert_broken(meeting.link, "1000 bytes")
        assert meeting.farewell.code == 1009

    @pytest.mark.parametrize(
        "garbage",
        [
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # reserved bits and opcode
            b"\x81\x80maskx",  # a server's frame must not be masked
            b"\x81\x01\xff",  # no UTF-8
            b"\x80\x01x",  # continues nothing
            b"\x89\x7e\x01\x00" + b"x" * 256,  # a ping that is too long
            b"\x88\x01x",  # a close with half a code
            b"\x88\x02\x00\x01",  # ... and with one that is none
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ],
    )
    async def test_garbage_ends_it(self, autojump_clock, garbage):
        """... and nothing else: no exception of a library leaves."""
        async with meet(parts=False) as meeting:
            await meeting.peer.text("[]")
            await meeting.peer.stream.send_all(garbage)
            assert await meeting.link.receive() == b"[]"
            await assert_broken(meeting.link, "closed with code 100|broke off")
        assert trio.current_time() == 0

    async def test_garbage_goes_on(self, autojump_clock):
        """What follows a broken frame is not looked at in earnest."""
        async with meet(parts=False) as meeting:
            for _ in range(10):
                await meeting.peer.stream.send_all(b"\xff" * 1000)
                await wait_all_tasks_blocked()
            await assert_broken(meeting.link, "closed with code 1002")


class TestPings:
    async def test_peer_that_answers_is_kept(self, autojump_clock):
        """For as long as nobody has anything to say."""
        async with meet() as meeting:
            for number in range(1, 100):
                ping = await meeting.peer.expect(Ping)
                assert trio.current_time() == number * 20
                await meeting.peer.send(ping.response())
            await meeting.peer.text("[]")
            assert await meeting.link.receive() == b"[]"

    async def test_silent_peer_is_given_up(self, autojump_clock):
        """A ping interval and a timeout after its last word."""
        async with meet(parts=False) as meeting:
            with pytest.raises(StreamBroken, match="no sign of life for 10 s"):
                await meeting.link.receive()
            assert trio.current_time() == 30
            await assert_broken(meeting.link, "no sign of life")
        assert trio.current_time() == 30

    async def test_peer_that_only_takes_is_given_up(self, autojump_clock, nursery):
        """What is sent to it goes nowhere."""
        async with meet(parts=False) as meeting:

            async def talk():
                with contextlib.suppress(StreamBroken):
                    while True:
                        await meeting.link.send(b"[]")
                        await trio.sleep(1)

            nursery.start_soon(talk)
            with pytest.raises(StreamBroken, match="no sign of life"):
                await meeting.link.receive()
            assert 30 <= trio.current_time() <= 31

    async def test_peer_that_takes_nothing_is_given_up(self, autojump_clock):
        """The ping waits behind a message, and time passes."""
        async with meet(pair=lockstep_stream_pair, parts=False) as meeting:
            await meeting.link.send(b"[]")
            with pytest.raises(StreamBroken, match="no sign of life"):
                await meeting.link.receive()
            assert trio.current_time() == 30

    async def test_message_in_place_of_a_pong_will_do(self, autojump_clock, nursery):
        """The pong may be late behind it."""
        async with meet(parts=False) as meeting:

            async def talk():
                for _ in range(20):
                    await meeting.peer.text("[]")
                    await trio.sleep(9)

            nursery.start_soon(talk)
            for _ in range(20):
                assert await meeting.link.receive() == b"[]"
            with pytest.raises(StreamBroken, match="no sign of life"):
                await meeting.link.receive()
            assert trio.current_time() == 19 * 9 + 10

    async def test_peer_that_closes_but_does_not_read(self, autojump_clock):
        """Our reply to its close waits behind a message; not for ever."""
        async with meet(pair=lockstep_stream_pair, parts=False) as meeting:
            await meeting.link.send(b"[]")
            await meeting.peer.close(1000)
            with pytest.raises(StreamBroken):
                await meeting.link.receive()
            assert trio.current_time() == 20 + CLOSE_TIMEOUT


class TestParting:
    async def test_what_was_sent_arrives_before_the_close(self, autojump_clock):
        """A sender that returned may end the block at once."""
        async with meet(parts=False, pair=lockstep_stream_pair) as meeting:
            await meeting.link.send(b"last words")
            seen = []

            async def read():
                seen.append(await meeting.peer.receive_text())
                seen.append(await meeting.peer.part())

            trio.lowlevel.spawn_system_task(read)  # outlives the block
        assert (seen[0], seen[1].code) == ("last words", 1000)
        assert trio.current_time() == 0

    @pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair])
    async def test_peer_that_does_not_answer_is_left(self, autojump_clock, pair):
        """... after two seconds."""
        async with meet(parts=False, pair=pair) as meeting:
            await meeting.link.send(b"[]")
        assert trio.current_time() == CLOSE_TIMEOUT

    async def test_peer_that_pings_meanwhile(self, autojump_clock):
        """trio-websocket's issue 184: the reader fails, the block does not."""
        async with meet(parts=False) as meeting:
            await meeting.peer.ping()
            await meeting.peer.ping()
        assert trio.current_time() <= CLOSE_TIMEOUT

    async def test_messages_meanwhile_are_dropped(self, autojump_clock):
        async with meet() as meeting:
            for _ in range(5):
                await meeting.peer.text("[]")
        assert trio.current_time() == 0

    async def test_both_close_at_once(self, autojump_clock):
        async with meet(parts=False) as meeting:
            await meeting.peer.close(1001)
        assert trio.current_time() <= CLOSE_TIMEOUT

    async def test_cancelled_block_says_goodbye_too(self, autojump_clock):
        """The peer learns that it was no accident."""
        seen = []

        async def part(peer):
            seen.append(await peer.part())

        with trio.CancelScope() as scope:
            async with meet(parts=False) as meeting:
                trio.lowlevel.spawn_system_task(part, meeting.peer)
                scope.cancel()
                await meeting.link.receive()
        assert scope.cancelled_caught
        assert (seen[0].code, trio.current_time()) == (1000, 0)

    @pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair])
    async def test_cancelled_block_is_left_in_time(self, autojump_clock, pair):
        """Whatever the peer does not do."""
        with trio.move_on_after(3) as scope:
            async with meet(parts=False, pair=pair) as meeting:
                await meeting.link.send(b"[]")
                await meeting.link.receive()
        assert scope.cancelled_caught
        assert trio.current_time() == 3 + CLOSE_TIMEOUT

    async def test_error_of_the_block_comes_as_it_is(self, autojump_clock):
        """Not in a group, and with its cause."""
        cause = ValueError("cause")
        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Peer(far).accept)
            with pytest.raises(KeyError) as excinfo:
                async with open_link(near, "host:1", "/", (), LIMITS, 5.0):
                    raise KeyError("x") from cause
        assert excinfo.value.__cause__ is cause

    async def test_after_the_block_nothing_goes(self, autojump_clock):
        async with meet() as meeting:
            pass
        await assert_broken(meeting.link, "closed|broke off")
