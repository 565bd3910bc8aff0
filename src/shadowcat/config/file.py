"""Reading a configuration file: values with the lines that they stand on, or everything that is wrong with it."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from .kind import Wrong, typename
from .lines import KeyLines
from .lines import Path as KeyPath
from .problem import SettingsError
from .setting import Setting
from .shape import Shape, shape_of
from .values import Given, Origin

MAX_SIZE = 1024 * 1024
"""Bytes of a file; what is longer is no configuration."""

_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
_LONG_NUMBER = re.compile(r"[0-9_]{1000,}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_file(path: str, settings: Iterable[Setting]) -> dict[str, Given]:
    """Return what the file at *path* says of *settings*, by key.

    Tables whose names the user chooses, and arrays of tables, are there by themselves
    too: an array with its length.

    Raises:
        SettingsError: It cannot be read, is no TOML, or says something that none of
            *settings* can have.  Every problem names file, line and key.
    """
    try:
        with Path(path).open("rb") as opened:
            data = opened.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no file has such a name"
        raise SettingsError([f"{path} cannot be read: {reason}"]) from None
    return read_text(path, data, settings)


def read_text(path: str, data: bytes, settings: Iterable[Setting]) -> dict[str, Given]:
    """As `read_file`, of *data* that were read there."""
    text, parsed = _parse(path, data)
    reading = _Reading(path, KeyLines(text), settings)
    reading.walk(reading.shape, parsed, ())
    if reading.problems:
        raise SettingsError(text for _, text in sorted(reading.problems))
    return reading.given


def _parse(path: str, data: bytes) -> tuple[str, dict[str, object]]:
    if len(data) > MAX_SIZE:
        raise SettingsError([f"{path}:1: the file is longer than {MAX_SIZE} bytes, which no configuration is"])
    try:
        text = data.decode("utf-8-sig")  # as some editors write it
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}:{_line_at(data, error.start)}: this is not UTF-8"]) from None
    # As tomllib takes it, which allows no other line break.
    text = text.replace("\r\n", "\n")
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        line = found[2] if found and found[2] else text.rstrip("\n").count("\n") + 1
        raise SettingsError([f"{path}:{line}: {found[1] if found else error}"]) from None
    except RecursionError:
        raise SettingsError([f"{path}:{_deepest(text)}: this is nested too deeply"]) from None
    except ValueError:
        # The limit of Python on the digits of a number.
        long = _LONG_NUMBER.search(text)
        line = text.count("\n", 0, long.start() if long else 0) + 1
        raise SettingsError([f"{path}:{line}: this number is too long"]) from None


def _line_at(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _deepest(text: str) -> int:
    lines = text.split("\n")
    return 1 + max(range(len(lines)), key=lambda number: sum(map(lines[number].count, "[{.")))


def spell(path: KeyPath) -> str:
    """Write *path* as documentation does: ``servers.a.endpoints[0].url``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Reading:
    def __init__(self, path: str, lines: KeyLines, settings: Iterable[Setting]) -> None:
        settings = tuple(settings)
        self.given: dict[str, Given] = {}
        self.problems: list[tuple[int, str]] = []
        self.shape = shape_of(settings)
        self._path = path
        self._lines = lines
        self._keys = [setting.key for setting in settings if setting.in_file]

    def walk(self, shape: Shape, value: object, path: KeyPath) -> None:
        if shape.setting is not None:
            self._take(shape.setting, value, path)
        elif shape.each is not None:
            if not isinstance(value, list):
                self._complain(path, f"must be an array of tables, not {typename(value)}")
                return
            self._note(path, len(value))
            for number, entry in enumerate(value):
                self.walk(shape.each, entry, (*path, number))
        elif isinstance(value, dict):
            self._walk_table(shape, value, path)
        else:
            self._complain(path, f"must be a table, not {typename(value)}")

    def _walk_table(self, shape: Shape, table: dict[str, object], path: KeyPath) -> None:
        for name, value in table.items():
            inner = (*path, name)
            if (known := shape.named.get(name)) is not None:
                self.walk(known, value, inner)
            elif shape.anything is not None:
                if _NAME.fullmatch(name):
                    self._note(inner, True)
                    self.walk(shape.anything, value, inner)
                else:
                    self._complain(inner, "is no name: write letters, digits, - and _, at most 64 of them")
            else:
                self._complain(inner, f"is not known; {self._suggest(shape, name, path)}")

    def _suggest(self, shape: Shape, name: str, path: KeyPath) -> str:
        prefix = f"{spell(path)}." if path else ""
        if near := difflib.get_close_matches(name, shape.named, 1, 0.6):
            return f"did you mean {prefix}{near[0]}?"
        # Perhaps it stands in the wrong table.
        last = {key.rpartition(".")[2]: key for key in reversed(self._keys)}
        if near := difflib.get_close_matches(name, last, 1, 0.8):
            return f"did you mean {last[near[0]]}?"
        return f"{spell(path) or 'the file'} may have: {', '.join(shape.named)}"

    def _take(self, setting: Setting, value: object, path: KeyPath) -> None:
        try:
            taken = setting.kind.accept(value)
        except Wrong as wrong:
            self._complain((*path, *wrong.path), str(wrong))
            return
        self._note(path, taken)

    def _note(self, path: KeyPath, value: object) -> None:
        key = spell(path)
        self.given[key] = Given(value, f"{self._path}:{self._lines.find(path)}: {key}", Origin.FILE)

    def _complain(self, path: KeyPath, said: str) -> None:
        line = self._lines.find(path)
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in spell(path))
        self.problems.append((line, f"{self._path}:{line}: {shown} {said}"))
