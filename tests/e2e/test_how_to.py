"""Each command that the pages show starts what it says, and that answers."""

import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.child import ROOT, Child
from tests.session.stores.redis_server import running_redis
from tests.test_docs import ACCEPT, DOCS, INITIALIZE, FixtureServer, commands, fences, server

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

__all__ = ["server"]  # a fixture

COMMAND = [sys.executable, "-S", "-E", str(ROOT / "tests" / "e2e" / "light_server.py")]
URLS = re.compile(r"https?://(?:127\.0\.0\.1:9000|mcp\.example\.com|mcp\.example)/mcp")


@pytest.fixture(scope="module")
def redis_url():
    with running_redis() as redis:
        yield f"{redis.url}/0"


def placed(line: str, url: str, folder: Path, request) -> list[str]:
    """Return the arguments of a command line, with what is here in place of what they name."""
    line = URLS.sub(url, line).replace("/var/lib/shadowcat", str(folder))
    if "redis://127.0.0.1:6379/0" in line:
        line = line.replace("redis://127.0.0.1:6379/0", request.getfixturevalue("redis_url"))
    (folder / "admin-token").write_text("a-token-of-24-characters\n")
    line = re.sub(r"--(metrics-)?bind (\S+):\d+", r"--\1bind \2:0", line)
    line = line.replace("uvx mcp-server-time", shlex.join(COMMAND))
    for file in re.findall(r"docs/\S+\.toml", line):
        text = (ROOT / file).read_text(encoding="utf-8").replace('"sessions.db"', f'"{folder}/sessions.db"')
        (folder / Path(file).name).write_text(URLS.sub(url, text))
        line = line.replace(file, str(folder / Path(file).name))
    for file in re.findall(r"\S+\.pem", line):
        line = line.replace(file, str(folder / file))
    arguments = shlex.split(line, comments=True)
    if arguments[0] == "reverse" and "--bind" not in arguments:
        arguments[1:1] = ["--bind", "127.0.0.1:0"]
    if "--admin-token-file" in arguments:
        arguments[1:1] = ["--admin-bind", "127.0.0.1:0"]
    return arguments


SERVING = [case for case in commands() if re.match("reverse|forward", case.values[0])]


@pytest.mark.parametrize("line", SERVING)
def test_command_serves(line: str, server: FixtureServer, tmp_path: Path, request):
    arguments = placed(line, server.url, tmp_path, request)
    program = [sys.executable, "-m", "shadowcat", *arguments]
    env = {"UPSTREAM_TOKEN": "Bearer t"}
    if arguments[0] == "forward" and "--bind" not in arguments:
        said = subprocess.run(
            program,
            input=json.dumps(INITIALIZE).encode() + b"\n",
            env={**os.environ, **env},
            capture_output=True,
            check=True,
            timeout=30,
        )
        assert "2025-11-25" == json.loads(said.stdout)["result"]["protocolVersion"]
        return
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "fullchain.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "privkey.pem")
    trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    child = Child(program, env)
    try:
        url = child.wait_for(r"serving MCP at (https?://\S+)")[1].replace("0.0.0.0", "127.0.0.1")
        answer = httpx.post(url, json=INITIALIZE, headers=ACCEPT, verify=trust)
        assert 200 == answer.status_code, answer.text
        assert answer.headers["mcp-session-id"]
        os.kill(child.pid, signal.SIGTERM)
        assert 0 == child.wait(20), child.output
    finally:
        child.stop()


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=lambda page: page.stem)
def test_page_shows_something_that_is_run(page: Path):
    """A command, a program, a client's configuration, or a file that has a test of its own."""
    text = page.read_text(encoding="utf-8")
    included = re.findall(r"\{literalinclude\} \.\./examples/(\S+)", text)
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert all(Path(name).stem in tests for name in included)
    assert included or fences(page, "python", "json", "toml") or re.search(r"^shadowcat ", text, re.MULTILINE)
