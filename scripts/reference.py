"""Write what docs/reference/ has from the program: its help, and the tables of its settings."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from shadowcat.cli.main import build_parser
from shadowcat.config import SETTINGS, write_reference

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
COMMANDS = re.compile(r"(?<=^```text\n)usage: shadowcat ([a-z -]*?) ?\[.*?(?=^```$)", re.MULTILINE | re.DOTALL)
MARK = "<!-- from here on written by scripts/reference.py -->\n"


def help_of(words: str) -> str:
    """Return what ``shadowcat WORDS --help`` prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        build_parser().parse_args([*words.split(), "--help"])
    return said.getvalue()


def main() -> None:
    """Rewrite both pages."""
    os.environ["COLUMNS"] = "100"
    commands = REFERENCE / "cli.md"
    text = commands.read_text(encoding="utf-8")
    commands.write_text(COMMANDS.sub(lambda found: help_of(found[1]), text), encoding="utf-8")
    settings = REFERENCE / "configuration.md"
    head, mark, _ = settings.read_text(encoding="utf-8").partition(MARK)
    settings.write_text(f"{head}{mark}\n{write_reference(SETTINGS).rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
