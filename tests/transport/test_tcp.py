import pytest
import trio
from trio.testing import open_stream_to_socket_listener, wait_all_tasks_blocked

from shadowcat.transport.tcp import TcpStream


@pytest.fixture
async def pair():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ours = await open_stream_to_socket_listener(listener)
    peer = await listener.accept()
    async with listener, ours, peer:
        yield TcpStream(ours), peer


class TestReceive:
    async def test_bytes_at_hand_and_bytes_to_come(self, pair):
        ours, peer = pair
        await peer.send_all(b"at hand")
        await wait_all_tasks_blocked(0.01)
        assert await ours.receive_some() == b"at hand"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"to come")
            assert await ours.receive_some(3) == b"to "
        assert await ours.receive_some() == b"come"

    async def test_the_end(self, pair):
        ours, peer = pair
        await peer.send_eof()
        assert await ours.receive_some() == b""

    async def test_cancelled_it_loses_nothing(self, pair):
        ours, peer = pair
        await peer.send_all(b"kept")
        await wait_all_tasks_blocked(0.01)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.receive_some()
        assert scope.cancelled_caught
        assert await ours.receive_some() == b"kept"

    async def test_a_fast_peer_does_not_keep_others_from_running(self, pair):
        ours, peer = pair
        await peer.send_all(b"x" * 100)
        await wait_all_tasks_blocked(0.01)
        turns = 0

        async def count() -> None:
            nonlocal turns
            for _ in range(10):
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(100):
                await ours.receive_some(1)
            assert turns == 10

    async def test_closed_while_waiting(self, pair):
        ours, _ = pair
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ours.receive_some()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    async def test_closed_after_something_was_sent(self, pair):
        ours, _ = pair
        await ours.send_all(b"x")
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()


class TestSend:
    async def test_more_than_the_buffers_take(self, pair):
        ours, peer = pair
        sent = b"0123456789" * 1_000_000
        received = bytearray()

        async def receive() -> None:
            while len(received) < len(sent):
                received.extend(await peer.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await ours.send_all(sent)
        assert received == sent

    async def test_nothing(self, pair):
        ours, _ = pair
        await ours.send_all(b"")

    async def test_a_peer_that_is_gone(self, pair):
        ours, peer = pair
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x" * 10_000_000)

    async def test_cancelled_before_it_begins(self, pair):
        ours, peer = pair
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.send_all(b"no")
        await ours.send_all(b"yes")
        assert await peer.receive_some() == b"yes"
