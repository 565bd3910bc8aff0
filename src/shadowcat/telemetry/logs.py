"""How log records are written."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

import msgspec

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "human", "json")

_encode = msgspec.json.Encoder().encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
            **self._worker,
        }
        if record.exc_info:
            entry["exception"] = _encodable(self.formatException(record.exc_info))
        return _encode(entry).decode()


def _encodable(text: str) -> str:
    """Return *text* with lone surrogates escaped: a record is never lost over one."""
    return text.encode(errors="backslashreplace").decode()


def configure_logging(
    level: str, form: str = "auto", stream: TextIO | None = None, *, worker: int | None = None
) -> None:
    """Write the records of this process to *stream*, standard error if None.

    Args:
        level: One of `LEVELS`.
        form: One of `FORMATS`; ``auto`` is for people on a terminal and JSON elsewhere.
        worker: Which of several processes this is, for each line to say.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    if form == "json" or (form == "auto" and not stream.isatty()):
        handler.setFormatter(JsonFormatter(worker))
    else:
        process = "" if worker is None else f"[{worker}] "
        line = f"%(asctime)s %(levelname)-7s {process}%(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(line, "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It logs a traceback for each failed connection; ours says it in a line.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
