"""``shadowcat check``: see whether a configuration is right, without using it."""

from __future__ import annotations

import argparse

from ..config import REVERSE, build_beside, build_reverse
from ..errors import ConfigError
from ..proxy import ReverseProxyConfig
from ..transport.upstream import StdioConfig
from ..upstreams import UpstreamConfig, UpstreamSetConfig
from .options import Subparsers, add_file, add_settings, config_path, values_of

_EXAMPLE = """\
examples:
  shadowcat check shadowcat.toml
  shadowcat check --config shadowcat.toml --bind 0.0.0.0:8080

It listens nowhere and connects to nothing.  The exit status is 0 if everything is
right; if not, it is 1, and each line says where something is wrong, and what.
"""


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser."""
    parser = commands.add_parser(
        "check",
        help="see whether a configuration is right",
        description="See whether shadowcat reverse could use a configuration file, or options.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_words(parser)
    parser.set_defaults(do=run, name=REVERSE)
    return parser


def add_words(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take a file, or all that ``reverse`` takes."""
    parser.add_argument("words", nargs="*", metavar="FILE", help="the file; after --: the MCP server to run")
    add_file(parser)
    add_settings(parser, REVERSE)


def sort_words(args: argparse.Namespace) -> None:
    """Tell a file from a command after ``--`` among what `add_words` took.

    Raises:
        ConfigError: Several files are named.
    """
    if "--" in args.argv:
        args.command = args.words
        return
    files = [*args.words, *([args.config] if args.config else [])]
    if len(files) > 1:
        raise ConfigError(f"{' and '.join(files)} are several files; name one, and write a command after --")
    args.config = files[0] if files else None


def run(args: argparse.Namespace) -> int:
    """Print what is right or wrong, and return the exit status."""
    from ..config import check_surroundings

    sort_words(args)
    values = values_of(args)
    config = build_reverse(values)
    build_beside(values)
    check_surroundings(values, config)
    print(f"{config_path(args) or 'the options'}: nothing is wrong; {_summary(config, values['listener.workers'])}")
    return 0


def _summary(config: ReverseProxyConfig, workers: int) -> str:
    told = ", ".join(f"{name} ({_tell(server)})" for name, server in config.servers.items())
    if config.upstream is not None:
        told = f"{_tell(config.upstream)}{' and ' if told else ''}{told}"
    return (
        f"would serve {told} at {config.listener.bind}{config.path} "
        f"by {workers} {'process' if workers == 1 else 'processes'}, sessions in {config.storage.backend.value}"
    )


def _tell(server: UpstreamConfig | UpstreamSetConfig) -> str:
    if isinstance(server, UpstreamSetConfig):
        return ", ".join(_tell(endpoint.upstream) for endpoint in server.endpoints)
    from ..config import without_query

    return " ".join(server.command) if isinstance(server, StdioConfig) else without_query(server.url)
