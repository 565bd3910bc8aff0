"""The MCP server behind the proxy, as the command line names it: a URL, or a command to run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable

from ..errors import ConfigError
from ..proxy import UpstreamConfig
from ..transport.upstream import (
    HttpSseUpstreamConfig,
    HttpUpstreamConfig,
    PipeConfig,
    StdioConfig,
    WebSocketUpstreamConfig,
)
from .options import add_number

_TRANSPORTS = ("auto", "streamable-http", "sse", "ws")
_WEBSOCKET_SCHEMES = ("ws", "wss")

_FOR_A_URL = ("upstream_transport", "ca_file", "upstream_header", "upstream_header_env")
_FOR_A_COMMAND = ("env", "env_pass", "cwd", "max_children", "spares")

_MAX_CHILDREN = PipeConfig().max_sessions


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="after --: the MCP server to run, and its arguments"
    )
    group = parser.add_argument_group("the MCP server", "either a URL, or a command after --")
    group.add_argument("--upstream", metavar="URL", help="where it is, with its path: http, https, ws or wss")
    group.add_argument(
        "--upstream-transport",
        choices=_TRANSPORTS,
        help="sse is the transport of 2024-11-05; default: auto (ws for ws and wss, else streamable-http)",
    )
    group.add_argument("--ca-file", metavar="PEM", help="trust these authorities for https and wss")
    add_repeated(group, "--upstream-header", "NAME:VALUE", "send this header upstream")
    add_repeated(
        group,
        "--upstream-header-env",
        "NAME=VARIABLE",
        "send this header upstream, its value taken from the environment: for secrets",
    )
    add_repeated(group, "--env", "NAME=VALUE", "set this variable for the command")
    add_repeated(group, "--env-pass", "NAME", "pass this variable on to the command; few others are")
    group.add_argument("--cwd", metavar="DIR", help="run the command in this directory")
    add_number(group, "--max-children", int, None, f"commands run at once, one a session; default: {_MAX_CHILDREN}")
    add_number(
        group, "--spares", int, None, "commands started before a session needs them; default: 1, 0 for one client"
    )


def add_repeated(group: argparse._ActionsContainer, name: str, metavar: str, text: str) -> None:
    """Add an option that may be given several times."""
    group.add_argument(name, action="append", default=[], metavar=metavar, help=text)


def build_server(args: argparse.Namespace) -> UpstreamConfig:
    """Return what *args* name.

    Raises:
        ConfigError: They name none, or two, or say something that does not go with it.
    """
    if args.command and args.upstream is not None:
        raise ConfigError("--upstream and a command after -- are two servers; give one of them")
    if args.command:
        _refuse(args, _FOR_A_URL, "--upstream")
        return StdioConfig(
            command=args.command,
            env=dict(map(_parse_variable, args.env)),
            inherit=[_set_variable(name) for name in args.env_pass],
            cwd=args.cwd,
        )
    if args.upstream is None:
        raise ConfigError("name the MCP server: give --upstream URL, or -- COMMAND and its arguments at the end")
    _refuse(args, _FOR_A_COMMAND, "a command after --")
    return _build_by_url(args)


def _build_by_url(args: argparse.Namespace) -> UpstreamConfig:
    headers = [*map(_parse_header, args.upstream_header), *map(_read_header, args.upstream_header_env)]
    scheme = args.upstream.partition(":")[0]
    is_websocket = scheme in _WEBSOCKET_SCHEMES
    transport = args.upstream_transport or "auto"
    if transport not in ("auto", "ws" if is_websocket else transport) or (transport == "ws" and not is_websocket):
        wanted = "ws or wss" if transport == "ws" else "http or https"
        raise ConfigError(f"--upstream-transport {transport} goes with a {wanted} URL, not with {scheme!r}")
    if is_websocket:
        return WebSocketUpstreamConfig(
            url=args.upstream, headers=headers, connect_timeout=args.connect_timeout, ca_file=args.ca_file
        )
    build: Callable[..., UpstreamConfig] = HttpSseUpstreamConfig if transport == "sse" else HttpUpstreamConfig
    return build(
        url=args.upstream,
        headers=headers,
        connect_timeout=args.connect_timeout,
        answer_timeout=args.answer_timeout,
        ca_file=args.ca_file,
    )


def build_children(args: argparse.Namespace, upstream: UpstreamConfig, default_spares: int) -> PipeConfig:
    """Return how clients share *upstream*.

    Args:
        default_spares: What is kept ready if *args* do not say.

    Raises:
        ValueError: A number is out of range.
    """
    if isinstance(upstream, HttpUpstreamConfig):
        return PipeConfig(spares=default_spares)
    if not isinstance(upstream, StdioConfig):
        # Connections, not processes: the limit of sessions is theirs.
        return PipeConfig(max_sessions=args.max_sessions, spares=0)
    return PipeConfig(
        max_sessions=_MAX_CHILDREN if args.max_children is None else args.max_children,
        spares=default_spares if args.spares is None else args.spares,
    )


def _refuse(args: argparse.Namespace, names: Iterable[str], other: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, []):
            raise ConfigError(f"--{name.replace('_', '-')} goes with {other} only; remove it")


def _parse_variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ConfigError(f"--env {name!r} has no value; write NAME=VALUE, or pass yours on with --env-pass {name}")
    return name, value


def _set_variable(name: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"--env-pass {name!r}: the variable is not set; set it, or leave the option out")
    return name


def _parse_header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise ConfigError(f"--upstream-header {name!r} has no value; write NAME:VALUE")
    return name.strip(), value.strip()


def _read_header(text: str) -> tuple[str, str]:
    name, _, variable = text.partition("=")
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"--upstream-header-env {text!r}: the variable {variable!r} is not set; write NAME=VARIABLE")
    return name.strip(), value
