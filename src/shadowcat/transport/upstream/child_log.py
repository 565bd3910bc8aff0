"""What a child process says on its standard error, as log records."""

from __future__ import annotations

import logging
import math

import trio

log = logging.getLogger(__name__)

MAX_LINE = 2000
"""Bytes of a line that are logged."""

MAX_LINES = 100
"""Lines that are logged in a second."""


def make_visible(line: bytes) -> str:
    """Return *line* as text that does nothing to a terminal: what cannot be seen is escaped."""
    text = line.decode("utf-8", "backslashreplace").expandtabs(4)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ChildLog:
    """Logs lines at the level info, some of them if there are many."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._line = bytearray()
        self._is_cut = False
        self._window_end = -math.inf
        self._logged = 0
        self._suppressed = 0
        self._last = b""

    @property
    def last_line(self) -> str:
        """The last line that is not blank, as it can be shown; empty if there was none."""
        return make_visible(self._last)

    @property
    def report_time(self) -> float:
        """When `report` has something to say, in Trio's time."""
        return self._window_end if self._suppressed else math.inf

    @property
    def is_flooded(self) -> bool:
        """Whether lines are being suppressed now."""
        return self._suppressed > 0

    def write(self, data: bytes) -> None:
        """Log the lines that *data* completes."""
        first, *others = data.split(b"\n")
        self._keep(first)
        for piece in others:
            self._end_line()
            self._keep(piece)

    def close(self) -> None:
        """Log what is left: a line that has not ended, and how many were not logged."""
        if self._line:
            self._end_line()
        self.report()

    def report(self) -> None:
        """Log how many lines were not, if any."""
        if self._suppressed:
            log.info("server process %d: %d lines suppressed", self._pid, self._suppressed)
            self._suppressed = 0

    def _keep(self, piece: bytes) -> None:
        room = MAX_LINE - len(self._line)
        self._line += piece[:room]
        self._is_cut = self._is_cut or len(piece) > room

    def _end_line(self) -> None:
        line, is_cut = bytes(self._line).rstrip(), self._is_cut
        self._line.clear()
        self._is_cut = False
        self._last = line or self._last
        if trio.current_time() >= self._window_end:
            self.report()
            self._window_end = trio.current_time() + 1
            self._logged = 0
        if self._logged == MAX_LINES:
            self._suppressed += 1
            return
        self._logged += 1
        if line:
            log.info("server process %d: %s%s", self._pid, make_visible(line), " ..." if is_cut else "")
