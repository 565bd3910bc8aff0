"""Streams as they are kept: what the values say of themselves."""

import pytest

from shadowcat.session import (
    LogLimits,
    OwnerId,
    SessionId,
    StreamAppend,
    StreamEvent,
    StreamId,
    StreamKey,
    StreamKind,
    new_owner_id,
)


def append_of(positions, last_position):
    return StreamAppend(
        key=StreamKey(SessionId("a"), StreamId("s")),
        owner=OwnerId("o"),
        fence=1,
        kind=StreamKind.ANSWER,
        appended_at=0.0,
        events=[StreamEvent(position, None, b"data: x", 0.0) for position in positions],
        last_position=last_position,
    )


@pytest.mark.parametrize(
    ("positions", "last_position", "newest"), [([], 0, 0), ([], 7, 7), ([1, 2], 0, 2), ([1, 2], 2, 2), ([1, 2], 5, 5)]
)
def test_newest_position_covers_the_events(positions, last_position, newest):
    """Whoever leaves last_position out means that of the newest event."""
    assert newest == append_of(positions, last_position).newest_position


def test_owner_ids_differ():
    """Visible ASCII, as it becomes part of a key."""
    ids = {new_owner_id() for _ in range(1000)}
    assert 1000 == len(ids)
    assert all(owner.isascii() and owner.isprintable() for owner in ids)


@pytest.mark.parametrize("field", ["max_events", "max_bytes", "max_age", "max_streams"])
def test_limits_are_above_zero(field):
    """A log that keeps nothing is one that is turned off elsewhere."""
    with pytest.raises(ValueError, match=field):
        LogLimits(**{field: 0})
