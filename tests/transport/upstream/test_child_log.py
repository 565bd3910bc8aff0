"""What is logged of a child's standard error."""

import logging

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.transport.upstream.child_log import MAX_LINE, MAX_LINES, ChildLog, make_visible


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        ("h\u00e9llo \u732b".encode(), "h\u00e9llo \u732b"),
        (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        (b"a\rb", "a\\rb"),
        (b"\xff\xc3(", "\\xff\\xc3("),
        ("a\u202eb\u2028".encode(), "a\\u202eb\\u2028"),
        ("\x85".encode(), "\\x85"),
        (b"\tat x", "    at x"),
    ],
)
def test_what_cannot_be_seen_is_escaped(line, text):
    assert text == make_visible(line)


@given(st.binary())
def test_any_line_is_printable(line):
    assert make_visible(line).isprintable()


@given(st.lists(st.binary(max_size=50), max_size=50))
async def test_chunking_does_not_matter(pieces):
    """The last line is that of the whole text."""
    whole, cut = ChildLog(1), ChildLog(1)
    whole.write(b"".join(pieces))
    whole.close()
    for piece in pieces:
        cut.write(piece)
    cut.close()
    assert whole.last_line == cut.last_line


async def test_each_line_is_a_record_with_the_pid(messages):
    """Blank ones are none, and one that has not ended is one at the end."""
    log = ChildLog(42)
    log.write(b"one\r\n\n  \ntw")
    log.write(b"o\nthree")
    assert ["server process 42: one", "server process 42: two"] == messages()
    log.close()
    assert "server process 42: three" == messages()[-1]
    assert "three" == log.last_line


async def test_a_long_line_is_cut(messages):
    log = ChildLog(42)
    for _ in range(1000):
        log.write(b"x" * 1000)
    assert MAX_LINE == len(log._line)
    log.write(b"\nnext\n")
    assert [f"server process 42: {'x' * MAX_LINE} ...", "server process 42: next"] == messages()


async def test_many_lines_are_counted_instead(autojump_clock, messages):
    """In each second so many are logged; the last line is known all the same."""
    log = ChildLog(42)
    log.write(b"".join(b"line %d\n" % number for number in range(MAX_LINES + 7)))
    assert MAX_LINES == len(messages())
    assert log.is_flooded
    assert f"line {MAX_LINES + 6}" == log.last_line
    assert trio.current_time() + 1 == log.report_time

    await trio.sleep_until(log.report_time)
    log.write(b"later\n")
    assert ["server process 42: 7 lines suppressed", "server process 42: later"] == messages()[MAX_LINES:]
    assert not log.is_flooded


async def test_empty_lines_count_though_they_are_not_logged(messages):
    log = ChildLog(42)
    log.write(b"said\n" + b"\n" * MAX_LINES)
    assert ["server process 42: said"] == messages()
    assert log.is_flooded
    assert "said" == log.last_line


async def test_the_count_is_not_lost_when_nothing_follows(autojump_clock, messages):
    log = ChildLog(42)
    log.write(b"x\n" * (MAX_LINES + 1))
    log.close()
    assert "server process 42: 1 lines suppressed" == messages()[-1]
