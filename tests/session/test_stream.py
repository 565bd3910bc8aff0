"""What is said of streams."""

import attrs
import pytest

from shadowcat.session import LogLimits, OwnerId, SessionId, StreamAppend, StreamId, StreamKey, StreamKind, new_owner_id


def test_every_process_has_an_owner_id_of_its_own():
    """A restarted one too."""
    assert len({new_owner_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "wrong", [{"max_events": 0}, {"max_bytes": 0}, {"max_age": 0}, {"max_streams": 0}, {"max_age": float("nan")}]
)
def test_limits_are_positive(wrong):
    """A limit of nothing is a mistake."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogLimits(**wrong)


def test_append_says_nothing_that_it_was_not_told():
    """No events, no end, and nothing to go on from."""
    key = StreamKey(SessionId("s"), StreamId("axxxxxxxxxxxx"))
    append = StreamAppend(key=key, owner=OwnerId("o"), fence=1, kind=StreamKind.ANSWER, appended_at=1.0)
    assert (append.events, append.last_position, append.resume_id) == ((), 0, None)
    assert (append.request_id, append.sent_id, append.is_ended, append.is_released) == (None, None, False, False)
    assert append == attrs.evolve(append)
