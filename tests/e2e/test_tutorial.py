"""The tutorials, done as they say."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.child import ROOT
from tests.e2e.nginx import find_nginx

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

PAGE = ROOT / "docs" / "tutorial" / "two-replicas-on-redis.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ["8080", "8081", "8082", "9000", "6380"]


def need(program: str) -> None:
    if shutil.which(program) is None:
        reason = f"{program} is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(sock.getsockname()[1]) for sock in socks]


def test_two_replicas_on_redis(tmp_path):
    """All commands in one shell, one after the other, and what is shown is what they print."""
    nginx = find_nginx()
    need("redis-server")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def adapted(text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: ports[found[0]], text)

    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "docs" / "examples").mkdir(parents=True)
    site = "replicas.nginx.conf"
    (tmp_path / "docs" / "examples" / site).write_text(adapted((ROOT / "docs" / "examples" / site).read_text()))
    fences = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    commands = [text for language, text in fences if language == "sh"]
    assert "apt-get install" in commands[0]
    assert "pip install" in commands[1]

    script = "set -u\n" + "\n".join(map(adapted, commands[2:]))
    folders = [Path(sys.executable).parent, Path(nginx).parent, os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(map(str, folders))}
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=90)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    place = 0
    for text in [text for language, text in fences if language == "text"]:
        place = said.find(text, place)
        assert place >= 0, f"{text!r} is not in its place in:\n{said}"
    assert shell.returncode == 0, said
    assert not (tmp_path / "run").exists()
