"""What is declared is what is used, and what is built can be installed, run and tested."""

import re
import sys
import tomllib
from pathlib import Path

from tests.test_architecture import SOURCE, imports

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(requirements):
    """Return the modules that come with *requirements*."""
    names = {re.split(r"[\[<>=~!; ]", text)[0].replace("-", "_") for text in requirements}
    return names | {name.partition("_")[0] for name in names if name.startswith("opentelemetry_")}


def test_every_import_is_of_a_declared_dependency():
    """What comes with a dependency only may leave with its next version."""
    extras = {name for name, needed in PROJECT["optional-dependencies"].items() for name in declared(needed)}
    allowed = declared(PROJECT["dependencies"]) | extras | {"shadowcat", *sys.stdlib_module_names}
    imported = {
        module.partition(".")[0]: path.relative_to(ROOT) for path in SOURCE.rglob("*.py") for module, _ in imports(path)
    }
    assert {} == {name: path for name, path in imported.items() if name not in allowed}


def test_every_dependency_is_imported():
    imported = {module.partition(".")[0] for path in SOURCE.rglob("*.py") for module, _ in imports(path)}
    assert set() == declared(PROJECT["dependencies"]) - imported
