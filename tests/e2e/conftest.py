"""Real servers, and the real proxy in front of them, as child processes."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e import npm
from tests.e2e.child import Child, module, proxy_command, running

SCRIPTS = Path(__file__).parent / "typescript"

Run = Callable[..., list[str]]
Start = Callable[..., Child]


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Start a child process; all are stopped, the last one first, when the session ends."""
    with ExitStack() as stack:

        def start(command: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
            return stack.enter_context(running(command, env))

        yield start


@pytest.fixture(scope="session")
def proxied(start: Start) -> Callable[[str], str]:
    """Return the URL of a proxy in front of the upstream with the given URL."""
    urls: dict[str, str] = {}

    def proxied(upstream_url: str) -> str:
        if upstream_url not in urls:
            urls[upstream_url] = start(proxy_command(upstream_url)).wait_for_url()
        return urls[upstream_url]

    return proxied


@pytest.fixture(scope="session")
def upstream(start: Start) -> Child:
    """The server of `tests.e2e.server`, whose lines say what it sees."""
    child = start(module("tests.e2e.server"))
    child.wait_for_url()
    return child


@pytest.fixture(scope="session")
def url(upstream: Child, proxied: Callable[[str], str]) -> str:
    """The upstream, through the proxy."""
    return proxied(upstream.wait_for_url())


@pytest.fixture(scope="session")
def _npm() -> None:
    if shutil.which("npm") is None and not os.environ.get("CI"):
        pytest.skip("needs npm")


@pytest.fixture(scope="session")
def everything_url(_npm: None, start: Start, proxied: Callable[[str], str]) -> str:
    """The reference server of the TypeScript SDK, through the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = npm.script("@modelcontextprotocol/server-everything", "mcp-server-everything")
    start([*command, "streamableHttp"], {"PORT": str(port)}).wait_for("listening on port")
    return proxied(f"http://127.0.0.1:{port}/mcp")


@pytest.fixture
def run(_npm: None, tmp_path: Path) -> Run:
    """Run a script beside the package it imports; return the names of the checks it made, none of which failed."""

    def run(script: str, package: str, *arguments: str) -> list[str]:
        for path in SCRIPTS.glob("*.mjs"):
            shutil.copy(path, tmp_path)
        (tmp_path / "node_modules").symlink_to(npm.install(package))
        with running([npm.node(), str(tmp_path / script), *arguments]) as node:
            status = node.wait(timeout=60)
        checks = [json.loads(line) for line in node.lines if line.startswith('{"check"')]
        failed = [f"{check['check']}: {check['error']}" for check in checks if "error" in check]
        assert (failed, status) == ([], 0), node.output
        return [check["check"] for check in checks]

    return run
