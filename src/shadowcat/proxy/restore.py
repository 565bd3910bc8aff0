"""Giving callers who use one id twice each their own answer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..protocol import RawId

_BEGIN = b'"shadowcat-'
_MINTED = re.compile(rb'"shadowcat-[0-9a-f]{24}"')
_LENGTH = len(_BEGIN) + 25
_PARTIAL = re.compile(rb'"shadowcat-[0-9a-f]{0,24}')


class IdRestorer:
    """Put the caller's ids back wherever minted ones stand in a byte stream.

    A minted id is a long random string, so that its text stands nowhere by
    accident and the stream need not be understood: JSON and event streams are
    treated alike, and every other byte stays what it was.

    Args:
        originals: The callers' ids by the minted ones; may change while the stream lasts.
    """

    def __init__(self, originals: Mapping[RawId, RawId]) -> None:
        self._originals = originals
        self._held = b""

    def restore(self, whole: bytes) -> bytes:
        """Return *whole* with the callers' ids in it; apart from the stream."""
        if not self._originals or _BEGIN not in whole:
            return whole
        return _MINTED.sub(lambda found: self._originals.get(found[0], found[0]), whole)

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on now; keeps back what may be the beginning of a minted id."""
        if not self._originals and not self._held:
            return chunk
        data = self._held + chunk
        end = 0
        for found in _MINTED.finditer(data) if _BEGIN in data else ():
            end = found.end()
        keep = _partial(data[end:])
        self._held = data[len(data) - keep :]
        return self.restore(data[: len(data) - keep])

    def flush(self) -> bytes:
        """Return what was kept back, at the end of the stream."""
        held, self._held = self._held, b""
        return held


def _partial(data: bytes) -> int:
    """Return how many bytes at the end of *data* may begin a minted id."""
    start = data.rfind(b'"', max(len(data) - _LENGTH + 1, 0))
    if start < 0:
        return 0
    rest = data[start:]
    return len(rest) if _BEGIN.startswith(rest) or _PARTIAL.fullmatch(rest) else 0
