"""What a value may be, as text and as TOML; how a file says it wrong is in test_file.py."""

import math

import pytest

from shadowcat.config import kind
from shadowcat.config.kind import Wrong, choice, named, read_secret, typename


@pytest.mark.parametrize(
    ("of", "text", "value"),
    [
        (kind.TEXT, "a", "a"),
        (kind.SECRET, "a", "a"),
        (kind.WHOLE, "-1", -1),
        (kind.SECONDS, "inf", math.inf),
        (kind.FINITE, "1.5", 1.5),
        (kind.BOOLEAN, "Yes", True),
        (kind.BOOLEAN, "0", False),
        (kind.TEXTS, "a", "a"),
        (kind.HEADERS, "A: b: c ", ("A", "b: c")),
        (kind.VARIABLES, "A=b=c", ("A", "b=c")),
        (choice("a", "b"), "b", "b"),
    ],
)
def test_text_is_read(of, text, value):
    assert of.parse(text) == value


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (kind.WHOLE, "1.5"),
        (kind.WHOLE, "9" * 5000),
        (kind.SECONDS, "soon"),
        (kind.FINITE, "inf"),
        (kind.FINITE, "nan"),
        (kind.BOOLEAN, "maybe"),
        (kind.HEADERS, "no colon"),
        (kind.VARIABLES, "=b"),
        (kind.HEADER_VARIABLES, "A=SHADOWCAT_UNSET"),
        (choice("a", "b"), "c"),
    ],
)
def test_text_that_cannot_be_is_refused_in_a_line(of, text):
    with pytest.raises(Wrong) as excinfo:
        of.parse(text)
    assert len(str(excinfo.value)) < 120


@pytest.mark.parametrize(
    ("of", "value", "taken"),
    [
        (kind.TEXT, "a", "a"),
        (kind.SECONDS, 3, 3.0),
        (kind.SECONDS, 10**400, math.inf),
        (kind.TEXTS, [], []),
        (kind.HEADERS, {"A": "b"}, [("A", "b")]),
        (choice("a"), "a", "a"),
    ],
)
def test_value_of_toml_is_taken(of, value, taken):
    assert of.accept(value) == taken


def test_several_in_a_variable_are_separated():
    assert kind.TEXTS.parse_variable(" a , b,") == ["a", "b"]
    assert kind.TEXT.parse_variable("a, b") == "a, b"


@pytest.mark.parametrize(
    "value", [{}, {"env": 1}, {"env": "HOME", "file": "x"}, {"env": "SHADOWCAT_UNSET"}, {"file": "a\0"}, 1, "\0"]
)
def test_secret_that_cannot_be_read_is_refused(value):
    with pytest.raises(Wrong):
        read_secret(value)


def test_secret_file_that_is_no_text_is_not_quoted(tmp_path):
    (tmp_path / "s").write_bytes(b"hid\xffden")
    with pytest.raises(Wrong) as excinfo:
        read_secret({"file": str(tmp_path / "s")})
    assert "hid" not in str(excinfo.value)


def test_name_for_help_changes_nothing_else():
    assert named(kind.SECRET, "URL").metavar == "URL"
    assert named(kind.SECRET, "URL").is_secret


def test_types_are_called_as_toml_calls_them():
    told = [typename(value) for value in (True, 1, 1.5, "", [], {}, object())]
    assert told == ["a boolean", "a number", "a number", "a string", "an array", "a table", "a date or time"]
