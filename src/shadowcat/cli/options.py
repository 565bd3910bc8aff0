"""The settings as options of a command, and what they, the environment and a file say together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TypeAlias

from ..config import (
    SECTIONS,
    Given,
    Origin,
    Problems,
    Setting,
    SettingsError,
    Values,
    Wrong,
    read_environment,
    settings_of,
    tell,
)

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

CONFIG_VARIABLE = "SHADOWCAT_CONFIG"


def add_settings(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the settings that *command* has as options of *parser*."""
    flagged = (setting for setting in settings_of(command) if setting.flag is not None)
    for section, settings in groupby(flagged, lambda setting: setting.section):
        group = parser.add_argument_group(*SECTIONS[section])
        for setting in settings:
            _add_option(group, setting)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take a command after ``--``."""
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="after --: the MCP server to run, and its arguments"
    )


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the configuration file."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read settings from this TOML file; variables, named SHADOWCAT_ and the option, go before it, "
        f"and options before both; default: ${CONFIG_VARIABLE}",
    )


def _add_option(group: argparse._ArgumentGroup, setting: Setting) -> None:
    assert setting.flag is not None
    kind, flag, dest = setting.kind, setting.flag, setting.dest
    default = setting.said_default or tell(setting.default)
    if kind.schema.get("type") == "boolean":
        is_on = not flag.startswith("--no-")
        group.add_argument(flag, dest=dest, action="store_const", const=is_on, help=setting.flag_help or setting.help)
        return
    said = f"{setting.help}; default: {default}" if default and not kind.is_repeated else setting.help
    if kind.choices:
        group.add_argument(flag, dest=dest, choices=kind.choices, help=said)
    elif kind.is_repeated:
        said = f"{said}; may be repeated"
        group.add_argument(flag, dest=dest, action="append", metavar=kind.metavar, help=said)
    else:
        group.add_argument(flag, dest=dest, type=_type_of(kind.parse), metavar=kind.metavar, help=said)


def _type_of(parse: Callable[[str], object]) -> Callable[[str], object]:
    def parse_option(text: str) -> object:
        try:
            return parse(text)
        except Wrong as wrong:
            raise argparse.ArgumentTypeError(str(wrong)) from None

    return parse_option


def read_values(args: argparse.Namespace) -> Values:
    """Return what *args*, the environment and the file that they name say.

    Raises:
        SettingsError: One of them says something that cannot be.
    """
    settings = settings_of(args.name)
    problems = Problems()
    layers: list[dict[str, Given]] = []
    with problems.collecting():
        layers.append(_read_flags(args, settings))
    with problems.collecting():
        layers.append(read_environment(settings, os.environ))
    path = config_path(args)
    if path is not None:
        from ..config import read_file

        with problems.collecting():
            layers.append(read_file(path, settings))
    problems.check()
    return Values(settings, *layers, command=args.name, file=path)


def config_path(args: argparse.Namespace) -> str | None:
    """Return where the configuration file is; None if there is none."""
    if not hasattr(args, "config"):
        return None
    return args.config or os.environ.get(CONFIG_VARIABLE) or None


def values_of(args: argparse.Namespace) -> Values:
    """As `read_values`, but read once: a file may change meanwhile."""
    if "values" not in args:
        args.values = read_values(args)
    return args.values  # type: ignore[no-any-return]


def _read_flags(args: argparse.Namespace, settings: Iterable[Setting]) -> dict[str, Given]:
    given, problems = {}, []
    for setting in settings:
        if setting.flag is None and setting.key != "upstream.command":
            continue
        value = getattr(args, setting.dest, None)
        if value is None or value == []:
            continue
        source = setting.flag or "the command after --"
        try:
            if setting.kind.is_repeated:
                value = [setting.kind.parse(text) for text in value]
        except Wrong as wrong:
            problems.append(f"{source} {wrong}")
            continue
        given[setting.key] = Given(value, source, Origin.FLAG)
    if problems:
        raise SettingsError(problems)
    return given
