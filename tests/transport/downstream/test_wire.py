"""One connection below HTTP: nobody waits for a client without limit, and its leaving is seen."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from shadowcat.transport.downstream.wire import Wire


@pytest.fixture
async def pair():
    """Return a function that gives a wire and the client's socket."""
    opened: list[Wire] = []

    def make(write_timeout: float = 30) -> tuple[Wire, trio.socket.SocketType]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        opened.append(Wire(ours, write_timeout))
        return opened[-1], trio.socket.from_stdlib_socket(theirs)

    yield make
    for wire in opened:
        wire.close()


Pair = Callable[..., tuple[Wire, trio.socket.SocketType]]
MUCH = bytes(10_000_000)


async def read_to_end(theirs: trio.socket.SocketType) -> bytes:
    found = b""
    with trio.fail_after(5):
        while data := await theirs.recv(65536):
            found += data
    return found


async def test_addresses(pair: Pair):
    wire, theirs = pair()
    assert (theirs.getsockname(), theirs.getpeername()) == (wire.client, wire.server)
    theirs.close()


async def test_bytes_and_end(pair: Pair):
    wire, theirs = pair()
    await theirs.send(b"hello")
    assert b"hello" == await wire.receive()
    assert not wire.is_gone
    theirs.close()
    assert b"" == await wire.receive()
    assert wire.is_gone


async def test_receive_can_be_cancelled_and_called_again(pair: Pair):
    wire, theirs = pair()
    with theirs:
        with trio.move_on_after(0.01) as scope:
            await wire.receive()
        assert scope.cancelled_caught
        await theirs.send(b"hello")
        assert b"hello" == await wire.receive()


async def test_close_wakes_who_receives_and_who_sends(pair: Pair):
    wire, theirs = pair()
    received = []

    async def receive():
        received.append(await wire.receive())

    with theirs, trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(wire.send, MUCH)
            nursery.start_soon(wire.send, MUCH)
            await trio.testing.wait_all_tasks_blocked()
            wire.close()
    assert [b""] == received
    with trio.testing.assert_checkpoints():
        assert b"" == await wire.receive()
    with trio.testing.assert_checkpoints():
        await wire.send(b"more")
    wire.close()
    wire.abort()


async def test_leaving_is_seen_behind_what_is_not_read(pair: Pair):
    wire, theirs = pair()
    await theirs.send(b"hello")
    assert await wire.receive_more(5)
    assert b"hello" == wire.buffer
    with trio.move_on_after(0.05) as scope:
        await wire.receive_more(5)
    assert scope.cancelled_caught
    await theirs.send(b"not read")
    theirs.close()
    with trio.fail_after(2):
        assert not await wire.receive_more(5)
    assert b"hello" == wire.buffer


async def test_sends_do_not_mix(pair: Pair):
    wire, theirs = pair()
    letters = [bytes([letter]) * 200_000 for letter in b"abcd"]
    with theirs:
        async with trio.open_nursery() as nursery:
            for data in letters:
                nursery.start_soon(wire.send, data)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wire.end)
            found = await read_to_end(theirs)
        assert sorted(letters) == sorted(found[at : at + 200_000] for at in range(0, len(found), 200_000))


async def test_send_notices_a_cancellation(pair: Pair):
    """Before anything is out, and then nothing is."""
    wire, theirs = pair()
    with theirs, trio.CancelScope() as scope:
        scope.cancel()
        await wire.send(b"hello")
    assert scope.cancelled_caught


async def test_cancelled_send_cuts_the_connection(pair: Pair):
    wire, theirs = pair()
    with theirs:
        with trio.move_on_after(0.05) as scope:
            await wire.send(MUCH)
        assert scope.cancelled_caught
        assert wire.is_gone
        with pytest.raises(ConnectionResetError):
            await read_to_end(theirs)


async def test_stalled_client_is_cut_off(pair: Pair):
    wire, theirs = pair(write_timeout=0.1)
    with theirs:
        with trio.fail_after(2):
            await wire.send(MUCH)
        assert wire.is_gone
        with pytest.raises(ConnectionResetError):
            await read_to_end(theirs)


async def test_send_to_a_client_that_was_reset(pair: Pair):
    wire, theirs = pair()
    theirs.close()
    with trio.fail_after(2):
        while not wire.is_gone:
            await wire.send(b"hello")
            await trio.lowlevel.checkpoint()


async def test_end_waits_for_what_is_under_way(pair: Pair):
    wire, theirs = pair()
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, bytes(500_000))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wire.end)
            await trio.testing.wait_all_tasks_blocked()
            with trio.testing.assert_checkpoints():
                await wire.send(b"too late")
            assert bytes(500_000) == await read_to_end(theirs)


async def test_end_does_not_wait_for_a_stalled_client(pair: Pair):
    wire, theirs = pair()
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, MUCH)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(2):
                await wire.linger()
            wire.abort()


async def test_linger_ends_with_the_client(pair: Pair):
    wire, theirs = pair()
    with theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.linger)
            assert b"" == await read_to_end(theirs)
            await theirs.send(b"ignored")
            theirs.close()
            with trio.fail_after(0.5):
                await trio.testing.wait_all_tasks_blocked()
    assert wire.is_gone
