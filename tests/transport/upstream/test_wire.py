"""The connection below a WebSocket: life, and the handshake's answer."""

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from shadowcat.transport.upstream.wire import PIECE_SIZE, Wire

PING = b"\x89\x80mask"


class Ends:
    """Counts how often it was told of the end."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def ends():
    return Ends()


class TestStatus:
    @pytest.mark.parametrize("version", [b"0", b"1"])
    @pytest.mark.parametrize("step", [1, 5, 100])
    async def test_upgrade_passes(self, autojump_clock, ends, version, step):
        """In however many pieces."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)
        answer = b"HTTP/1.%s 101 Switching\r\n\r\nHTTP/1.1 404" % version
        received = b""
        for start in range(0, len(answer), step):
            await far.send_all(answer[start : start + step])
            received += await wire.receive_some()
        assert (received, wire.status, ends.count) == (answer, 101, 0)

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            (b"HTTP/1.1 404 Not Found\r\n", 404),
            (b"HTTP/1.0 302", 302),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n", 103),
            (b"HTTP/2.0 101 x", 0),
            (b"HTTP/1.1 999 x", 0),
            (b"SSH-2.0-OpenSSH_9.9\r\n", 0),
        ],
    )
    @pytest.mark.parametrize("step", [1, 100])
    async def test_anything_else_is_the_end(self, autojump_clock, ends, answer, status, step):
        """Whatever body follows, for however long."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)
        data = None
        for start in range(0, len(answer), step):
            await far.send_all(answer[start : start + step])
            data = await wire.receive_some()
            if ends.count:
                break
        assert (data, wire.status, ends.count) == (b"", status, 1)

    async def test_end_is_told(self, autojump_clock, ends):
        """Orderly, or not."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)
        await far.send_eof()
        assert (await wire.receive_some(), wire.status, ends.count) == (b"", None, 1)

        near.receive_stream.close()
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive_some()
        assert ends.count == 2

    async def test_it_closes_the_stream(self, autojump_clock, ends):
        """trio-websocket closes what it was given."""
        near, far = memory_stream_pair()
        await Wire(near, ends).aclose()
        assert await far.receive_some() == b""


async def silence(wire, limit):
    """Return the time at which *wire* was given up."""
    with wire.expect_life(limit) as scope:
        await trio.sleep(1000)
    assert scope.cancelled_caught is (trio.current_time() < 1000)
    return trio.current_time()


class TestLife:
    async def test_silent_peer_is_dead(self, autojump_clock, ends, nursery):
        """While we read, and the ping is out."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)
        nursery.start_soon(wire.receive_some)
        await wait_all_tasks_blocked()
        await wire.send_all(PING)
        assert await silence(wire, 20) == 20
        nursery.cancel_scope.cancel()

    async def test_every_byte_is_life(self, autojump_clock, ends, nursery):
        """A pong that comes behind a long message is late, and its peer is not dead."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)

        async def read():
            while True:
                await wire.receive_some()

        async def talk():
            for _ in range(5):
                await trio.sleep(15)
                await far.send_all(b"x")

        nursery.start_soon(read)
        nursery.start_soon(talk)
        assert await silence(wire, 20) == 5 * 15 + 20
        nursery.cancel_scope.cancel()

    async def test_what_the_kernel_takes_is_no_life_once_the_ping_is_out(self, autojump_clock, ends, nursery):
        """It takes megabytes for a peer that is gone."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)

        async def write():
            with trio.move_on_after(100):
                while True:
                    await trio.sleep(1)
                    await wire.send_all(PING)

        nursery.start_soon(wire.receive_some)
        nursery.start_soon(write)
        assert await silence(wire, 20) == 21
        nursery.cancel_scope.cancel()

    async def test_peer_that_reads_slowly_is_alive_until_it_stops(self, autojump_clock, ends, nursery):
        """The ping waits behind the message; each piece that goes is progress."""
        near, far = lockstep_stream_pair()
        wire = Wire(near, ends)

        async def read():
            for _ in range(5):
                await trio.sleep(15)
                left = PIECE_SIZE
                while left:
                    left -= len(await far.receive_some(left))

        nursery.start_soon(wire.receive_some)
        nursery.start_soon(wire.send_all, bytes(8 * PIECE_SIZE))
        nursery.start_soon(read)
        assert await silence(wire, 20) == 5 * 15 + 20
        nursery.cancel_scope.cancel()

    async def test_time_stands_while_nobody_takes_what_came(self, autojump_clock, ends, nursery):
        """We do not read then, and cannot see the pong."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)

        async def read_late():
            await trio.sleep(100)
            await wire.receive_some()

        nursery.start_soon(read_late)
        assert await silence(wire, 20) == 120
        nursery.cancel_scope.cancel()

    async def test_time_passes_for_a_write_that_is_stuck(self, autojump_clock, ends, nursery):
        """... also when we do not read."""
        near, far = lockstep_stream_pair()
        wire = Wire(near, ends)
        nursery.start_soon(wire.send_all, b"x")
        await wait_all_tasks_blocked()
        assert await silence(wire, 20) == 20
        nursery.cancel_scope.cancel()

    async def test_nothing_is_expected_outside_the_block(self, autojump_clock, ends, nursery):
        """Silence between two pings is normal."""
        near, far = memory_stream_pair()
        wire = Wire(near, ends)
        with wire.expect_life(20) as scope:
            await trio.sleep(1)
        nursery.start_soon(wire.receive_some)
        await trio.sleep(1000)
        assert not scope.cancelled_caught
        nursery.cancel_scope.cancel()

    @pytest.mark.parametrize("size", [0, 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE])
    async def test_all_is_sent(self, autojump_clock, ends, size):
        """To the byte; of any kind of buffer."""
        near, far = memory_stream_pair()
        await Wire(near, ends).send_all(bytearray(b"x" * size))
        await near.send_eof()
        assert len(b"".join([data async for data in far])) == size
