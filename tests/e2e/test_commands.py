"""Servers that are commands, as their users write them, behind the proxy."""

from pathlib import Path

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters

from tests.e2e import npm
from tests.e2e.child import module
from tests.e2e.conftest import Start

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings(r"ignore:Async generator 'http(x|core)2\.:ResourceWarning")]

FILESYSTEM = ("@modelcontextprotocol/server-filesystem", "mcp-server-filesystem")


@pytest.mark.usefixtures("_npm")
@pytest.mark.parametrize("is_stdio", [False, True], ids=["http", "stdio"])
async def test_the_filesystem_server(start: Start, tmp_path: Path, is_stdio: bool) -> None:
    (tmp_path / "note.txt").write_text("grüße ☃", encoding="utf-8")
    served = ["--", *npm.script(*FILESYSTEM), str(tmp_path)]
    if is_stdio:
        command, *arguments = module("shadowcat", "forward", *served)
        place: str | StdioServerParameters = StdioServerParameters(command=command, args=arguments)
    else:
        place = start(module("shadowcat", "reverse", "--bind", "127.0.0.1:0", *served)).wait_for_url()
    with trio.fail_after(30):
        async with Client(place) as client:
            result = await client.call_tool("read_text_file", {"path": str(tmp_path / "note.txt")})
            (content,) = result.content
            assert isinstance(content, types.TextContent)
            assert content.text == "grüße ☃"
            await client.call_tool("write_file", {"path": str(tmp_path / "new.txt"), "content": "written"})
    assert (tmp_path / "new.txt").read_text(encoding="utf-8") == "written"
