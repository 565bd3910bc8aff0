"""Starting the programs, and reading what they have cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from messages import Call

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program did not do its part, so that there is nothing to measure."""


class Count(NamedTuple):
    """What was done in one measurement."""

    operations: int
    seconds: float
    cpu: float
    """Seconds of processor time of the process under test and its children."""
    p50: float = 0.0
    """The median of the seconds that a call took, if it is known."""


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and all its descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
        ticks[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    tree = {pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(ticks.get(member, 0) for member in tree) / TICK


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program for as long as the block lasts."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return what a program prints next."""
    assert process.stdout
    assert isinstance(process.args, list)
    line = process.stdout.readline().strip()
    if not line:
        raise Failed(f"{Path(process.args[0]).name} ended with status {process.wait()}; its reason is above")
    return line


def python(name: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the programs beside this one."""
    return [sys.executable, str(HERE / f"{name}.py"), *arguments]


@contextmanager
def running_nginx(upstream_port: int, folder: str) -> Iterator[tuple[int, str]]:
    """Run nginx as a reverse proxy; yield its process id and URL."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    text = (HERE / "nginx.conf").read_text()
    config = Path(folder, "nginx.conf")
    values = {"@folder@": folder, "@port@": str(port), "@upstream_port@": str(upstream_port)}
    for mark, value in values.items():
        text = text.replace(mark, value)
    config.write_text(text)
    with running([find_nginx() or "", "-p", folder, "-e", "stderr", "-c", str(config)]) as process:
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.05)
            else:
                yield process.pid, f"http://127.0.0.1:{port}/mcp"
                return
        raise Failed("nginx did not start")


@contextmanager
def running_redis(folder: str) -> Iterator[str | None]:
    """Run a Redis server; yield its URL, or None if there is none to run, or the proxy could not use it."""
    if missing_for_redis() is not None:
        yield None
        return
    path = Path(folder, "redis.sock")
    with running(["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]) as process:
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline and not path.exists():
            time.sleep(0.05)
        if not path.exists():
            raise Failed("redis-server did not start")
        yield f"unix://{path}"


def missing_for_redis() -> str | None:
    """Return what would have to be installed for the rows of Redis; None if all of it is."""
    if shutil.which("redis-server") is None:
        return "redis-server"
    return "coredis (shadowcat[redis])" if find_spec("coredis") is None else None


def find_nginx() -> str | None:
    """Return where nginx is; Debian keeps it off an ordinary user's path."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def call(pid: int, url: str, message: Call, connections: int, seconds: float) -> Count:
    """Call over *connections* for *seconds*; every answer must be a 200."""
    before = cpu_seconds(pid)
    if shutil.which("wrk"):
        found = _call_with_wrk(url, message, connections, seconds)
    else:
        order = {"url": url, "connections": connections, "seconds": seconds, **message._asdict()}
        done = subprocess.run(python("client"), input=json.dumps(order), stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed("the client failed; its reason is above")
        found = json.loads(done.stdout)
    cpu = cpu_seconds(pid) - before
    if found["failed"] or not found["calls"]:
        raise Failed(f"{found['failed']} calls of {found['calls']} failed")
    return Count(found["calls"], found["seconds"], cpu, found["p50"])


def _call_with_wrk(url: str, message: Call, connections: int, seconds: float) -> dict[str, Any]:
    command = ["wrk", "-t1", f"-c{connections}", "-d1m", "-s", str(HERE / "call.lua"), url, "--"]
    command += [message.head, message.tail, *(f"{name}: {value}" for name, value in message.headers.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        # Its own durations are whole seconds; told to stop, it prints what it has.
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    if not output:
        raise Failed(f"wrk ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(output.strip().rpartition("\n")[2])
    return found


def relay_events(
    upstream: subprocess.Popen[str], pid: int, url: str, session_id: str, streams: int, window: int, seconds: float
) -> Count:
    """Have the upstream send events to itself through *url* for *seconds*.

    Args:
        window: Events of each stream that may be under way at once.
    """
    assert upstream.stdin
    order = {"url": url, "session_id": session_id, "streams": streams, "window": window, "seconds": seconds}
    upstream.stdin.write(json.dumps(order) + "\n")
    upstream.stdin.flush()
    read_line(upstream)
    before = cpu_seconds(pid)
    found = json.loads(read_line(upstream))
    cpu = cpu_seconds(pid) - before
    read_line(upstream)
    return Count(found["events"], found["seconds"], cpu)


def append_events(process: subprocess.Popen[str], seconds: float) -> Count:
    """Have a program append events to its store for *seconds*."""
    assert process.stdin
    before = cpu_seconds(process.pid)
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    found = json.loads(read_line(process))
    return Count(found["events"], found["seconds"], cpu_seconds(process.pid) - before)
