"""``shadowcat config``: what may be set, and what is set."""

from __future__ import annotations

import argparse
import json

from ..config import REVERSE, build_beside, build_reverse, settings_of
from .check import add_words, sort_words
from .options import Subparsers, values_of


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser."""
    parser = commands.add_parser(
        "config",
        help="print settings, or what a configuration file may say",
        description="Print settings, or what a configuration file may say.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    schema = actions.add_parser(
        "schema",
        help="print a JSON Schema of the file",
        description="Print a JSON Schema (2020-12) of the configuration file, for editors and checks.",
    )
    schema.set_defaults(do=print_schema)
    show = actions.add_parser(
        "show",
        help="print the settings in force",
        description="Print the settings that shadowcat reverse would use, as TOML, and where each comes from. "
        "Secrets are masked.",
    )
    add_words(show)
    show.set_defaults(do=print_values, name=REVERSE)
    return parser


def print_schema(_args: argparse.Namespace) -> int:
    """Print the schema; return the exit status."""
    from ..config import build_schema

    print(json.dumps(build_schema(settings_of(REVERSE)), indent=2))
    return 0


def print_values(args: argparse.Namespace) -> int:
    """Print the settings in force, if they are right; return the exit status."""
    from ..config import show_values

    sort_words(args)
    values = values_of(args)
    build_reverse(values)
    build_beside(values)
    print(show_values(values), end="")
    return 0
