"""One JSON-RPC message as it passed, for keeping."""

from __future__ import annotations

import enum

import attrs


class Direction(enum.Enum):
    """Which way a message went."""

    TO_UPSTREAM = "to_upstream"
    TO_CLIENT = "to_client"


@attrs.frozen
class MessageEnvelope:
    """A message, the session it passed in, and when.  A stored one is a frame."""

    session_id: str
    direction: Direction
    message: bytes
    """The JSON text, to the byte."""

    recorded_at: float
    """Seconds since the Unix epoch."""
