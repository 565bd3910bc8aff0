"""Limits on sessions, checked where they are set."""

import pytest

from shadowcat.session import SessionConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_sessions": 0},
        {"max_idle": 0},
        {"reap_interval": 0},
        {"max_age": 0},
        {"max_pending_per_session": -1},
        {"max_idle": float("nan")},
        {"max_age": float("nan")},
    ],
)
def test_limits_are_positive(wrong):
    """A limit of nothing is a mistake."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SessionConfig(**wrong)


@pytest.mark.parametrize(("max_idle", "reap_interval", "lag"), [(90, 30, 22.5), (3600, 30, 30), (2, 30, 0.5)])
def test_stored_use_lags_by_a_quarter_of_the_idle_time_at_most(max_idle, reap_interval, lag):
    """A short limit is looked at more often."""
    assert SessionConfig(max_idle=max_idle, reap_interval=reap_interval).touch_interval == lag
