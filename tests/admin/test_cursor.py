"""Places in a listing."""

import pytest

from shadowcat.admin.cursor import Cursors
from shadowcat.errors import InvalidRequest


def test_a_place_can_be_gone_back_to_and_says_nothing():
    cursors = Cursors(10)
    name = cursors.put("the id of a session")
    assert ["the id of a session"] * 2 == [cursors.get(name), cursors.get(name)]
    assert "session" not in name


@pytest.mark.parametrize("name", ["", "nonsense", "\ud800", "x" * 10_000])
def test_an_unknown_place_is_told_how_to_go_on(name):
    with pytest.raises(InvalidRequest, match="list again without a cursor"):
        Cursors(10).get(name)


def test_the_place_that_was_used_longest_ago_is_forgotten():
    cursors = Cursors(2)
    first, second = cursors.put("first"), cursors.put("second")
    cursors.get(first)
    cursors.put("third")
    assert "first" == cursors.get(first)
    with pytest.raises(InvalidRequest):
        cursors.get(second)
