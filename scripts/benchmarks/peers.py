"""Measure Shadowcat beside other proxies for MCP, in one run on one machine.

They are installed, when asked for, into a folder of their own: from PyPI and from npm.
Each stands before the same server, is called by the same client, and is the only one
that runs while it is measured.  Prints a Markdown table.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import programs
from messages import LEGACY_HEADERS, initialize, legacy_call
from programs import HERE, Failed, python

CACHE = HERE.parents[1] / ".cache" / "bench"
CONNECTIONS = (1, 8)
REPEATS = 3
PYPI = ("mcp-proxy", "fastmcp", "mitmproxy")
NPM = ("supergateway",)

_FASTMCP = (
    "from fastmcp.server import create_proxy; create_proxy({target!r}).run(transport='http', port={port}, **{quiet})"
)
_QUIET = {"show_banner": False, "log_level": "CRITICAL"}


class Peer(NamedTuple):
    """A proxy, and how it is started."""

    name: str
    command: Callable[[int], Sequence[str]]
    """Given a port to listen on."""
    path: str = "/mcp"


class Found(NamedTuple):
    """What one measurement of a proxy says."""

    cpu_us: float
    per_second: float
    p50_ms: float


def install() -> None:
    """Fetch the other proxies, unless they are here."""
    for package in PYPI:
        folder = CACHE / package
        if not (folder / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", package], check=True)
    for package in NPM:
        folder = CACHE / package
        if not (folder / "node_modules" / ".bin" / package).exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), package]
            subprocess.run(command, check=True)


def before_a_command() -> list[Peer]:
    """Return the proxies that serve a command over Streamable HTTP."""
    server = python("stdio_server")

    def shadowcat(port: int) -> Sequence[str]:
        return [sys.executable, "-m", "shadowcat", "reverse", "--bind", f"127.0.0.1:{port}", "--", *server]

    def mcp_proxy(port: int) -> Sequence[str]:
        return [str(CACHE / "mcp-proxy/bin/mcp-proxy"), "--port", str(port), "--", *server]

    def supergateway(port: int) -> Sequence[str]:
        program = str(CACHE / "supergateway/node_modules/.bin/supergateway")
        options = ["--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"]
        return [program, "--stdio", shlex.join(server), "--port", str(port), *options]

    def fastmcp(port: int) -> Sequence[str]:
        target = {"mcpServers": {"bench": {"command": server[0], "args": server[1:]}}}
        return [str(CACHE / "fastmcp/bin/python"), "-c", _FASTMCP.format(target=target, port=port, quiet=_QUIET)]

    return [
        Peer("Shadowcat", shadowcat),
        Peer("mcp-proxy", mcp_proxy, "/mcp/"),
        Peer("supergateway", supergateway),
        Peer("FastMCP's proxy", fastmcp),
    ]


def before_a_url(url: str) -> list[Peer]:
    """Return the proxies that serve another URL."""

    def shadowcat(port: int) -> Sequence[str]:
        return [sys.executable, "-m", "shadowcat", "reverse", "--bind", f"127.0.0.1:{port}", "--upstream", url]

    def fastmcp(port: int) -> Sequence[str]:
        return [str(CACHE / "fastmcp/bin/python"), "-c", _FASTMCP.format(target=url, port=port, quiet=_QUIET)]

    def mitmproxy(port: int) -> Sequence[str]:
        options = ["--mode", f"reverse:{url.rpartition('/')[0]}", "--listen-host", "127.0.0.1", "-p", str(port), "-q"]
        return [str(CACHE / "mitmproxy/bin/mitmdump"), *options]

    return [Peer("Shadowcat", shadowcat), Peer("FastMCP's proxy", fastmcp), Peer("mitmproxy", mitmproxy)]


@contextmanager
def serving(peer: Peer) -> Iterator[tuple[int, str, str]]:
    """Run a proxy; yield its process id, its URL and the id of a session."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    log = CACHE / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            peer.command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}{peer.path}"
            yield process.pid, url, _open_session(process, url)
        except (OSError, Failed) as error:
            raise Failed(f"{peer.name}: {error}; {log.read_text()[-500:]}") from error
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _open_session(process: subprocess.Popen[bytes], url: str) -> str:
    deadline = time.monotonic() + 30
    while True:
        request = urllib.request.Request(url, initialize().encode(), LEGACY_HEADERS)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                response.read()
                session_id = str(response.headers["mcp-session-id"] or "")
                break
        except urllib.error.HTTPError:
            raise
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    told = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    fields = LEGACY_HEADERS | ({"Mcp-Session-Id": session_id} if session_id else {})
    urllib.request.urlopen(urllib.request.Request(url, told, fields), timeout=20).close()
    return session_id


def measure(peer: Peer, seconds: float) -> dict[int, Found]:
    """Start a proxy and measure it with one caller and with several."""
    found: dict[int, Found] = {}
    with serving(peer) as (pid, url, session_id):
        message = legacy_call(session_id)
        for connections in CONNECTIONS:
            programs.call(pid, url, message, connections, 0.5)
            count = programs.call(pid, url, message, connections, seconds)
            found[connections] = Found(
                count.cpu * 1e6 / count.operations, count.operations / count.seconds, count.p50 * 1000
            )
    return found


def print_rows(title: str, peers: Sequence[Peer], seconds: float) -> None:
    """Measure each peer by turns, and print the medians."""
    found: dict[tuple[str, int], list[Found]] = {}
    failures: dict[str, str] = {}
    for _ in range(REPEATS):
        for peer in peers:
            try:
                for connections, row in measure(peer, seconds).items():
                    found.setdefault((peer.name, connections), []).append(row)
            except Failed as error:
                failures[peer.name] = str(error).partition(";")[0]
    print(f"| {title} | connections | CPU µs per call | calls/s | p50 ms | Shadowcat's calls/s ÷ its |")
    print("|---|--:|--:|--:|--:|--:|")
    medians = {key: Found(*map(statistics.median, zip(*rows, strict=True))) for key, rows in found.items()}
    for (name, connections), row in medians.items():
        ratio = medians["Shadowcat", connections].per_second / row.per_second
        print(f"| {name} | {connections} | {row.cpu_us:.0f} | {row.per_second:,.0f} | {row.p50_ms:.2f} | {ratio:.1f} |")
    for failure in failures.values():
        print(f"\nnot in the table: {failure}")
    print(flush=True)


def main() -> int:
    """Measure and print."""
    seconds = 0.5 if "--quick" in sys.argv else 3.0
    try:
        install()
        print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}; medians of {REPEATS}\n", flush=True)
        print_rows("Before a command", before_a_command(), seconds)
        with ExitStack() as stack:
            upstream = stack.enter_context(programs.running(python("upstream")))
            port = json.loads(programs.read_line(upstream))["port"]
            print_rows("Before a URL", before_a_url(f"http://127.0.0.1:{port}/mcp"), seconds)
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"scripts/bench: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
