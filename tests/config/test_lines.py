"""On which line each key of a file stands."""

import tomllib

import pytest

from shadowcat.config.lines import KeyLines

TEXT = '''\
# [no.table]
top = 1
"quoted key" = "a # b"
'literal.key' = 'c'
dotted.a . "b.c" = """
[not a table]
x = 1
"""
[table]   # comment
key = [
  1, # ]
  "]",
  { inner = 2,
  "third" = 3 },
]
[table.sub]
esc = "\\" = ["
date = 1979-05-27 07:32:00
lit = \'\'\'
it's ]
\'\'\'
[[array]]
a = 1
[[array]]
a = { b.c = 1, d = [[], [1]] }
[[array.nested]]
x = 1
[array.nested.deep]
y = """five quotes"""""
last = true
'''.replace('{ inner = 2,\n  "third"', '{ inner = 2, "third"')

LINES = [
    (("top",), 2),
    (("quoted key",), 3),
    (("literal.key",), 4),
    (("dotted",), 5),
    (("dotted", "a", "b.c"), 5),
    (("table",), 9),
    (("table", "key"), 10),
    (("table", "key", 0), 11),
    (("table", "key", 1), 12),
    (("table", "key", 2, "third"), 13),
    (("table", "sub"), 15),
    (("table", "sub", "esc"), 16),
    (("table", "sub", "date"), 17),
    (("table", "sub", "lit"), 18),
    (("array",), 21),
    (("array", 0, "a"), 22),
    (("array", 1), 23),
    (("array", 1, "a", "b", "c"), 24),
    (("array", 1, "a", "d", 1, 0), 24),
    (("array", 1, "nested", 0, "x"), 26),
    (("array", 1, "nested", 0, "deep", "y"), 28),
    (("array", 1, "nested", 0, "deep", "last"), 29),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_key_is_found(path, line):
    tomllib.loads(TEXT)
    assert KeyLines(TEXT).find(path) == line


def test_what_is_not_there_is_looked_for_where_it_would_be():
    assert KeyLines(TEXT).find(("table", "sub", "none", 0)) == 15
    assert KeyLines("").find(("none",)) == 1


def paths(value, path=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in inner:
        yield (*path, name)
        yield from paths(entry, (*path, name))


def test_every_key_that_there_is_is_found():
    lines = KeyLines(TEXT)
    assert [] == [path for path in paths(tomllib.loads(TEXT)) if path not in lines._lines]
