"""Measure what a second worker process brings.

Prints a Markdown table: one proxy with one worker and one with two, by turns, with sessions
in an SQLite file.  The client and the server behind the proxy run on the same processors.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
from contextlib import ExitStack

import programs
from messages import legacy_call, open_session
from programs import Failed, python, read_line, running

CONNECTIONS = 32
REPEATS = 3


def main() -> int:
    """Measure and print."""
    seconds = 0.5 if "--quick" in sys.argv else 3.0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        upstream = stack.enter_context(running(python("upstream")))
        port = int(read_line(upstream).strip("}").rpartition(" ")[2])
        options = ["--upstream", f"http://127.0.0.1:{port}/mcp", "--store", "sqlite", "--log-level", "error"]
        proxies = {}
        for count in (1, 2):
            own = ["--bind", "127.0.0.1:0", "--workers", str(count), "--sqlite-path", f"{folder}/{count}.db"]
            command = [sys.executable, "-m", "shadowcat", "reverse", *options, *own]
            process = stack.enter_context(running(command))
            url = read_line(process).rpartition(" ")[2]
            proxies[count] = process.pid, url, legacy_call(open_session(url))
        found: dict[int, list[programs.Count]] = {1: [], 2: []}
        try:
            for turn in range(REPEATS + 1):
                for count, (pid, url, message) in proxies.items():
                    measured = programs.call(pid, url, message, CONNECTIONS, seconds)
                    if turn:
                        found[count].append(measured)
        except Failed as error:
            sys.exit(f"scripts/bench: {error}")
    print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}; medians of {REPEATS}\n")
    print("| Workers | CPU µs per call | calls/s | ÷ one |")
    print("|--:|--:|--:|--:|")
    rates = {count: statistics.median(each.operations / each.seconds for each in rows) for count, rows in found.items()}
    for count, rows in found.items():
        cpu = statistics.median(each.cpu * 1e6 / each.operations for each in rows)
        print(f"| {count} | {cpu:.0f} | {rates[count]:,.0f} | {rates[count] / rates[1]:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
