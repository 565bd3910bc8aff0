"""Child processes with good and bad manners.

Run as a program: ``python children.py NAME [MARKER]`` behaves as the function of that name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def echo() -> None:
    """Give each line back, until there is none."""
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def say(line: str) -> None:
    print(line, flush=True)


def ignore_eof() -> None:
    say("ready")
    while True:
        signal.pause()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore_eof()


def ignore_sigterm_and_flood() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("ready")
    while True:
        os.write(1, b"x" * 65535 + b"\n")


def last_word() -> None:
    """At the end of the input, say more than a pipe holds, and tell by a file that it could be said."""
    say("ready")
    sys.stdin.read()
    os.set_blocking(1, True)
    sys.stdout.write("x" * 300_000)
    sys.stdout.flush()
    Path(sys.argv[2]).write_text("done", encoding="ascii")


def have_child() -> None:
    """Start a child that has the same pipes and ignores SIGTERM; say its pid; end with the first byte."""
    say(str(subprocess.Popen([sys.executable, __file__, "outlive", *sys.argv[2:]]).pid))
    os.read(0, 1)
    sys.exit(5)


def have_child_that_leaves() -> None:
    """As `have_child`, but the child has a session of its own."""
    say(str(subprocess.Popen([sys.executable, __file__, "outlive", *sys.argv[2:]], start_new_session=True).pid))
    os.read(0, 1)
    sys.exit(5)


def have_child_that_floods() -> None:
    """As `have_child_that_leaves`, and the child writes without end."""
    flood = 'read go; exec yes "$0"'
    grandchild = subprocess.Popen(["sh", "-c", flood, "x" * 999], start_new_session=True, stdin=subprocess.PIPE)
    say(str(grandchild.pid))
    assert grandchild.stdin is not None
    grandchild.stdin.write(b"go\n")
    grandchild.stdin.flush()
    os.read(0, 1)
    sys.exit(5)


def outlive() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def endless_line() -> None:
    while True:
        os.write(1, b"x" * 65536)


def garbage() -> None:
    os.write(1, b"\x00\xff\xfe{]\n\n  \r\nnot json\n\xc3(\n")
    echo()


def die_in_a_message() -> None:
    os.write(1, b'{"whole":1}\n{"half":')
    sys.exit(7)


def crash() -> None:
    raise RuntimeError("no configuration\x1b[2J, key is sk-0123456789")


def flood_errors() -> None:
    """Write more to standard error than a pipe holds, before anything is read."""
    for number in range(30_000):
        sys.stderr.write(f"{number:099}\n")
    sys.stderr.flush()
    echo()


def close_output() -> None:
    os.close(1)
    signal.pause()


def close_input() -> None:
    os.close(0)
    say("ready")
    signal.pause()


def flood_errors_for_ever() -> None:
    say("ready")
    while True:
        os.write(2, b"\n" * 65536)


def tell_environment() -> None:
    told = {
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "fds": sorted(os.listdir("/proc/self/fd")),
        "pid": os.getpid(),
        "group": os.getpgrp(),
        "session": os.getsid(0),
    }
    say(json.dumps(told))
    echo()


def command(name: str, *arguments: str) -> list[str]:
    """Return what runs the function *name* of this file."""
    return [sys.executable, "-I", "-S", __file__, name, *arguments]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
