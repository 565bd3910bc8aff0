"""``shadowcat reverse``: serve an MCP server to many clients."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from ..proxy import ReverseProxyConfig, serve_reverse_proxy
from ..session import StorageConfig
from ..transport.downstream import ListenerConfig, is_loopback, parse_bind
from .options import (
    CHILDREN_OPTIONS,
    OPTIONS,
    Subparsers,
    add_letting_in,
    add_limits,
    add_number,
    add_streams,
    build_endpoint,
    build_origin,
    build_recovery,
    build_sessions,
    naming,
)
from .server import add_server, build_children, build_server
from .storage import add_storage, build_storage
from .workers import SupervisorConfig, check_workers, supervise

log = logging.getLogger(__name__)

_EXAMPLE = """\
examples:
  shadowcat reverse --bind 127.0.0.1:8080 --upstream http://127.0.0.1:9000/mcp
  shadowcat reverse --bind 127.0.0.1:8080 -- uvx mcp-server-time

Clients then use http://127.0.0.1:8080/mcp instead of the server's own URL.
The first SIGINT or SIGTERM lets calls finish, the second stops at once.
"""


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser."""
    parser = commands.add_parser(
        "reverse",
        help="serve an MCP server to many clients",
        description="Serve an MCP server over Streamable HTTP, with sessions of our own.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bind", default="127.0.0.1:8080", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--path", default="/mcp", help="where clients find the endpoint; default: %(default)s")
    add_number(parser, "--workers", int, 1, "processes that serve; more than 1 need the sqlite or redis store")
    add_server(parser)
    add_letting_in(parser)
    add_storage(parser)
    add_streams(parser)
    add_limits(parser)
    parser.set_defaults(run=run, name="reverse")
    return parser


async def run(args: argparse.Namespace, shutdown: trio.Event) -> None:
    """Serve until *shutdown* is set."""
    config = build_config(args)
    if args.workers == 1:
        await listen(config, partial(serve_reverse_proxy, config, shutdown=shutdown))
        return
    workers = SupervisorConfig(
        count=args.workers,
        arguments=args.argv,
        listener=config.listener,
        shutdown_timeout=config.shutdown_timeout,
    )
    await listen(config, partial(supervise, workers, shutdown))


async def listen(config: ReverseProxyConfig, serve: Callable[..., Awaitable[None]]) -> None:
    """Run *serve*, which tells where it serves *config*, and print that.  Cancel safe."""
    host, _ = parse_bind(config.listener.bind)
    if not is_loopback(host):
        log.warning(
            "listening on %s: anyone who can reach it can use the upstream; "
            "clients that use another host name than loopback need --allow-host",
            host,
        )

    async with trio.open_nursery() as nursery:
        for url in await nursery.start(serve):
            print(f"shadowcat: serving MCP at {url}", flush=True)


def build_config(args: argparse.Namespace) -> ReverseProxyConfig:
    """Return what *args* say, checked.

    Raises:
        ConfigError: A value is out of range or malformed, or values contradict each other.
    """
    config = build_listening(args, build_storage(args, os.environ))
    check_workers(args.workers, config.storage, config.upstream)
    if args.workers > 1:
        # A message over HTTP+SSE would have to reach the process that has its stream.
        config = attrs.evolve(config, http_sse=None)
    return config


def build_listening(args: argparse.Namespace, storage: StorageConfig) -> ReverseProxyConfig:
    """As `build_config`, with sessions kept in *storage*."""
    with naming(OPTIONS, args):
        upstream = build_server(args)
        with naming(CHILDREN_OPTIONS if args.command else OPTIONS, args):
            children = build_children(args, upstream, default_spares=1)
        return ReverseProxyConfig(
            upstream=upstream,
            children=children,
            listener=ListenerConfig(bind=args.bind),
            path=args.path,
            endpoint=build_endpoint(args),
            sessions=build_sessions(args),
            recovery=build_recovery(args),
            storage=storage,
            origin=build_origin(args),
            shutdown_timeout=args.shutdown_timeout,
        )
