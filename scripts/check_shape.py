"""Hold the source to its shape: sizes, names, and the places that may catch everything.

Prints a table of the five largest files, then what is wrong, and fails if anything is.
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

MAX_FILE, MAX_FUNCTION, MAX_FUNCTION_P90, MAX_README, MAX_SCRIPT = 400, 60, 30, 120, 20
BANNED_SUFFIXES = ("Manager", "Service", "Helper", "Util", "Utils", "Processor", "Handler")
ALLOWED_NAMES = {"SessionManager"}  # it does own the sessions' lifetimes
BLIND_EXCEPTS = {
    "src/shadowcat/proxy/boundary.py": 1,  # one request: it fails, the others go on
    "src/shadowcat/session/manager.py": 2,  # housekeeping: a user's store fails; work for one session, beside others
    "src/shadowcat/transport/upstream/pipe.py": 1,  # one stream, perhaps of a user's connector, beside others
    "src/shadowcat/transport/downstream/call.py": 1,  # an app other than ours
    "src/shadowcat/transport/downstream/connection.py": 1,  # one client's failure is no other's
}


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    length = (node.end_lineno or 0) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return length


def is_blind(node: ast.AST) -> bool:
    """Tell a handler that swallows everything; one that cleans up and raises again does not."""
    if not isinstance(node, ast.ExceptHandler) or ast.unparse(node.body[-1]) == "raise":
        return False
    types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(t is None or getattr(t, "id", None) in ("Exception", "BaseException") for t in types)


def main() -> int:
    problems, rows, lengths = [], [], []
    for path in sorted(Path("src").rglob("*.py")):
        name, lines, longest = path.as_posix(), count_lines(path), 0
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(function_length(node))
                longest = max(longest, lengths[-1])
                if lengths[-1] > MAX_FUNCTION:
                    problems.append(f"{name}:{node.lineno} {node.name} has {lengths[-1]} lines, over {MAX_FUNCTION}")
            elif isinstance(node, ast.ClassDef) and node.name.endswith(BANNED_SUFFIXES):
                if node.name not in ALLOWED_NAMES:
                    problems.append(f"{name}:{node.lineno} {node.name} says nothing about what it is")
        blind = sum(map(is_blind, nodes))
        if blind > BLIND_EXCEPTS.get(name, 0):
            problems.append(f"{name} catches everything {blind} times, {BLIND_EXCEPTS.get(name, 0)} allowed")
        if "utils" in path.parts or path.stem == "utils":
            problems.append(f"{name}: a module is one noun, and utils is none")
        rows.append((lines, longest, blind, name))
    sizes = [(Path(name), MAX_FILE, lines) for lines, *_, name in rows]
    scripts = [path for path in sorted(Path("scripts").iterdir()) if path.is_file() and not path.suffix]
    sizes += [(path, MAX_SCRIPT, count_lines(path)) for path in scripts]
    sizes += [(path, MAX_README, count_lines(path)) for path in Path().glob("README.md")]
    problems += [f"{path} has {lines} lines, over {limit}" for path, limit, lines in sizes if lines > limit]
    p90 = round(statistics.quantiles(lengths, n=10)[-1])
    if p90 > MAX_FUNCTION_P90:
        problems.append(f"the ninetieth percentile of functions is {p90} lines, over {MAX_FUNCTION_P90}")
    print("lines  longest function  blind excepts")
    for lines, longest, blind, name in sorted(rows, reverse=True)[:5]:
        print(f"{lines:5}  {longest:16}  {blind:13}  {name}")
    total, blind = sum(row[0] for row in rows), sum(row[2] for row in rows)
    print(f"{len(rows)} files, {total} lines, {len(lengths)} functions (p90 {p90} lines), {blind} blind excepts")
    print(*problems, sep="\n")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
