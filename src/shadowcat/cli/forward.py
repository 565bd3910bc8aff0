"""``shadowcat forward``: serve an MCP server to the program that starts us, or to many."""

from __future__ import annotations

import argparse
import sys
from functools import partial

import trio

from ..config import FORWARD, build_forward, build_listening
from ..errors import ConfigError
from ..proxy import ForwardProxyConfig, serve_forward_proxy, serve_reverse_proxy
from ..transport.downstream import open_stdio
from .options import Subparsers, add_command, add_settings, values_of
from .reverse import listen

_EXAMPLE = """\
examples:
  shadowcat forward --upstream https://mcp.example/mcp
  shadowcat forward -- uvx mcp-server-time
  shadowcat forward --bind 127.0.0.1:8080 -- uvx mcp-server-time

An MCP client that starts its servers itself is given the first or the second as its
command.  It ends when the client closes standard input, or at SIGINT or SIGTERM, when
calls have finished; a second signal stops it at once.  Its log goes to standard error.
"""


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser."""
    parser = commands.add_parser(
        "forward",
        help="serve an MCP server on standard input and output",
        description="Serve an MCP server to one client on standard input and output, or with --bind to many.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_command(parser)
    add_settings(parser, FORWARD)
    parser.set_defaults(run=run, name=FORWARD)
    return parser


async def run(args: argparse.Namespace, shutdown: trio.Event) -> None:
    """Serve until the client has left, or *shutdown* is set."""
    values = values_of(args)
    if values.is_given("listener.bind"):
        config = build_listening(values)
        await listen(config, partial(serve_reverse_proxy, config, shutdown=shutdown))
        return
    piped = build_config(args)
    # Not by the number: something else may have it by now.
    if sys.stdin is None or sys.stdout is None:
        raise ConfigError("standard input or output is closed; start the program with both, or use --bind")
    async with open_stdio(piped.endpoint.max_body_size) as stream:
        await serve_forward_proxy(piped, stream, shutdown=shutdown)


def build_config(args: argparse.Namespace) -> ForwardProxyConfig:
    """Return what *args* and the environment say of a proxy for one client, checked.

    Raises:
        ConfigError: A value is out of range or malformed, or values contradict each other.
    """
    return build_forward(values_of(args))
