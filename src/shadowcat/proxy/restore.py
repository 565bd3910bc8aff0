"""Giving callers who use one id twice each their own answer."""

from __future__ import annotations

from ..protocol import RawId


class IdRestorer:
    """Put the caller's id back wherever the minted one stands in a byte stream.

    A minted id is a long random string, so that its text stands nowhere by
    accident and the stream need not be understood: JSON and event streams are
    treated alike, and every other byte stays what it was.
    """

    def __init__(self, minted: RawId, original: RawId) -> None:
        self._minted = minted
        self._original = original
        self._held = b""

    def restore(self, whole: bytes) -> bytes:
        """Return *whole* with the caller's id in it; apart from the stream."""
        return whole.replace(self._minted, self._original)

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on now; keeps back a beginning of the minted id."""
        *before, rest = (self._held + chunk).split(self._minted)
        keep = self._partial(rest)
        self._held = rest[len(rest) - keep :]
        return self._original.join([*before, rest[: len(rest) - keep]])

    def flush(self) -> bytes:
        """Return what was kept back, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _partial(self, data: bytes) -> int:
        start = data.rfind(self._minted[:1], max(len(data) - len(self._minted) + 1, 0))
        while start >= 0:
            if self._minted.startswith(data[start:]):
                return len(data) - start
            start = data.rfind(self._minted[:1], max(len(data) - len(self._minted) + 1, 0), start)
        return 0
