"""What is built can be installed where nothing is, runs there, and holds what the tests need."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest
import trio

import shadowcat
from tests.e2e.child import ROOT, Child
from tests.e2e.rawhttp import serve_raw
from tests.e2e.storing import INITIALIZE, RecordingServer

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

pytest.importorskip("build", reason="needs build and twine: tox -e package")
pytest.importorskip("twine", reason="needs build and twine: tox -e package")

NOT_SHIPPED = {".gitignore", ".pre-commit-config.yaml"}


def clean() -> dict[str, str]:
    """The environment, but for where Python would find the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The wheel and the sdist; the first is made of the second."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, timeout=110)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_metadata_is_what_an_index_takes(built):
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *built.values()], check=True, timeout=60)


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = message_from_bytes(wheel.read(metadata))
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert sources | {"shadowcat/py.typed"} == {name for name in names if ".dist-info/" not in name}
    assert (shadowcat.__version__, "MIT") == (said["Version"], said["License-Expression"])


def test_sdist_holds_what_the_tests_need(built, tmp_path):
    """Everything under version control, but what is of use there only; and the tests run in it."""
    with tarfile.open(built["sdist"]) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
        sdist.extractall(tmp_path, filter="data")
    if (ROOT / ".git").exists():
        tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")
        assert set() == {name for name in tracked if name} - held - NOT_SHIPPED
    (folder,) = tmp_path.iterdir()
    tests = ["tests/test_architecture.py", "tests/test_exports.py", "tests/protocol"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    subprocess.run(command, cwd=folder, env={**clean(), "PYTHONPATH": "src"}, check=True, timeout=110)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
async def test_installed_program_serves(kind, built, tmp_path, nursery):
    await trio.run_process([sys.executable, "-m", "venv", tmp_path / "v"], env=clean())
    programs = tmp_path / "v" / "bin"
    await trio.run_process([programs / "python", "-m", "pip", "install", "-q", built[kind]], env=clean())
    said = await trio.run_process([programs / "shadowcat", "--version"], env=clean(), capture_stdout=True)
    assert f"shadowcat {shadowcat.__version__}\n".encode() == said.stdout

    upstream = await serve_raw(nursery, RecordingServer().serve)
    command = [str(programs / "shadowcat"), "reverse", "--bind", "127.0.0.1:0", "--upstream", upstream]
    child = Child(command, clean(), cwd=tmp_path)
    try:
        url = await trio.to_thread.run_sync(child.wait_for_url)
        headers = {"accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient() as client:
            opened = await client.post(url, json=INITIALIZE, headers=headers)
            headers["mcp-session-id"] = opened.headers["mcp-session-id"]
            called = await client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers)
        assert {"by": "u0"} == called.json()["result"]
    finally:
        assert 0 == child.stop()
    nursery.cancel_scope.cancel()
