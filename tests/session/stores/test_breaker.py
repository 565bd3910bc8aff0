"""When calls are kept away from a store that is down, to the second."""

import pytest
import trio

from shadowcat.errors import SessionNotFound, StoreUnavailable
from shadowcat.session.stores.breaker import BreakerConfig, BreakerOpen, BreakerState, CircuitBreaker


@pytest.fixture
def breaker():
    return CircuitBreaker(BreakerConfig())


def is_in(breaker, state):
    return breaker.state is state


def fail(breaker):
    with pytest.raises(StoreUnavailable, match="^down$"), breaker.guard():
        raise StoreUnavailable("down")


def succeed(breaker):
    with breaker.guard():
        pass


def is_refused(breaker):
    try:
        succeed(breaker)
    except BreakerOpen:
        return True
    return False


async def test_five_failures_open_it_for_thirty_seconds(breaker, autojump_clock):
    for _ in range(4):
        fail(breaker)
    assert is_in(breaker, BreakerState.CLOSED)
    fail(breaker)

    assert is_in(breaker, BreakerState.OPEN)
    assert 30.0 == breaker.retry_after
    assert is_refused(breaker)
    await trio.sleep(29.999)
    assert is_refused(breaker)
    await trio.sleep(0.001)
    assert is_in(breaker, BreakerState.HALF_OPEN)
    assert not is_refused(breaker)


async def test_only_failures_in_a_row_count(breaker, autojump_clock):
    for _ in range(20):
        for _ in range(4):
            fail(breaker)
        succeed(breaker)
    assert is_in(breaker, BreakerState.CLOSED)


async def test_not_found_is_an_answer(breaker, autojump_clock):
    """R27: a session that does not exist says nothing against the store; on the contrary."""
    for _ in range(4):
        fail(breaker)
    with pytest.raises(SessionNotFound), breaker.guard():
        raise SessionNotFound("none")
    fail(breaker)
    assert is_in(breaker, BreakerState.CLOSED)


async def open_and_wait(breaker):
    for _ in range(5):
        fail(breaker)
    await trio.sleep(30)


async def test_half_open_admits_three_at_once(breaker, autojump_clock):
    """C-45: not everybody who waited rushes at a store that has just come back."""
    await open_and_wait(breaker)
    with breaker.guard(), breaker.guard(), breaker.guard():
        assert is_refused(breaker)
        assert 0.0 == breaker.retry_after


async def test_three_answers_close_it(breaker, autojump_clock):
    await open_and_wait(breaker)
    succeed(breaker)
    succeed(breaker)
    assert is_in(breaker, BreakerState.HALF_OPEN)
    succeed(breaker)
    assert is_in(breaker, BreakerState.CLOSED)


async def test_one_failure_opens_it_again(breaker, autojump_clock):
    """The thirty seconds begin anew."""
    await open_and_wait(breaker)
    succeed(breaker)
    fail(breaker)
    assert (BreakerState.OPEN, 30.0) == (breaker.state, breaker.retry_after)


async def test_a_call_from_before_says_nothing_about_now(breaker, autojump_clock):
    """Fifty calls that hang together fail together; they count once, and late."""
    late_failure, late_answer = breaker.guard(), breaker.guard()
    late_failure.__enter__()
    late_answer.__enter__()
    await open_and_wait(breaker)
    assert is_in(breaker, BreakerState.HALF_OPEN)

    error = StoreUnavailable("late")
    assert not late_failure.__exit__(StoreUnavailable, error, None)
    late_answer.__exit__(None, None, None)

    assert is_in(breaker, BreakerState.HALF_OPEN)
    with breaker.guard(), breaker.guard(), breaker.guard():
        assert is_refused(breaker)


async def test_a_cancelled_probe_gives_its_place_back(breaker, autojump_clock):
    """It is neither an answer nor a failure."""
    await open_and_wait(breaker)
    for _ in range(10):
        with trio.move_on_after(1), breaker.guard():
            await trio.sleep_forever()
    assert is_in(breaker, BreakerState.HALF_OPEN)
    assert not is_refused(breaker)


async def test_probes_can_be_let_through_early(breaker, autojump_clock):
    for _ in range(5):
        fail(breaker)
    breaker.probe_now()
    assert not is_refused(breaker)
