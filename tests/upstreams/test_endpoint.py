"""What is known of one endpoint, on the mock clock."""

import trio

from shadowcat.resilience import CircuitConfig
from shadowcat.testing import ScriptedUpstream
from shadowcat.upstreams import Endpoint, Health, HealthConfig


def endpoint(**health):
    return Endpoint("a", ScriptedUpstream(), weight=4, health=HealthConfig(**health))


def check(endpoint, *answers):
    for is_good in answers:
        endpoint.note_check(is_good=is_good)
    return endpoint.health


async def test_three_failures_in_a_row_make_it_unhealthy_and_two_successes_healthy(autojump_clock):
    found = endpoint()
    assert check(found, False, False, True, False, False) is Health.HEALTHY
    assert check(found, False) is Health.UNHEALTHY
    assert found.is_dead
    assert not found.is_available
    assert check(found, True, False, True) is Health.UNHEALTHY
    assert check(found, True) is Health.HEALTHY
    assert found.is_available


async def test_slow_start(autojump_clock):
    found = endpoint(slow_start=10)
    assert found.share == 4  # there from the beginning
    check(found, False, False, False, True, True)
    assert found.share == 4 * 0.1
    await trio.sleep(5)
    assert found.share == 4 * 0.5
    await trio.sleep(100)
    assert found.share == 4


async def test_draining(autojump_clock):
    found = endpoint()
    found.is_draining = True
    assert not found.is_available
    assert not found.is_dead


async def test_an_open_circuit(autojump_clock):
    found = Endpoint("a", ScriptedUpstream(), circuit=CircuitConfig(max_failures=1))
    permit = found.circuit.admit()
    assert permit is not None
    found.circuit.fail(permit)
    assert not found.is_available


async def test_statistics(autojump_clock):
    found = endpoint()
    found.begin()
    found.requests += 1
    assert found.statistics().in_flight == 1
    found.finish()
    seen = found.statistics()
    assert (seen.name, seen.in_flight, seen.requests, seen.failures) == ("a", 0, 1, 0)
    assert (seen.health, seen.circuit.value, seen.is_draining) == (Health.HEALTHY, "closed", False)
