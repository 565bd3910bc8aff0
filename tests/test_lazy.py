"""Names that are imported when they are asked for, and what a start therefore leaves out."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import shadowcat
import shadowcat.session
import shadowcat.session.stores

LAZY = [shadowcat, shadowcat.session, shadowcat.session.stores]

HEAVY = {
    "sqlite3",
    "coredis",
    "importlib.metadata",
    "shadowcat.session.stores.sqlite",
    "shadowcat.session.stores.redis",
    "shadowcat.session.stores.failover",
    "shadowcat.admin.app",
    "shadowcat.admin.serve",
    "shadowcat.cli.admin_client",
    "shadowcat.testing",
    "pytest",
    "asyncio",
}

SERVE = """
import sys, trio
from shadowcat.cli.main import build_parser
argv = ["reverse", "--upstream", "http://127.0.0.1:1/mcp", "--bind", "127.0.0.1:0", *sys.argv[1:]]

async def main():
    args = build_parser().parse_args(argv)
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(args.run, args, shutdown)
        await trio.sleep(0.2)
        shutdown.set()

trio.run(main)
print(*sys.modules)
"""


def names_on_demand(module):
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If):
            yield from (alias.name for part in node.body if isinstance(part, ast.ImportFrom) for alias in part.names)


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_name_is_what_its_home_defines(module):
    """Each that a type checker sees is there."""
    names = list(names_on_demand(module))
    assert names
    for name in names:
        assert getattr(module, name).__name__ == name


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_name_that_is_not_there_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nonsense'"):
        _ = module.nonsense


def modules(script, *arguments):
    """Return the modules that *script* has imported at its end."""
    command = [sys.executable, "-c", script, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[1])
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_serving_from_memory_imports_no_other_store():
    assert HEAVY & modules(SERVE) == set()


@pytest.mark.slow
def test_serving_from_a_file_imports_no_redis(tmp_path):
    imported = modules(SERVE, "--store", "sqlite", "--sqlite-path", str(tmp_path / "s.db"))
    assert HEAVY & imported == {"sqlite3", "shadowcat.session.stores.sqlite"}


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_asking_for_a_line_of_text_opens_no_store(option):
    script = "import sys, atexit; from shadowcat.cli import main; atexit.register(lambda: print(*sys.modules)); main()"
    version = {"importlib.metadata"} if option == "--version" else set()
    assert HEAVY & modules(script, option) == version
