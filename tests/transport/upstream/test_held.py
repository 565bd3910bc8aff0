"""What waits for somebody to listen."""

import pytest

from shadowcat.protocol import Notification, Request
from shadowcat.transport.upstream.held import HeldMessages

NOTE, ASK = Notification("n", b""), Request(b"1", "r", b"")


def test_everything_comes_back_in_order():
    """Requests and notifications as they came; then nothing is held."""
    held = HeldMessages(10, 100)
    for message, text in ((NOTE, b"a"), (ASK, b"b"), (NOTE, b"c"), (ASK, b"d")):
        assert held.add(message, text)
    assert 4 == len(held)
    assert [b"a", b"b", b"c", b"d"] == held.take_all()
    assert [] == held.take_all()


@pytest.mark.parametrize("limits", [(2, 100), (100, 2)])
def test_oldest_notification_gives_way(limits):
    """To a notification and to a request alike."""
    held = HeldMessages(*limits)
    for message, text in ((NOTE, b"a"), (NOTE, b"b"), (NOTE, b"c"), (ASK, b"d")):
        assert held.add(message, text)
    assert 2 == held.dropped
    assert [b"c", b"d"] == held.take_all()


@pytest.mark.parametrize("limits", [(2, 100), (100, 2)])
def test_no_request_gives_way(limits):
    """What comes then is refused; only a notification counts as dropped."""
    held = HeldMessages(*limits)
    assert held.add(ASK, b"a")
    assert held.add(ASK, b"b")
    assert not held.add(ASK, b"c")
    assert 0 == held.dropped
    assert not held.add(NOTE, b"d")
    assert 1 == held.dropped
    assert [b"a", b"b"] == held.take_all()


def test_room_is_free_again_when_all_is_taken():
    """By bytes too."""
    held = HeldMessages(10, 3)
    assert held.add(ASK, b"abc")
    held.take_all()
    assert held.add(ASK, b"abc")
