"""Sending such that a sender who is cancelled cuts no message."""

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from shadowcat.errors import StreamBroken
from shadowcat.transport.outbox import Outbox


class Peer:
    """Takes messages, a second each, until it breaks."""

    def __init__(self):
        self.seen = []
        self.is_broken = False

    async def write(self, text):
        await trio.sleep(1)
        if self.is_broken:
            raise StreamBroken("gone")
        self.seen.append(text)


@pytest.fixture
async def peer(autojump_clock):
    return Peer()


@pytest.fixture
async def outbox(peer, nursery):
    outbox = Outbox(peer.write)
    nursery.start_soon(outbox.run)
    await wait_all_tasks_blocked()
    return outbox


async def test_messages_are_written_in_order(autojump_clock, outbox, peer):
    """As text, which they are."""
    for message in ("a", "ä", "b"):
        with assert_checkpoints():
            await outbox.put(message.encode())
    await outbox.finish()
    assert peer.seen == ["a", "ä", "b"]


async def test_sender_waits_while_another_message_is_written(autojump_clock, outbox):
    """Back pressure: one message is under way, none is held."""
    await outbox.put(b"a")
    assert trio.current_time() == 0
    await outbox.put(b"b")
    assert trio.current_time() == 1
    await outbox.put(b"c")
    assert trio.current_time() == 2


async def test_cancelled_sender_cuts_nothing(autojump_clock, outbox, peer):
    """Its message was taken, and is written whole; or it was not, and never is."""
    await outbox.put(b"a")
    with trio.move_on_after(0.5) as scope:
        await outbox.put(b"never")
    assert scope.cancelled_caught
    await outbox.put(b"b")
    await outbox.finish()
    assert peer.seen == ["a", "b"]


async def test_cancelled_before_it_begins_it_sends_nothing(autojump_clock, outbox, peer):
    """All or nothing."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await outbox.put(b"never")
    await outbox.finish()
    assert peer.seen == []


async def test_failure_is_told_to_who_waits_and_who_comes_later(autojump_clock, outbox, peer, nursery):
    """The one whose message failed is told by the stream's other side."""
    told = []

    async def send():
        with pytest.raises(StreamBroken):
            await outbox.put(b"b")
        told.append(trio.current_time())

    peer.is_broken = True
    await outbox.put(b"a")
    nursery.start_soon(send)
    nursery.start_soon(send)
    await trio.sleep(2)
    assert told == [1, 1]
    with pytest.raises(StreamBroken):
        await outbox.put(b"c")


async def test_finish_waits_for_what_was_taken(autojump_clock, outbox, peer):
    """... and takes nothing more; again it returns at once."""
    await outbox.put(b"a")
    await outbox.finish()
    assert (peer.seen, trio.current_time()) == (["a"], 1)
    with pytest.raises(StreamBroken):
        await outbox.put(b"b")
    await outbox.finish()
    assert trio.current_time() == 1


async def test_finish_can_be_cancelled(autojump_clock, outbox, peer):
    """A peer that does not read holds nobody."""
    await outbox.put(b"a")
    with trio.move_on_after(0.5):
        await outbox.finish()
    assert trio.current_time() == 0.5
    await outbox.finish()
    assert peer.seen == ["a"]


async def test_cancelled_writer_ends_the_senders(autojump_clock, peer):
    """Whoever waits is told."""
    outbox = Outbox(peer.write)
    async with trio.open_nursery() as writing:
        writing.start_soon(outbox.run)
        await outbox.put(b"a")
        writing.cancel_scope.cancel()
    with pytest.raises(StreamBroken):
        await outbox.put(b"b")
    await outbox.finish()
    assert peer.seen == []


async def test_writer_that_is_cancelled_before_it_begins_ends_the_senders(autojump_clock, peer):
    """Nobody waits for a task that never got a turn."""
    outbox = Outbox(peer.write)
    async with trio.open_nursery() as writing:
        writing.start_soon(outbox.run)
        writing.cancel_scope.cancel()
    with pytest.raises(StreamBroken):
        await outbox.put(b"a")
    await outbox.finish()
