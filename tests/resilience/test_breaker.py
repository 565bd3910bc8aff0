"""Circuits, on the mock clock."""

import pytest
import trio

from shadowcat.resilience import Circuit, CircuitConfig, CircuitState


@pytest.fixture
def circuit():
    return Circuit(CircuitConfig(max_failures=3, max_probes=2, open_time=30, window=10, min_calls=10))


def state(circuit):
    """Return the state as it is at this moment."""
    return circuit.state


def end(circuit, *outcomes):
    for is_good in outcomes:
        permit = circuit.admit()
        assert permit is not None
        (circuit.succeed if is_good else circuit.fail)(permit)


async def test_failures_in_a_row_open_it(autojump_clock, circuit):
    end(circuit, False, False, True, False, False)
    assert state(circuit) is CircuitState.CLOSED
    end(circuit, False)
    assert state(circuit) is CircuitState.OPEN
    assert circuit.admit() is None
    assert circuit.retry_after == 30


async def test_a_rate_of_failures_opens_it(autojump_clock, circuit):
    end(circuit, *[True, False] * 4, True)
    end(circuit, False)
    assert state(circuit) is CircuitState.CLOSED  # half of ten is not more than half
    end(circuit, False)
    assert state(circuit) is CircuitState.OPEN


async def test_calls_of_long_ago_do_not_count(autojump_clock, circuit):
    end(circuit, *[True, False] * 4)
    await trio.sleep(11)
    end(circuit, *[True, False] * 4, False)
    assert state(circuit) is CircuitState.CLOSED  # nine calls of late


async def test_the_window_moves_on_in_slices(autojump_clock, circuit):
    for _ in range(30):
        end(circuit, True, True, False)
        await trio.sleep(1)
    end(circuit, False, True, False)
    assert state(circuit) is CircuitState.CLOSED


async def test_half_open_admits_as_many_probes_as_said_and_no_more(autojump_clock, circuit):
    end(circuit, False, False, False)
    await trio.sleep(29.9)
    assert circuit.admit() is None
    await trio.sleep(0.1)
    permits = [circuit.admit() for _ in range(1000)]
    assert [permit is not None for permit in permits] == [True] * 2 + [False] * 998
    assert state(circuit) is CircuitState.HALF_OPEN
    circuit.succeed(permits[0])
    assert circuit.admit() is None  # the other probe is still under way
    circuit.succeed(permits[1])
    assert state(circuit) is CircuitState.CLOSED


async def test_concurrent_callers_get_no_more_probes_either(autojump_clock, circuit):
    end(circuit, False, False, False)
    await trio.sleep(30)
    admitted = 0

    async def call():
        nonlocal admitted
        permit = circuit.admit()
        if permit is not None:
            admitted += 1
            await trio.sleep(1)
            circuit.succeed(permit)

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(call)
    assert admitted == 2
    assert state(circuit) is CircuitState.CLOSED


async def test_a_failed_probe_opens_it_again(autojump_clock, circuit):
    end(circuit, False, False, False)
    await trio.sleep(30)
    end(circuit, True)
    end(circuit, False)
    assert state(circuit) is CircuitState.OPEN
    assert circuit.opened == 2
    await trio.sleep(30)
    end(circuit, True, True)
    assert state(circuit) is CircuitState.CLOSED


async def test_a_probe_that_was_cancelled_gives_its_place_back(autojump_clock, circuit):
    end(circuit, False, False, False)
    await trio.sleep(30)
    for _ in range(10):
        permit = circuit.admit()
        assert permit is not None
        circuit.release(permit)
    assert circuit.has_room


async def test_a_call_of_before_says_nothing(autojump_clock, circuit):
    """It was let through while the circuit was closed, and ends when that is long past."""
    old = [circuit.admit() for _ in range(2)]
    end(circuit, False, False, False)
    circuit.fail(old[0])
    await trio.sleep(30)
    assert state(circuit) is CircuitState.HALF_OPEN
    circuit.fail(old[1])
    circuit.release(old[1])
    assert state(circuit) is CircuitState.HALF_OPEN
    end(circuit, True, True)
    assert state(circuit) is CircuitState.CLOSED


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_failures": 0},
        {"max_failure_rate": 0},
        {"max_failure_rate": 1.1},
        {"min_calls": 0},
        {"window": 0},
        {"open_time": 0},
        {"max_probes": 0},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CircuitConfig(**wrong)


async def test_probes_of_which_nothing_comes_do_not_keep_it_half_open_for_ever(autojump_clock, circuit):
    """Some servers begin the answer to a listening GET with its first event, however late that is."""
    end(circuit, False, False, False)
    await trio.sleep(30)
    hung = [circuit.admit(), circuit.admit()]
    assert circuit.retry_after == 1
    await trio.sleep(29.9)
    assert circuit.admit() is None
    await trio.sleep(0.1)
    others = [circuit.admit() for _ in range(100)]
    assert [permit is not None for permit in others] == [True] * 2 + [False] * 98
    circuit.fail(hung[0])  # says nothing any more
    for permit in others[:2]:
        circuit.succeed(permit)
    assert state(circuit) is CircuitState.CLOSED
