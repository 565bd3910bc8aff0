"""What a supervisor and a worker say to each other."""

import pytest
import trio
from trio.testing import memory_stream_one_way_pair

from shadowcat.cli.workers.lifeline import Report, Reports, encode_report, receive

SAID = [Report(urls=("http://h:1/mcp", "http://h:2/mcp")), Report(errors=('a "b"\nc', "é"))]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_reports_come_as_they_were_made(size):
    """However the bytes are cut up; the end is the end of the worker."""
    sender, receiver = memory_stream_one_way_pair()
    wire = b"".join(map(encode_report, SAID))
    reports = Reports(receiver)
    async with trio.open_nursery() as nursery:

        async def send():
            async with sender:
                for start in range(0, len(wire), size):
                    await sender.send_all(wire[start : start + size])

        nursery.start_soon(send)
        assert SAID == [await reports.next(), await reports.next()]
        assert await reports.next() is None


async def test_report_cut_short_is_none():
    """A worker that dies in the middle of a sentence has said nothing."""
    sender, receiver = memory_stream_one_way_pair()
    async with sender:
        await sender.send_all(encode_report(SAID[0])[:-1])

    assert await Reports(receiver).next() is None


async def test_waiting_for_a_report_can_be_cancelled():
    """Nothing that was received is lost."""
    sender, receiver = memory_stream_one_way_pair()
    reports = Reports(receiver)
    wire = encode_report(SAID[1])
    await sender.send_all(wire[:5])
    with trio.move_on_after(0) as scope:
        await reports.next()
    assert scope.cancelled_caught
    await sender.send_all(wire[5:])

    assert await reports.next() == SAID[1]


class Broken(trio.abc.ReceiveStream):
    async def receive_some(self, max_bytes=None):
        raise trio.BrokenResourceError

    async def aclose(self):
        raise NotImplementedError


async def test_broken_lifeline_is_the_end_too():
    """So the kernel says it of a process that died with something unread."""
    assert await receive(Broken()) == b""
