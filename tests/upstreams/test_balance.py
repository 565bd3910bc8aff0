"""Who gets the next request."""

import random
from collections import Counter

import attrs
import pytest

from shadowcat.errors import ConfigError
from shadowcat.upstreams.balance import Strategy, make_balancer


@attrs.define
class Place:
    name: str
    share: float = 1.0
    in_flight: int = 0


def picks(strategy, places, count):
    balancer = make_balancer(strategy, random.Random(7))
    return [balancer.pick(places).name for _ in range(count)]


def test_by_turns():
    assert picks(Strategy.ROUND_ROBIN, [Place("a"), Place("b"), Place("c")], 7) == list("abcabca")


def test_weights_are_exact_and_mixed():
    found = picks(Strategy.WEIGHTED, [Place("a", 5), Place("b", 1), Place("c", 1)], 70)
    assert Counter(found) == {"a": 50, "b": 10, "c": 10}
    assert "".join(found[:7]) == "aabacaa"


def test_one_that_goes_and_comes_does_not_collect_turns():
    balancer = make_balancer(Strategy.ROUND_ROBIN)
    a, b = Place("a"), Place("b")
    for _ in range(100):
        assert balancer.pick([a]) is a
    assert Counter(balancer.pick([a, b]).name for _ in range(10)) == {"a": 5, "b": 5}


def test_least_in_flight_for_its_weight():
    assert picks(Strategy.LEAST_IN_FLIGHT, [Place("a", 1, 1), Place("b", 4, 6), Place("c", 1, 2)], 3) == ["b"] * 3


def test_least_in_flight_spreads_what_is_alike():
    found = Counter(picks(Strategy.LEAST_IN_FLIGHT, [Place("a"), Place("b")], 1000))
    assert min(found.values()) > 400


def test_power_of_two_never_takes_the_most_burdened():
    places = [Place("a", 1, 9), Place("b", 1, 1), Place("c", 1, 0)]
    found = Counter(picks(Strategy.POWER_OF_TWO, places, 3000))
    assert found["a"] == 0
    assert found["c"] > found["b"] > 800
    assert picks(Strategy.POWER_OF_TWO, places[:1], 2) == ["a", "a"]


def test_at_random_as_weights_say():
    found = Counter(picks(Strategy.RANDOM, [Place("a", 3), Place("b", 1)], 4000))
    assert 2850 < found["a"] < 3150


def test_a_share_can_be_small():
    """As for one that has just begun to serve again."""
    found = Counter(picks(Strategy.ROUND_ROBIN, [Place("a"), Place("b", 0.1)], 110))
    assert found == {"a": 100, "b": 10}


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(ConfigError, match="'fastest'; choose one of: round-robin, weighted"):
        Strategy.parse("fastest")
    assert Strategy.parse("power-of-two") is Strategy.POWER_OF_TWO
