"""What a supervisor and a worker say to each other.

They share a pair of sockets.  Its end is a message too: the process at the other end
is gone, however that came about, because the kernel closes the files of the dead.
"""

from __future__ import annotations

import attrs
import msgspec
import trio

RETIRE = b"retire\n"
"""To a worker: accept no more connections, and drain when those you have are through with a request."""

DRAIN = b"drain\n"
"""To a worker: finish what is under way, and end."""


@attrs.frozen
class Report:
    """From a worker: what it has come to."""

    urls: tuple[str, ...] = ()
    """Where it serves now."""

    errors: tuple[str, ...] = ()
    """Why it ends: a sentence each."""


def encode_report(report: Report) -> bytes:
    """Return *report* as one line."""
    return msgspec.json.encode(report) + b"\n"


class Reports:
    """The reports on a lifeline, one after the other."""

    def __init__(self, lifeline: trio.abc.ReceiveStream) -> None:
        self._lifeline = lifeline
        self._received = b""

    async def next(self) -> Report | None:
        """Return the next report; None when the worker is gone.  A checkpoint, all or nothing."""
        await trio.lowlevel.checkpoint()
        while b"\n" not in self._received:
            data = await receive(self._lifeline)
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return msgspec.json.decode(line, type=Report)


async def receive(lifeline: trio.abc.ReceiveStream) -> bytes:
    """Return what the other process has said; nothing when it is gone.

    A checkpoint, all or nothing.
    """
    try:
        return bytes(await lifeline.receive_some(4096))
    except trio.BrokenResourceError:
        # It died with something of ours unread.
        await trio.lowlevel.checkpoint()
        return b""
