"""The rules about imports that neither ruff nor import-linter can state."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "shadowcat"


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each module imported in *path*, in full, with the names taken from it."""
    base = SOURCE.parent if SOURCE in path.parents else ROOT
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(base).parts[: -node.level] if node.level else ()
            yield ".".join([*package, *filter(None, [node.module])]), [alias.name for alias in node.names]


def violations(folder: Path, *banned: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in folder.rglob("*.py")
        for module, _ in imports(path)
        if module.partition(".")[0] in banned
    ]


def reaches_inside(path: Path, module: str, names: list[str]) -> bool:
    """Tell whether *path* imports a module of another package, not the package."""
    root, *inner = module.split(".")
    if root != "shadowcat" or not inner or (SOURCE / inner[0]) in path.parents:
        return False
    if not (SOURCE / inner[0]).is_dir():
        return False
    target = SOURCE.joinpath(*inner)
    if not target.is_dir():
        return True
    face = {name for _, exported in imports(target / "__init__.py") for name in exported}
    return any((target / f"{name}.py").exists() for name in names if name not in face)


def test_other_packages_are_imported_by_their_face():
    """From another package import the package: ``from ..session import Session``."""
    assert [] == [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in SOURCE.rglob("*.py")
        for module, names in imports(path)
        if reaches_inside(path, module, names)
    ]


def test_protocol_is_values_only():
    """``protocol/`` has no I/O, no clock and no log."""
    assert [] == violations(SOURCE / "protocol", "trio", "logging", "httpx", "time", "socket")


@pytest.mark.parametrize("folder", ["src", "tests", "scripts", "examples"])
def test_asyncio_is_imported_nowhere(folder):
    """Shadowcat is Trio only."""
    assert [] == violations(ROOT / folder, "asyncio")


def test_httpx_stays_with_the_upstreams():
    """httpx is the interface to upstreams, and to nothing else."""
    assert [] == [line for line in violations(SOURCE, "httpx") if "/transport/upstream/" not in line]
