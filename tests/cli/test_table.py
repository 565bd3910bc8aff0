"""What is printed."""

import os
import subprocess
import sys

import pytest

from shadowcat.cli.table import as_json, as_lines, as_table, cell


def test_columns_are_as_wide_as_they_must_be():
    rows: list[dict[str, object]] = [{"a": "long enough", "b": 1}, {"a": None, "b": 22}]
    assert "FIRST        B\nlong enough  1\n-            22" == as_table(rows, {"FIRST": "a", "B": "b"}, "none")
    assert "none" == as_table([], {"FIRST": "a"}, "none")


def test_lines_have_names_people_can_read():
    assert "a name  1\nb       x, y" == as_lines({"a_name": 1, "b": ["x", "y"]})


def test_json_can_be_read_again():
    assert '{\n  "a": [\n    1\n  ]\n}' == as_json({"a": [1]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        ([], "-"),
        ({"name": "c", "version": None}, "c"),
        ({}, "-"),
        ("\x1b[31mred\x07\n\u202etxt", "?[31mred???txt"),
    ],
)
def test_nothing_is_said_that_a_terminal_would_obey(value, text):
    """A client says itself what it is called."""
    assert text == cell(value)


@pytest.mark.slow
def test_a_reader_that_has_had_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    script = "from shadowcat.cli.table import say; say('x'); say('y')"
    with os.fdopen(write, "wb") as closed:
        run = subprocess.run(
            [sys.executable, "-c", script], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=True
        )
    assert b"" == run.stderr
