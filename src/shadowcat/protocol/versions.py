"""The protocol revisions, and the two eras they fall into."""

from __future__ import annotations

import enum
import re
from typing import Final

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that open a session with ``initialize``, oldest first."""

MODERN_VERSIONS: Final = ("2026-07-28",)
"""Revisions in which every request describes itself, oldest first."""

BATCH_VERSION: Final = "2025-03-26"
"""The one revision that has JSON-RPC batches."""

PRIMING_VERSION: Final = "2025-11-25"
"""The first revision whose clients know events that have an id and empty data."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Era(enum.Enum):
    """How a client and a server come to an understanding."""

    LEGACY = "legacy"
    """By an ``initialize`` handshake that opens a session."""

    MODERN = "modern"
    """By metadata on each request; there are no sessions."""


def era_of(version: str) -> Era | None:
    """Return the era of *version*, or None if it is no revision of either.

    A date later than the newest revision known here is modern: the upstream
    decides whether it speaks it.
    """
    if version in LEGACY_VERSIONS:
        return Era.LEGACY
    if version >= MODERN_VERSIONS[0] and _DATE.fullmatch(version):
        return Era.MODERN
    return None
