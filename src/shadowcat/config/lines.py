"""On which line of a TOML text each key stands.

``tomllib`` tells values, not where they are.  This looks at a text that it has
accepted, so it need not find anything wrong: only keys, strings and brackets.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""(?:[^\s"'=\]\[.#]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[ \t]*\.[ \t]*)+""")
_STRING = re.compile(
    r'''"""(?:\\.|(?!""")[^\\])*"{3,5}|\'\'\'(?:(?!\'\'\').)*\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''', re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


class KeyLines:
    """The line of each key of *text*, which is valid TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        """For each array of tables, how many there have been."""
        self._line, self._counted = 1, 0
        self._scan()

    def find(self, path: Path) -> int:
        """Return the line of *path*, or of what it is in."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _scan(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[[", self._at):
                self._at += 2
                table = self._begin(self._key(), is_array=True)
                self._at += 2
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._begin(self._key(), is_array=False)
                self._at += 1
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        if (found := pattern.match(self._text, self._at)) is not None:
            self._at = found.end()
        return self._at

    def _key(self) -> Path:
        self._skip(_SPACE)
        start = self._at
        self._skip(_KEY)
        value: object = tomllib.loads(f"{self._text[start : self._at]}=0")
        path: list[str] = []
        while isinstance(value, dict):
            ((name, value),) = value.items()
            path.append(name)
        self._skip(_SPACE)
        return tuple(path)

    def _begin(self, names: Path, *, is_array: bool) -> Path:
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            self._note(path)
            if number == len(names) - 1 and is_array:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
                self._note(path)
        return path

    def _note(self, path: Path) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        self._lines.setdefault(path, self._line)

    def _pair(self, table: Path) -> None:
        names = self._key()
        for number in range(1, len(names) + 1):
            self._note((*table, *names[:number]))
        self._at += 1
        self._value((*table, *names))

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        match self._text[self._at]:
            case "[":
                self._inside("]", path)
            case "{":
                self._inside("}", path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _inside(self, end: str, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip(_BLANK)
            character = self._text[self._at]
            if character == end:
                break
            if character == ",":
                self._at += 1
            elif end == "]":
                self._note((*path, number))
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
        self._at += 1
