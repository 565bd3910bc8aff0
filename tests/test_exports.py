"""The public names are the documented names, and each says what it is for."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PUBLIC = ["shadowcat", "shadowcat.abc", "shadowcat.errors", "shadowcat.testing"]
DIRECTIVE = re.compile(r"^\s*\.\. auto(?!module)\w+:: ([\w.]+)\.(\w+)", re.MULTILINE)


def documented_names(module):
    """Return what docs/reference documents as a name of *module*."""
    pages = [page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")]
    return sorted(name for page in pages for owner, name in DIRECTIVE.findall(page) if owner == module)


def public_names(module):
    """Return ``__all__``, or else the explicit re-exports and what the module defines."""
    imported = importlib.import_module(module)
    if hasattr(imported, "__all__"):
        return sorted(imported.__all__)
    names = []
    body = ast.parse(inspect.getsource(imported)).body
    on_demand = [part for node in body if isinstance(node, ast.If) for part in node.body]
    for node in [*body, *on_demand]:
        match node:
            case ast.ImportFrom():
                names += [alias.name for alias in node.names if alias.asname == alias.name]
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.append(node.name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return sorted(name for name in names if not name.startswith("_"))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_the_documented_names(module):
    """Nothing public is undocumented, and nothing documented is gone."""
    assert documented_names(module) == public_names(module)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_classes_and_functions_have_docstrings(module):
    """Each public class or function says in its own words what it is for."""
    imported = importlib.import_module(module)
    public = [getattr(imported, name) for name in public_names(module)]
    assert [] == [thing for thing in public if hasattr(thing, "__module__") and not thing.__doc__]
