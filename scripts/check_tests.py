"""Every module that does something, src/shadowcat/a/b.py, has its tests/a/test_b.py."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SOURCE = Path("src/shadowcat")
DECLARATIONS = {"abstractmethod", "overload"}


def has_logic(node: ast.AST) -> bool:
    """Tell a function that does something from a declaration or a plain ``__init__``."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name == "__init__":
        return False
    if any(ast.unparse(decorator).rpartition(".")[2] in DECLARATIONS for decorator in node.decorator_list):
        return False
    return not all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)


def main() -> int:
    missing = []
    for path in sorted(SOURCE.rglob("*.py")):
        test = Path("tests") / path.relative_to(SOURCE).with_name(f"test_{path.name}")
        if path.stem.startswith("__") or test.exists():
            continue
        if any(map(has_logic, ast.walk(ast.parse(path.read_text(encoding="utf-8"))))):
            missing.append(f"{path} has no {test}")
    print(*missing, sep="\n")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
