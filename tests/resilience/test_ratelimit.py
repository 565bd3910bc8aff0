"""Allowances, on the mock clock."""

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.resilience import RateLimit, RateLimiter
from shadowcat.resilience.ratelimit import decide


async def test_a_burst_and_then_the_rate(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=2, burst=3))
    assert [limiter.ask("a").is_allowed for _ in range(5)] == [True] * 3 + [False] * 2
    await trio.sleep(0.5)
    assert [limiter.ask("a").is_allowed for _ in range(2)] == [True, False]
    assert limiter.refused == 3


async def test_what_is_told(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=2, burst=3))
    told = [limiter.ask("a") for _ in range(4)]
    assert [each.remaining for each in told] == [2, 1, 0, 0]
    assert [each.reset_after for each in told] == [0.5, 1.0, 1.5, 1.5]
    assert [each.retry_after for each in told] == [0, 0, 0, 0.5]
    await trio.sleep(told[-1].retry_after)
    assert limiter.ask("a").is_allowed


async def test_keys_do_not_share(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=1))
    assert limiter.ask("a").is_allowed
    assert limiter.ask("b").is_allowed
    assert not limiter.ask("a").is_allowed


async def test_no_more_are_admitted_than_said_however_many_ask_at_once(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=10, burst=5))
    admitted = 0

    async def ask():
        nonlocal admitted
        for _ in range(100):
            admitted += limiter.ask("a").is_allowed
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert admitted == 5 + 9  # a burst, and one each tenth of a second that has passed by 0.99 s


async def test_keys_are_forgotten_when_they_are_as_good_as_new(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=1, burst=2))
    for number in range(1000):
        limiter.ask(f"{number}")
    assert len(limiter) == 1000
    await trio.sleep(2)
    for number in range(600):
        limiter.ask(f"again {number}")
    assert len(limiter) <= 601


async def test_a_flood_of_keys_is_bounded(autojump_clock):
    limiter = RateLimiter(RateLimit(rate=0.001), max_keys=100)
    for number in range(5000):
        limiter.ask(f"{number}")
    assert len(limiter) <= 100
    assert not limiter.ask("4999").is_allowed


@given(
    st.floats(0.01, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=60),
    st.sampled_from([0.0, 1e6, 1.7e9]),
)
def test_never_more_than_the_burst_and_the_rate(rate, burst, waits, start):
    limit = RateLimit(rate=rate, burst=burst)
    used_until, now = -math.inf, start
    admitted: list[float] = []
    for wait in waits:
        now += wait
        used_until, allowance = decide(limit, used_until, now)
        if allowance.is_allowed:
            admitted.append(now)
        else:
            assert allowance.retry_after > 0
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            span = admitted[last] - admitted[first]
            assert last - first + 1 <= burst + span * rate + 1e-3 + rate * 1e-5


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": 1, "burst": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="must be"):
        RateLimit(**wrong)
