"""Allowances, on the mock clock."""

from fractions import Fraction

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import ConfigError
from shadowcat.resilience import RateLimit, RateLimiter, read_rate_limit
from shadowcat.resilience.ratelimit import allowance_at


async def test_a_burst_and_then_the_rate(autojump_clock):
    limiter = RateLimiter(RateLimit(2, burst=3))
    assert [limiter.ask("a").is_allowed for _ in range(5)] == [True] * 3 + [False] * 2
    await trio.sleep(0.5)
    assert [limiter.ask("a").is_allowed for _ in range(2)] == [True, False]


async def test_what_is_told(autojump_clock):
    limiter = RateLimiter(RateLimit(2, burst=3))
    told = [limiter.ask("a") for _ in range(4)]
    assert [each.remaining for each in told] == [2, 1, 0, 0]
    assert [each.reset_after for each in told] == [0.5, 1.0, 1.5, 1.5]
    assert [each.retry_after for each in told] == [0, 0, 0, 0.5]
    await trio.sleep(told[-1].retry_after)
    assert limiter.ask("a").is_allowed


async def test_several_at_once_pass_together_or_not_at_all(autojump_clock):
    limiter = RateLimiter(RateLimit(1, burst=5))
    assert limiter.ask("a", 3).remaining == 2
    refused = limiter.ask("a", 3)
    assert (refused.is_allowed, refused.remaining, refused.retry_after) == (False, 2, 1.0)
    assert limiter.ask("a", 2).is_allowed
    assert limiter.ask("a", 6).retry_after == float("inf")


async def test_keys_do_not_share(autojump_clock):
    limiter = RateLimiter(RateLimit(1))
    assert limiter.ask("a").is_allowed
    assert limiter.ask("b").is_allowed
    assert not limiter.ask("a").is_allowed


async def test_no_more_are_admitted_than_said_however_many_ask_at_once(autojump_clock):
    limiter = RateLimiter(RateLimit(10, burst=5))
    admitted = 0

    async def ask():
        nonlocal admitted
        for _ in range(100):
            admitted += limiter.ask("a").is_allowed
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(ask)
    assert admitted == 5 + 9  # a burst, and one each tenth of a second that has passed by 0.99 s


@pytest.mark.parametrize("text", ["7/h burst 1", "59/min burst 1", "7/min burst 3", "30/min", "1000/d burst 1"])
async def test_a_client_that_waits_as_long_as_it_is_told_gets_all_that_it_may(text, autojump_clock):
    """In ten periods neither one more nor one fewer, also where the interval is no whole number of anything."""
    limit = read_rate_limit(text)
    limiter, admitted = RateLimiter(limit), 0
    end = trio.current_time() + limit.period * 10
    while trio.current_time() <= end + 0.01:  # who asks a microsecond late loses that
        allowance = limiter.ask("a")
        admitted += allowance.is_allowed
        await trio.sleep(allowance.retry_after)
    assert admitted == limit.burst + 10 * limit.count


async def test_keys_are_forgotten_when_they_are_as_good_as_new(autojump_clock):
    limiter = RateLimiter(RateLimit(1, burst=2))
    for number in range(1000):
        limiter.ask(f"{number}")
    assert len(limiter) == 1000
    await trio.sleep(2)
    for number in range(600):
        limiter.ask(f"again {number}")
    assert len(limiter) <= 601


async def test_a_flood_of_keys_is_bounded(autojump_clock):
    limiter = RateLimiter(RateLimit(1, 1000), max_keys=100)
    for number in range(5000):
        limiter.ask(f"{number}")
    assert len(limiter) <= 100
    assert not limiter.ask("4999").is_allowed


async def test_the_one_that_came_longest_ago_is_forgotten_first(autojump_clock):
    limiter = RateLimiter(RateLimit(2, 1000), max_keys=2)
    for key in ("a", "b", "a", "c"):
        limiter.ask(key)
    assert not limiter.ask("a").is_allowed


@given(
    st.integers(1, 1000),
    st.integers(1, 100_000),
    st.integers(1, 50),
    st.lists(st.integers(0, 10**8), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_the_rate(count, period, burst, waits):
    """And never fewer: what is refused would have been too much."""
    limit = RateLimit(count, period, burst)
    rate = Fraction(count, period * 10**6)
    limiter, now = RateLimiter(limit), 1_700_000_000_000_000
    admitted: list[int] = []
    left = Fraction(burst)
    for wait in waits:
        left = min(left + wait * rate, Fraction(burst))
        now += wait
        level = limiter.level("a", now)
        allowance = allowance_at(limit, level)
        assert allowance.is_allowed == (left >= 1)
        if allowance.is_allowed:
            limiter.use("a", level + limit.interval, now)
            admitted.append(now)
            left -= 1
            assert allowance.remaining == left // 1
        else:
            assert allowance.retry_after > 0
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + (admitted[last] - admitted[first]) * rate


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 1, "burst": 0},
        {"count": 1, "period": 10**10},
        {"count": 1, "period": 10**6, "burst": 100},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="must be"):
        RateLimit(**wrong)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/s", RateLimit(100, 1, 100)),
        ("60/min burst 20", RateLimit(60, 60, 20)),
        ("1000/h", RateLimit(1000, 3600, 1000)),
        (" 5 / 30s ", RateLimit(5, 30, 5)),
        ("10/day burst 1", RateLimit(10, 86_400, 1)),
    ],
)
def test_a_limit_as_people_write_it(text, limit):
    assert read_rate_limit(text) == limit
    assert read_rate_limit(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "100", "100/x", "0/s", "1.5/s", "-1/s", "10/s burst 0", "10/s burst", "1/0s"])
def test_a_text_that_says_no_limit_is_refused(text):
    with pytest.raises(ConfigError, match="rate limit"):
        read_rate_limit(text)
