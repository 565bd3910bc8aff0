"""What follows from a setting's key, flag and owner."""

import attrs
import pytest

from shadowcat.config.kind import TEXT, WHOLE
from shadowcat.config.setting import Setting, tell


@attrs.frozen(kw_only=True)
class Owner:
    needed: str
    number: int = attrs.field(default=2, validator=attrs.validators.gt(1))
    names: tuple[str, ...] = ()
    part: list = attrs.field(factory=list)


def setting(key, **rest):
    return Setting(key=key, kind=WHOLE, help="", **rest)


@pytest.mark.parametrize(
    ("made", "variable"),
    [
        (setting("a.b_c"), "SHADOWCAT_A_B_C"),
        (setting("a.b", flag="--x-y"), "SHADOWCAT_X_Y"),
        (setting("a.b", flag="--no-x"), "SHADOWCAT_X"),
        (setting("a.*.b"), None),
        (setting("a[].b"), None),
        (setting("a.b", in_environment=False), None),
    ],
)
def test_variable_is_named_by_flag_or_key(made, variable):
    assert made.variable == variable


def test_default_and_bounds_are_the_owners():
    number = setting("a.number", owner=Owner)
    assert (number.default, number.bounds) == (2, {"exclusiveMinimum": 1})
    renamed = setting("a.b.other", owner=Owner, field="number")
    assert (renamed.default, renamed.attribute, renamed.name, renamed.section) == (2, "number", "other", "a.b")
    for name in ("needed", "names", "part"):
        assert (setting(f"a.{name}", owner=Owner).default, setting(f"a.{name}", owner=Owner).bounds) == (None, {})
    assert Setting(key="a.b", kind=TEXT, help="", fallback="x").default == "x"


def test_dest_is_what_argparse_calls_it():
    assert (setting("a.b", flag="--x-y").dest, setting("a.command").dest) == ("x_y", "command")


@pytest.mark.parametrize(
    ("value", "told"), [(None, ""), (True, "true"), (3.0, "3"), (1.5, "1.5"), (4194304, "4194304")]
)
def test_value_is_told_as_people_write_it(value, told):
    assert tell(value) == told
