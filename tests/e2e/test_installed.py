"""What runs the installed program where nobody looks: a systemd unit, and a container."""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from shadowcat.cli import reverse
from shadowcat.cli.main import build_parser
from tests.e2e.child import ROOT, Child
from tests.e2e.rawhttp import serve_raw
from tests.e2e.storing import INITIALIZE, RecordingServer
from tests.session.stores.redis_server import free_port

EXAMPLES = ROOT / "docs" / "examples"
UNIT = EXAMPLES / "shadowcat.service"
CONTAINERFILE = EXAMPLES / "Containerfile"
INSTALLED = "/opt/shadowcat/bin/shadowcat"


def unit():
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(UNIT.read_text().replace("\\\n", ""))
    return parser["Service"]


def test_unit_starts_what_the_program_accepts(monkeypatch):
    monkeypatch.setenv("UPSTREAM_TOKEN", "Bearer t")
    program, *arguments = shlex.split(unit()["ExecStart"])
    args = build_parser().parse_args(arguments)

    assert INSTALLED == program
    assert float(unit()["TimeoutStopSec"]) > reverse.build_config(args).shutdown_timeout
    # SIGHUP is for several workers: one process alone would end by it.
    assert args.workers > 1
    assert unit()["ExecReload"].startswith("/bin/kill -HUP")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    path = tmp_path / UNIT.name
    # It looks for the program too.
    path.write_text(UNIT.read_text().replace(INSTALLED, sys.executable))
    verify = ["systemd-analyze", "verify", "--man=no", path]
    assert "" == subprocess.check_output(verify, text=True, stderr=subprocess.STDOUT, timeout=60)

    security = ["systemd-analyze", "security", "--offline=true", path]
    said = subprocess.run(security, text=True, capture_output=True, timeout=60).stdout
    assert float(re.findall(r"exposure level for \S+: ([0-9.]+)", said)[0]) <= 2.0


@pytest.mark.slow
@pytest.mark.e2e
async def test_unit_reloads_and_stops_as_systemd_does_it(tmp_path, nursery):
    """The first signal goes to the process that systemd started, and to no other."""
    upstream = await serve_raw(nursery, RecordingServer().serve)
    _, *arguments = shlex.split(
        unit()["ExecStart"]
        .replace("${STATE_DIRECTORY}", str(tmp_path))
        .replace("https://mcp.example.com/mcp", upstream)
        .replace("127.0.0.1:8080", "127.0.0.1:0")
    )
    child = Child([sys.executable, "-m", "shadowcat", *arguments], {"UPSTREAM_TOKEN": "Bearer t"})
    try:
        url = await trio.to_thread.run_sync(child.wait_for_url)
        async with httpx.AsyncClient() as client:
            assert 200 == (await client.post(url, json=INITIALIZE, headers=accept())).status_code
            before = len(child.lines)
            os.kill(child.pid, signal.SIGHUP)
            await trio.to_thread.run_sync(child.wait_for, "worker 2 serves", before)
            assert 200 == (await client.post(url, json=INITIALIZE, headers=accept())).status_code
        os.kill(child.pid, signal.SIGTERM)
        assert 0 == await trio.to_thread.run_sync(child.wait, float(unit()["TimeoutStopSec"]))
    finally:
        child.stop()
    nursery.cancel_scope.cancel()


def accept():
    return {"accept": "application/json, text/event-stream"}


def stages():
    """Return the instructions of each stage, as pairs."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [number for number, (name, _) in enumerate(pairs) if name == "FROM"]
    return pairs[starts[0] : starts[1]], pairs[starts[1] :]


def test_container_runs_as_nobody_and_without_a_shell():
    _, final = stages()
    said = dict(final)

    assert {"FROM", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"} == said.keys()
    assert int(said["USER"].partition(":")[0]) > 1000
    assert [INSTALLED] == json.loads(said["ENTRYPOINT"])
    assert json.loads(said["HEALTHCHECK"].partition("CMD ")[2])[0].startswith("/opt/shadowcat/")


@pytest.mark.slow
@pytest.mark.e2e
async def test_container_is_built_and_serves(tmp_path, nursery):
    """Its steps, in an empty directory and without an image."""
    build, final = stages()
    source, installed = tmp_path / "src", tmp_path / "opt"
    source.mkdir()

    def placed(text: str) -> str:
        return text.replace("/opt/shadowcat", str(installed))

    for name, words in build:
        if name == "COPY":
            *files, target = words.split()
            for file in files:
                copy(ROOT / file, source / ("" if target == "./" else target))
        elif name == "RUN":
            command = placed(words).replace("python -m", f"{sys.executable} -m", 1)
            await trio.run_process(["sh", "-ec", command], cwd=source, env=clean())

    said = dict(final)
    upstream = await serve_raw(nursery, RecordingServer().serve)
    port = free_port()
    entry = json.loads(placed(said["ENTRYPOINT"]))
    child = Child([*entry, "reverse", "--bind", f"0.0.0.0:{port}", "--upstream", upstream], clean(), cwd=tmp_path)
    try:
        await trio.to_thread.run_sync(child.wait_for, "serving MCP")
        healthy = json.loads(placed(said["HEALTHCHECK"].partition("CMD ")[2]).replace("8080", str(port)))
        await trio.run_process(healthy, env=clean())
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"http://127.0.0.1:{port}/mcp", json=INITIALIZE, headers=accept())
            assert 200 == answer.status_code
    finally:
        assert 0 == child.stop()
    with pytest.raises(subprocess.CalledProcessError):
        await trio.run_process(healthy, env=clean(), capture_stderr=True)
    nursery.cancel_scope.cancel()


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def clean() -> dict[str, str]:
    """The environment, but for where Python would find the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
