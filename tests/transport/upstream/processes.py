"""What is running, and what is left behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import trio


def is_running(pid: int) -> bool:
    """Tell whether *pid* is a process that has not ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def marked(marker: str) -> list[int]:
    """Return the processes with *marker* on their command line, which is to be unique."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker.encode() in words and is_running(int(folder.name)):
            found.append(int(folder.name))
    return found


async def wait_unmarked(marker: str) -> list[int]:
    """Return the processes that are left with *marker*; those that were killed may take a moment."""
    for pid in marked(marker):
        await wait_gone(pid)
    return marked(marker)


async def wait_gone(pid: int) -> None:
    """Wait for a process that need not be a child of ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with trio.move_on_after(5):
        await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)


def open_files() -> list[str]:
    """Return our descriptors, without those that only garbage holds."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def unreaped() -> list[int]:
    """Return our own children, zombies too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.append(int(folder.name))
    return found
