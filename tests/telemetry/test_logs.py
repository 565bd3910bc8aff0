"""What a log record looks like when it is written."""

import io
import json
import logging
import re

import pytest

from shadowcat.telemetry import FORMATS, LEVELS, configure_logging


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _root():
    """The root logger is everybody's: pytest's handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(form, *args, stream=None, level="info", **kwargs):
    stream = stream or io.StringIO()
    configure_logging(level, form, stream)
    logging.getLogger("shadowcat.test").warning(*args, **kwargs)
    return stream.getvalue()


def test_json_is_one_object_a_line():
    """Time with its offset, level, logger and message; quotes and line ends are escaped."""
    text = written("json", 'a "%s"\n%s', "b", "é")
    entry = json.loads(text)

    assert text.count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", entry.pop("time"))
    assert {"level": "warning", "logger": "shadowcat.test", "message": 'a "b"\né'} == entry


def test_json_has_the_traceback():
    """A bug keeps its traceback, within the line."""
    try:
        raise ValueError("broken")
    except ValueError:
        text = written("json", "failed", exc_info=True)

    assert text.count("\n") == 1
    assert "ValueError: broken" in json.loads(text)["exception"]


def test_human_lines_are_to_be_read():
    """Time of day, level, logger, message."""
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING shadowcat\.test: hello you\n", written("human", "hello %s", "you"))


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_auto_is_for_people_on_a_terminal(stream, is_json):
    """... and JSON elsewhere."""
    assert is_json is written("auto", "x", stream=stream).startswith("{")


@pytest.mark.parametrize("form", FORMATS)
def test_less_than_the_level_is_not_written(form):
    """The level is a threshold."""
    assert written(form, "x", level="error") == ""
    assert written(form, "x", level="warning") != ""


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_one_of_loggings(level):
    """The names are logging's own, in lower case."""
    configure_logging(level, "json", io.StringIO())
    assert logging.getLogger().level == getattr(logging, level.upper())


def test_configuring_again_replaces():
    """Each record is written once."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "json", first)
    configure_logging("info", "json", second)
    logging.getLogger("x").info("hello")

    assert (0, 1) == (first.getvalue().count("\n"), second.getvalue().count("\n"))


def test_standard_error_is_the_default(capsys):
    """Standard output is for what a command says."""
    configure_logging("info", "human")
    logging.getLogger("x").info("hello")
    captured = capsys.readouterr()

    assert captured.out == ""
    assert captured.err.endswith("x: hello\n")


def test_text_that_is_not_unicode_is_written_nevertheless():
    """A lone surrogate, as in a file name or an escaped string, loses no record."""
    assert "caf" in json.loads(written("json", "caf%s", "\udce9"))["message"]


@pytest.mark.parametrize(("form", "said"), [("json", '"worker":2'), ("human", "WARNING [2] shadowcat.test: hello")])
def test_line_of_one_of_several_processes_says_which(form, said):
    """All write to the same place."""
    stream = io.StringIO()
    configure_logging("info", form, stream, worker=2)
    logging.getLogger("shadowcat.test").warning("hello")

    assert said in stream.getvalue()
