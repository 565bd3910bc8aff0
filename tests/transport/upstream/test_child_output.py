"""The reading end of a pipe that may outlive its writer."""

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from shadowcat.transport.upstream.child_output import ChildOutput


@pytest.fixture
async def pipe():
    """An output, and the descriptor that writes to it."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    async with ChildOutput(trio.lowlevel.FdStream(read_end)) as output:
        yield output, write_end
    os.close(write_end)


def fill(write_end: int) -> int:
    size = 0
    while True:
        try:
            size += os.write(write_end, b"x" * 65536)
        except BlockingIOError:
            return size


async def test_what_was_written_before_the_end_is_read(pipe):
    """Though the other end stays open, as a descendant of the child may keep it."""
    output, write_end = pipe
    os.write(write_end, b"last")
    output.finish()
    assert b"last" == await output.receive_some()
    assert b"" == await output.receive_some()


async def test_a_waiting_reader_learns_of_the_end(pipe):
    output, _ = pipe
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert b"" == await output.receive_some()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        output.finish()


async def test_a_writer_that_is_left_cannot_go_on_for_ever(pipe):
    """After the end not more is read than a pipe can hold."""
    output, write_end = pipe
    output.finish()
    size = 0
    while fill(write_end) and (data := await output.receive_some()):
        size += len(data)
    assert 1 << 20 == size


async def test_discarding_takes_the_stream_from_its_reader(pipe):
    """What comes is read, until the end; the reader is told that it is there."""
    output, write_end = pipe
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert b"" == await output.receive_some()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(output.discard)
        await wait_all_tasks_blocked()
        for _ in range(3):
            assert fill(write_end)
            await wait_all_tasks_blocked()
        output.finish()
    assert b"" == await output.receive_some()


async def test_a_cancelled_read_loses_nothing(pipe):
    output, write_end = pipe
    with trio.CancelScope() as scope:
        os.write(write_end, b"kept")
        scope.cancel()
        await output.receive_some()
    assert scope.cancelled_caught
    assert b"kept" == await output.receive_some()


async def test_a_closed_pipe_is_closed(pipe):
    output, _ = pipe
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await output.receive_some()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await output.aclose()
    output.finish()
