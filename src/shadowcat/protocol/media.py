"""Media types: how an answer is to be relayed."""

from __future__ import annotations

import enum


class ResponseMode(enum.Enum):
    """How the body of an upstream's answer is relayed."""

    JSON = "json"
    """One JSON document."""

    SSE_STREAM = "sse_stream"
    """Server-sent events, relayed as they come."""

    PASSTHROUGH = "passthrough"
    """Anything else: bytes that are not looked at."""

    @classmethod
    def from_content_type(cls, value: str | None) -> ResponseMode:
        """Return the mode for a ``Content-Type`` value; never fails.

        A missing or malformed value is `PASSTHROUGH`.  Parameters and case do
        not matter.
        """
        # Most say it just so.
        return _MODES.get(value or "") or _MODES.get(media_type(value), cls.PASSTHROUGH)


def media_type(value: str | None) -> str:
    """Return the ``type/subtype`` of a ``Content-Type`` value, in lower case."""
    return (value or "").partition(";")[0].strip().lower()


_MODES = {
    "application/json": ResponseMode.JSON,
    "text/event-stream": ResponseMode.SSE_STREAM,
}
