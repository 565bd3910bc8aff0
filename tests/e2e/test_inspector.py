"""The MCP Inspector, as somebody at a command line uses it, through the proxy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import npm
from tests.e2e.child import Child, module, running

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    era: str = request.param
    return era


@pytest.fixture(params=["http", "stdio"])
def place(request: pytest.FixtureRequest, url: str, upstream: Child) -> list[str]:
    """The proxy, as it is named on the Inspector's command line."""
    if request.param == "http":
        return [url, "--transport", "http"]
    return [*module("shadowcat", "forward", "--upstream", upstream.wait_for_url()), "--transport", "stdio"]


@pytest.fixture
def inspect(_npm: None, place: list[str], era: str, tmp_path: Path) -> Callable[..., dict]:
    def inspect(method: str, *arguments: str) -> dict:
        command = npm.script("@modelcontextprotocol/inspector", "mcp-inspector")
        command += ["--cli", *place, "--protocol-era", era]
        # It keeps a catalog of servers in the home directory.
        home = {"HOME": str(tmp_path)}
        with running([*command, "--quiet", "--method", method, *arguments], home, cwd=tmp_path) as inspector:
            status = inspector.wait(timeout=30)
        assert status == 0, inspector.output
        result: dict = json.loads(inspector.output)
        return result

    return inspect


def test_the_inspector_lists_tools(inspect: Callable[..., dict]) -> None:
    names = {tool["name"] for tool in inspect("tools/list")["tools"]}
    assert {"echo", "add"} <= names


def test_the_inspector_calls_a_tool(inspect: Callable[..., dict]) -> None:
    result = inspect("tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=3")
    assert result["structuredContent"] == {"result": 5}
