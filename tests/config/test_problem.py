"""What is wrong is told together."""

import pytest

from shadowcat.config.problem import Problems, SettingsError, problems_of
from shadowcat.errors import ConfigError


def test_all_that_is_wrong_is_raised_once():
    problems = Problems()
    for error in (ConfigError("a"), SettingsError(["b", "c"]), ConfigError("a")):
        with problems.collecting():
            raise error
    with pytest.raises(SettingsError) as excinfo:
        problems.check()
    assert problems_of(excinfo.value) == ("a", "b", "c")
    assert str(excinfo.value) == "a\nb\nc"


def test_nothing_wrong_raises_nothing():
    problems = Problems()
    with problems.collecting():
        pass
    problems.check()


def test_bug_is_no_problem():
    with pytest.raises(ZeroDivisionError), Problems().collecting():
        _ = 1 / 0
