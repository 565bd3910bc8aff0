"""How long to wait before trying again, on a clock of the test's own."""

import random

import pytest
import trio

from shadowcat.resilience import Backoff, BackoffConfig


def longest(low, high):
    """Draw the limit, so that it can be seen."""
    assert low == 0.0
    return high


def waits(backoff, count):
    return [backoff.next_wait() for _ in range(count)]


async def test_limits_double_up_to_the_cap(autojump_clock):
    """Each wait is drawn between nothing and its limit."""
    backoff = Backoff(BackoffConfig(), longest)
    assert waits(backoff, 10) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])


async def test_base_and_cap_can_be_set(autojump_clock):
    assert waits(Backoff(BackoffConfig(base=1, cap=3), longest), 4) == [1, 2, 3, 3]
    assert waits(Backoff(BackoffConfig(base=5, cap=3), longest), 2) == [3, 3]


async def test_wait_is_what_was_drawn(autojump_clock):
    """Full jitter: a wait may be next to nothing."""
    assert Backoff(BackoffConfig(), lambda low, high: low).next_wait() == 0.0
    drawn = [Backoff(BackoffConfig(base=1)).next_wait() or 0.0 for _ in range(200)]
    assert all(0 <= wait <= 1 for wait in drawn)
    assert min(drawn) < 0.2 < 0.8 < max(drawn)


async def test_any_number_of_attempts_can_be_made(autojump_clock):
    """The limit stays a number."""
    assert waits(Backoff(BackoffConfig(), longest), 5000)[-1] == 30.0


@pytest.mark.parametrize(
    ("budget", "after", "is_over"), [(10, 9.9, False), (10, 10, True), (10, 11, True), (0, 0, True)]
)
async def test_it_is_over_when_the_budget_is(autojump_clock, budget, after, is_over):
    """Counted from the first failure, however little was waited."""
    backoff = Backoff(BackoffConfig(budget=budget), longest)
    await trio.sleep(1000)
    assert (backoff.next_wait() is None) == (budget == 0)
    await trio.sleep(after)
    assert (backoff.next_wait() is None) == is_over


async def test_progress_begins_anew(autojump_clock):
    """The waits are short again, and the budget whole."""
    backoff = Backoff(BackoffConfig(budget=10), longest)
    waits(backoff, 5)
    await trio.sleep(9)
    backoff.progress()
    await trio.sleep(9)
    assert backoff.next_wait() == 0.2
    await trio.sleep(9.9)
    assert backoff.next_wait() == 0.4
    await trio.sleep(0.1)
    assert backoff.next_wait() is None
    backoff.progress()
    assert backoff.next_wait() == 0.2


async def test_sign_of_life_begins_the_budget_anew_and_waits_moderately(autojump_clock):
    backoff = Backoff(BackoffConfig(budget=10), longest)
    waits(backoff, 8)
    await trio.sleep(9)
    backoff.note_alive()
    assert waits(backoff, 2) == pytest.approx([1.6, 3.2])
    await trio.sleep(9)
    assert backoff.next_wait() is not None
    backoff.progress()
    backoff.note_alive()
    assert backoff.next_wait() == 0.2


async def test_outage_is_ridden_out_within_the_budget(autojump_clock):
    """By whoever waits as told, with a last attempt that was begun in time."""
    backoff = Backoff(BackoffConfig(budget=300), random.Random(1).uniform)
    attempts = 0
    while (wait := backoff.next_wait()) is not None:
        await trio.sleep(wait)
        attempts += 1
    assert 300 <= trio.current_time() <= 330
    assert 15 < attempts < 60


async def test_other_side_may_ask_for_more(autojump_clock):
    """Never for less, and not beyond the budget."""
    backoff = Backoff(BackoffConfig(budget=10), longest)
    assert backoff.next_wait(5.0) == 5.0
    assert backoff.next_wait(0.1) == 0.4
    await trio.sleep(9)
    assert backoff.next_wait(100.0) == 100.0
    await trio.sleep(1)
    assert backoff.next_wait(5.0) is None


@pytest.mark.parametrize("wrong", [{"base": 0}, {"cap": 0}, {"budget": -1}, {"base": float("nan")}])
def test_limits_are_positive(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BackoffConfig(**wrong)
