"""Measure the processor time that the proxy, its parts and nginx spend on one operation.

Prints a Markdown table.  Time on the clock depends on the machine and on what else
it does; processor time much less, and its ratio to another program's in the same
run least.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import programs
from chart import Bars, draw
from messages import Call, legacy_call, modern_call, open_session
from programs import Count, python, read_line, running

CONNECTIONS = (1, 16)
STREAMS = (1, 50)
WINDOW = 32
"""Events of a stream under way at once, where it is not one."""

APPENDED = 50
"""Streams in one call to a store: what a busy proxy has in a tenth of a second."""

REPEATS = 3

BARE = "hypercorn, echo"
NGINX = "nginx, to the upstream"
NGINX_EVENTS = "nginx"
LEGACY = "Shadowcat, call in a session"
TRACKED = "Shadowcat, in a session: tracked and kept"


class Item(NamedTuple):
    """One row of the table."""

    name: str
    concurrency: int
    measure: Callable[[float], Count]
    """Measure for that many seconds."""


class Result(NamedTuple):
    """The medians of one row."""

    cpu_us: float
    per_second: float


def start_items(stack: ExitStack) -> tuple[list[Item], list[Item], list[Item]]:
    """Start everything, and return what is to be measured: calls, events, and events in stores."""

    def start(command: list[str]) -> tuple[int, str]:
        process = stack.enter_context(running(command))
        return process.pid, read_line(process).rpartition(" ")[2]

    upstream = stack.enter_context(running(python("upstream")))
    port = int(read_line(upstream).strip("}").rpartition(" ")[2])
    upstream_url = f"http://127.0.0.1:{port}/mcp"
    proxy_command = [sys.executable, "-m", "shadowcat", "reverse", "--bind", "127.0.0.1:0", "--upstream", upstream_url]
    proxy = start(proxy_command)
    with_httpx = start(python("servers", "httpx", upstream_url))
    session_id = open_session(proxy[1])
    legacy = legacy_call(session_id)
    targets: list[tuple[str, tuple[int, str], Call]] = [
        (BARE, start(python("servers", "bare")), legacy),
        ("the proxy's listener, echo", start(python("servers", "listener")), legacy),
        (LEGACY, proxy, legacy),
        ("Shadowcat, modern call", proxy, modern_call()),
        ("with httpx's transport, call in a session", with_httpx, legacy_call(open_session(with_httpx[1]))),
        ("with httpx's transport, modern call", with_httpx, modern_call()),
    ]
    relays = [
        ("Shadowcat, modern: passed on", proxy, ""),
        (TRACKED, proxy, session_id),
    ]
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    os.chmod(folder, 0o755)
    stores = {"SQLite": ["--store", "sqlite", "--sqlite-path", f"{folder}/sessions.db"]}
    if redis_url := stack.enter_context(programs.running_redis(folder)):
        stores["Redis"] = ["--store", "redis", "--redis-url", redis_url]
    for name, options in stores.items():
        stored = start([*proxy_command, *options])
        stored_id = open_session(stored[1])
        targets.append((f"with the {name} store, call in a session", stored, legacy_call(stored_id)))
        relays.append((f"with the {name} store: stored as well", stored, stored_id))
    if programs.find_nginx():
        nginx = stack.enter_context(programs.running_nginx(port, folder))
        targets.insert(2, (NGINX, nginx, legacy))
        relays.insert(0, (NGINX_EVENTS, nginx, session_id))
    calls = [
        Item(name, count, partial(programs.call, pid, url, message, count))
        for name, (pid, url), message in targets
        for count in CONNECTIONS
    ]
    events = [
        Item(name, count, partial(programs.relay_events, upstream, pid, url, session, count, 1))
        for name, (pid, url), session in relays
        for count in STREAMS
    ]
    for name, (pid, url), session in relays:
        if name in (NGINX_EVENTS, TRACKED):
            relay = partial(programs.relay_events, upstream, pid, url, session)
            events += [Item(f"{name}, {WINDOW} at once", count, partial(relay, count, WINDOW)) for count in STREAMS]
    places = {"memory": [], "SQLite": [f"{folder}/streams.db"]} | ({"Redis": [redis_url]} if redis_url else {})
    appends = [
        Item(name, APPENDED, partial(programs.append_events, start_appending(stack, name, place)))
        for name, place in places.items()
    ]
    return calls, events, appends


def start_appending(stack: ExitStack, name: str, place: list[str]) -> subprocess.Popen[str]:
    """Start what appends to a store."""
    process = stack.enter_context(running(python("stores", str(APPENDED), name.lower(), *place)))
    read_line(process)
    return process


def measure(items: list[Item], seconds: float) -> dict[tuple[str, int], Result]:
    """Measure each item once unrecorded and then `REPEATS` times, by turns; return medians."""
    counts: dict[tuple[str, int], list[Count]] = {}
    for turn in range(REPEATS + 1):
        for item in items:
            count = item.measure(seconds if turn else 0.1)
            if turn:
                counts.setdefault((item.name, item.concurrency), []).append(count)
    return {
        key: Result(
            statistics.median(count.cpu * 1e6 / count.operations for count in found),
            statistics.median(count.operations / count.seconds for count in found),
        )
        for key, found in counts.items()
    }


def print_table(
    results: dict[tuple[str, int], Result], calls: list[Item], events: list[Item], appends: list[Item]
) -> None:
    """Print rows, with each as a multiple of the bare echo."""
    print("| Call | connections | CPU µs per call | × bare echo | calls/s |")
    print("|---|--:|--:|--:|--:|")
    for item in calls:
        _print_row(item, results, results[BARE, item.concurrency])
    print()
    print("| Relay of an event | streams | CPU µs per event | × bare echo | events/s |")
    print("|---|--:|--:|--:|--:|")
    for item in events:
        _print_row(item, results, results[BARE, CONNECTIONS[0] if item.concurrency == 1 else CONNECTIONS[-1]])
    print()
    print("| Event appended to the store | streams | CPU µs per event | × bare echo | events/s |")
    print("|---|--:|--:|--:|--:|")
    for item in appends:
        _print_row(item, results, results[BARE, CONNECTIONS[-1]])


def _print_row(item: Item, results: dict[tuple[str, int], Result], bare: Result) -> None:
    found = results[item.name, item.concurrency]
    ratio = found.cpu_us / bare.cpu_us
    print(f"| {item.name} | {item.concurrency} | {found.cpu_us:.0f} | {ratio:.2f} | {found.per_second:,.0f} |")


def draw_calls(results: dict[tuple[str, int], Result], calls: list[Item]) -> str:
    """Return the table of calls as a picture."""
    names = dict.fromkeys(item.name for item in calls)
    rows = [Bars(name, [results[name, count].cpu_us for count in CONNECTIONS]) for name in names]
    series = [f"{count} connection{'s' if count > 1 else ''}" for count in CONNECTIONS]
    return draw("CPU µs per call: less is better", series, rows)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute instead of two; the last digit wavers")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the table of calls there as well")
    args = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        sys.exit("scripts/bench: processor time is read from /proc, as Linux has it")
    try:
        with ExitStack() as stack:
            calls, events, appends = start_items(stack)
            results = measure(list(chain(calls, events, appends)), 0.25 if args.quick else 1.6)
    except programs.Failed as error:
        sys.exit(f"scripts/bench: {error}")
    print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}; medians of {REPEATS}\n")
    print_table(results, calls, events, appends)
    if args.svg is not None:
        args.svg.write_text(draw_calls(results, calls), encoding="utf-8")
    if not programs.find_nginx():
        print("\nnginx is not installed: its rows are left out")
    if (missing := programs.missing_for_redis()) is not None:
        print(f"\n{missing} is not installed: the rows of Redis are left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
