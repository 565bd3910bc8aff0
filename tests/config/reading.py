"""Configuration as a user writes it."""

import textwrap

from shadowcat.cli.main import build_parser
from shadowcat.config import settings_of
from shadowcat.config.file import read_text

URL = "http://upstream.invalid/mcp"


def read(text, command="reverse"):
    """Return what a file with *text* gives, by key."""
    return read_text("f.toml", textwrap.dedent(text).encode(), settings_of(command))


def parse(*arguments, command="reverse"):
    return build_parser().parse_args([command, *arguments])
