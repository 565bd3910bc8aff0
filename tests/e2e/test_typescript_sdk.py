"""Both generations of the official TypeScript SDK's client, in each era they know, through the proxy."""

import json
from collections.abc import Sequence

import pytest

from tests.e2e import npm
from tests.e2e.child import Child, module
from tests.e2e.conftest import Run, Start

pytestmark = pytest.mark.e2e


def as_command(command: Sequence[str]) -> str:
    """Return what our scripts are given in place of a URL."""
    return json.dumps({"command": command[0], "args": command[1:]})


MODES = [
    pytest.param(("sdk1.mjs", "@modelcontextprotocol/sdk"), "legacy", id="first-legacy"),
    pytest.param(("sdk2.mjs", "@modelcontextprotocol/client"), "legacy", id="second-legacy"),
    pytest.param(("sdk2.mjs", "@modelcontextprotocol/client"), "auto", id="second-auto"),
]


@pytest.mark.parametrize("is_stdio", [False, True], ids=["http", "stdio"])
@pytest.mark.parametrize(("script", "mode"), MODES)
def test_the_typescript_client_does_all_it_can_with_a_python_server(
    run: Run, url: str, upstream: Child, script: tuple[str, str], mode: str, is_stdio: bool
) -> None:
    place = as_command(module("shadowcat", "forward", "--upstream", upstream.wait_for_url())) if is_stdio else url
    seen = len(upstream.lines)
    checks = run(*script, place, "ours", mode)
    assert {"connect", "the server asks the user", "list_changed is heard", "end"} <= set(checks)
    name = "sdk1" if script[0] == "sdk1.mjs" else f"sdk2-{mode}"
    upstream.wait_for(f"^cancelled typescript-{name}$", since=seen)


EVERYTHING = ("@modelcontextprotocol/server-everything", "mcp-server-everything")


@pytest.mark.parametrize("way", ["http-http", "http-command", "stdio-command"])
@pytest.mark.parametrize(("script", "mode"), MODES)
def test_the_typescript_client_does_all_it_can_with_a_typescript_server(
    run: Run, start: Start, request: pytest.FixtureRequest, way: str, script: tuple[str, str], mode: str
) -> None:
    """This server is of the legacy era, so ``auto`` has to find that out and fall back."""
    command = ["--", *npm.script(*EVERYTHING), "stdio"]
    if way == "stdio-command":
        place = as_command(module("shadowcat", "forward", *command))
    elif way == "http-command":
        place = start(module("shadowcat", "reverse", "--bind", "127.0.0.1:0", *command)).wait_for_url()
    else:
        place = request.getfixturevalue("everything_url")
    checks = run(*script, place, "everything", mode)
    assert {"connect", "the era is legacy", "the server asks for roots, on the listening stream"} <= set(checks)
