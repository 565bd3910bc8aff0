import math
import os

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream, wait_all_tasks_blocked

from shadowcat.errors import MessageTooLong, StreamBroken
from shadowcat.transport import LineStream


class _Pipe:
    """A real pipe: what is sent into it can be read back."""

    def __init__(self, max_size: int = 1000, write_timeout: float = math.inf) -> None:
        read_end, write_end = os.pipe()
        self.source = trio.lowlevel.FdStream(read_end)
        self.sink = trio.lowlevel.FdStream(write_end)
        self.lines = LineStream(self.source, self.sink, max_size, write_timeout)

    async def __aenter__(self) -> "_Pipe":
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.source.aclose()
        await self.sink.aclose()


def _received(data: bytes, cuts: list[int], max_size: int = 1000) -> LineStream:
    source = MemoryReceiveStream()
    source.put_data(data)
    source.put_eof()
    pieces = iter(cuts)

    class Pieces(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await source.receive_some(next(pieces, 1))

        async def aclose(self) -> None:
            await source.aclose()

    return LineStream(Pieces(), None, max_size)  # type: ignore[arg-type]  # nothing is sent


class TestReceive:
    @given(st.lists(st.binary(min_size=1, max_size=60)), st.lists(st.integers(1, 200)))
    async def test_lines_come_whole_however_the_bytes_come(self, lines, cuts):
        messages = [kept for line in lines if (kept := line.replace(b"\n", b"").strip())]
        stream = _received(b"".join(line.replace(b"\n", b"") + b"\n" for line in lines), cuts)
        assert [await stream.receive() for _ in messages] == messages
        with pytest.raises(StreamBroken):
            await stream.receive()

    @given(st.integers(1, 40), st.lists(st.integers(1, 50)))
    async def test_a_line_that_is_too_long_is_dropped_alone(self, excess, cuts):
        stream = _received(b"first\n" + b"x" * (20 + excess) + b"\nlast\n", cuts, max_size=20)
        assert await stream.receive() == b"first"
        with pytest.raises(MessageTooLong):
            await stream.receive()
        assert await stream.receive() == b"last"

    async def test_a_line_may_be_as_long_as_allowed(self):
        assert await _received(b"x" * 20 + b"\n", [100], max_size=20).receive() == b"x" * 20

    async def test_an_endless_line_is_not_kept(self):
        stream = _received(b"x" * 100_000, [64] * 10_000, max_size=20)
        with pytest.raises(StreamBroken):
            await stream.receive()
        assert len(stream._buffer) <= 40

    async def test_a_cancelled_receive_loses_nothing(self):
        async with _Pipe() as pipe:
            with trio.move_on_after(0.01):
                await pipe.lines.receive()
            await pipe.lines.send(b"here")
            assert await pipe.lines.receive() == b"here"

    async def test_what_follows_the_last_line_break_is_no_message(self):
        stream = _received(b"whole\npart", [100])
        assert await stream.receive() == b"whole"
        with pytest.raises(StreamBroken):
            await stream.receive()


class TestSend:
    async def test_line_breaks_inside_a_message_become_spaces(self):
        async with _Pipe() as pipe:
            await pipe.lines.send(b'{\r\n"a":\n1}')
            assert await pipe.lines.receive() == b'{  "a": 1}'

    async def test_a_message_larger_than_the_pipe_arrives(self):
        async with _Pipe(max_size=1_000_000) as pipe, trio.open_nursery() as nursery:
            nursery.start_soon(pipe.lines.send, b"x" * 500_000)
            assert await pipe.lines.receive() == b"x" * 500_000

    async def test_after_a_cancelled_send_the_next_messages_are_whole(self):
        async with _Pipe(max_size=1_000_000) as pipe:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pipe.lines.send, b"a" * 500_000)
                    await wait_all_tasks_blocked()
                    nursery.start_soon(pipe.lines.send, b"never begun")
                    await wait_all_tasks_blocked()
                    scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pipe.lines.send, b"next")
                assert await pipe.lines.receive() == b"a" * 500_000
                assert await pipe.lines.receive() == b"next"

    async def test_a_send_cancelled_before_it_begins_sends_nothing(self):
        async with _Pipe() as pipe:
            with trio.CancelScope() as scope:
                scope.cancel()
                await pipe.lines.send(b"no")
            await pipe.lines.send(b"yes")
            assert await pipe.lines.receive() == b"yes"

    async def test_senders_do_not_mix(self):
        async with _Pipe(max_size=1_000_000) as pipe, trio.open_nursery() as nursery:
            sent = [bytes([65 + n]) * 100_000 for n in range(5)]
            for message in sent:
                nursery.start_soon(pipe.lines.send, message)
            assert sorted([await pipe.lines.receive() for _ in sent]) == sent

    async def test_the_other_end_closed(self):
        async with _Pipe() as pipe:
            await pipe.source.aclose()
            with pytest.raises(StreamBroken):
                await pipe.lines.send(b"x")

    async def test_our_end_closed_while_waiting(self):
        async with _Pipe() as pipe, trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(StreamBroken):
                    await pipe.lines.send(b"x" * 500_000)

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await pipe.sink.aclose()


class TestWriteTimeout:
    async def test_the_other_end_reads_nothing(self, autojump_clock):
        """A sender waits so long, and the next ones not at all."""
        async with _Pipe(write_timeout=30) as pipe:
            with pytest.raises(StreamBroken, match="nothing was read at the other end for 30 s"):
                await pipe.lines.send(b"x" * 500_000)
            assert trio.current_time() == 30
            with pytest.raises(StreamBroken):
                await pipe.lines.send(b"y")
            assert trio.current_time() == 30

    async def test_senders_that_give_up_do_not_prolong_it(self, autojump_clock):
        async with _Pipe(write_timeout=30) as pipe:
            for _ in range(2):
                with trio.move_on_after(20):
                    with pytest.raises(StreamBroken):
                        await pipe.lines.send(b"x" * 500_000)
            assert trio.current_time() == 30

    async def test_progress_begins_it_anew(self, autojump_clock):
        """However slow it is."""
        async with _Pipe(max_size=1_000_000, write_timeout=30) as pipe, trio.open_nursery() as nursery:
            nursery.start_soon(pipe.lines.send, b"x" * 500_000)
            while nursery.child_tasks:
                await trio.sleep(29)
                await pipe.source.receive_some(65536)
                await wait_all_tasks_blocked()
            assert trio.current_time() > 100
