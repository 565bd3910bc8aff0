"""What flags, variables and a file say together, and where an error says that it was said."""

import attrs
import pytest

from shadowcat.config.kind import FINITE, HEADERS, TEXT, WHOLE, WORDS
from shadowcat.config.problem import SettingsError
from shadowcat.config.setting import Setting
from shadowcat.config.values import Given, Origin, Values, read_environment
from shadowcat.errors import ConfigError


def _refuse_odd(_self, _attribute, value):
    if value % 2:
        raise ConfigError(f"{value} is odd; take the next one")


@attrs.frozen(kw_only=True)
class Owner:
    needed: str
    low: int = attrs.field(default=2, validator=attrs.validators.ge(1))
    even: int = attrs.field(default=2, validator=_refuse_odd)


SETTINGS = [
    Setting(key="a.low", kind=WHOLE, help="", owner=Owner, flag="--low"),
    Setting(key="a.even", kind=WHOLE, help="", owner=Owner),
    Setting(key="a.needed", kind=TEXT, help="", owner=Owner, flag="--needed"),
]


def values(*layers):
    return Values(SETTINGS, *layers)


def flag(key, value):
    return {key: Given(value, "--" + key.partition(".")[2], Origin.FLAG)}


def line(key, value):
    return {key: Given(value, f"f:1: {key}", Origin.FILE)}


def test_first_layer_goes_first():
    both = values(flag("a.low", 3), line("a.low", 4) | line("a.even", 6))
    assert (both["a.low"], both["a.even"], both["a.needed"]) == (3, 6, None)
    assert (both.origin("a.low"), both.origin("a.even"), both.origin("a.needed")) == (
        Origin.FLAG,
        Origin.FILE,
        Origin.DEFAULT,
    )
    assert (both.source("a.low"), both.source("a.even")) == ("--low", "f:1: a.even")
    assert values().source("a.low") == "--low"
    assert values().source("a.even") == "a.even"


def test_component_is_made_of_what_was_given():
    assert values(line("a.needed", "x"), line("a.low", 5)).make(Owner) == Owner(needed="x", low=5)
    assert values(line("a.low", 5)).make(Owner, needed="y") == Owner(needed="y", low=5)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([flag("a.low", 0)], "--low must be at least 1, not 0; see shadowcat reverse --help"),
        ([line("a.low", 0)], "f:1: a.low must be at least 1, not 0"),
        ([line("a.even", 3)], "f:1: a.even: 3 is odd; take the next one"),
        ([line("a.low", 7), line("a.even", 3)], "f:1: a.even: 3 is odd; take the next one"),
    ],
)
def test_refusal_names_the_value_at_fault(layers, said):
    with pytest.raises(SettingsError) as excinfo:
        values(*layers, line("a.needed", "x")).make(Owner)
    assert str(excinfo.value) == said


def test_refusal_of_what_was_not_given_is_passed_on():
    with pytest.raises(SettingsError, match=r"^3 is odd"):
        values(line("a.low", 5)).make(Owner, needed="x", even=3)


def test_change_is_told_by_key():
    old = values(line("a.low", 5), line("a.needed", "x"))
    assert old.changed(values(line("a.low", 5), line("a.needed", "x"))) == []
    assert old.changed(values(line("a.low", 2), line("a.needed", "x"))) == ["a.low"]
    assert values().changed(values(line("a.low", 2))) == []
    assert values().changed(values(line("servers.x.url", "u"))) == ["servers.x.url"]


ENVIRONMENT = [
    Setting(key="a.words", kind=WORDS, help=""),
    Setting(key="a.headers", kind=HEADERS, help="", flag="--upstream-header"),
    Setting(key="a.age", kind=FINITE, help="", flag="--no-age"),
    Setting(key="b.*.age", kind=FINITE, help=""),
]


def test_variable_says_what_a_flag_would():
    environ = {
        "SHADOWCAT_A_WORDS": "npx -y 'a b'",
        "SHADOWCAT_UPSTREAM_HEADER": "A: b, c\nD: e\n",
        "SHADOWCAT_AGE": "1.5",
        "SHADOWCAT_B_*_AGE": "1",
    }
    given = read_environment(ENVIRONMENT, environ)
    assert {key: each.value for key, each in given.items()} == {
        "a.words": ["npx", "-y", "a b"],
        "a.headers": [("A", "b, c"), ("D", "e")],
        "a.age": 1.5,
    }
    assert given["a.age"].source == "$SHADOWCAT_AGE"


def test_empty_variable_says_nothing():
    assert read_environment(ENVIRONMENT, {"SHADOWCAT_AGE": ""}) == {}


def test_all_wrong_variables_are_named():
    with pytest.raises(SettingsError) as excinfo:
        read_environment(ENVIRONMENT, {"SHADOWCAT_AGE": "x", "SHADOWCAT_A_WORDS": "'"})
    assert excinfo.value.problems == (
        "$SHADOWCAT_A_WORDS cannot be read as words of a shell: No closing quotation",
        "$SHADOWCAT_AGE must be a finite number, not x",
    )
