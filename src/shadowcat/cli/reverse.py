"""``shadowcat reverse``: serve an MCP server to many clients."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ..config import REVERSE, Values, build_beside, build_reverse
from ..proxy import Beside, ReverseProxyConfig, serve_reverse_proxy
from ..transport.downstream import ServerTls, is_loopback, parse_bind
from .beside import open_beside
from .options import Subparsers, add_command, add_file, add_settings, config_path, values_of

log = logging.getLogger(__name__)

_OF_THE_SUPERVISOR = ("listener.bind", "listener.workers", "limits.shutdown_timeout")
"""What another worker does not see when it is changed."""

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
    add_file(parser)
    add_command(parser)
    add_settings(parser, REVERSE)
    parser.set_defaults(run=run, name=REVERSE)
    return parser


async def run(args: argparse.Namespace, shutdown: trio.Event) -> None:
    """Serve until *shutdown* is set."""
    values, config = values_of(args), build_config(args)
    served = build_beside(values)
    if values["listener.workers"] > 1:
        await _supervise(args, values, config, shutdown)
        return
    tls = ServerTls(config.listener.tls) if config.listener.tls is not None else None
    more: Beside | None = None
    if config_path(args) or tls:
        from .reload import open_reloading

        more = partial(open_reloading, args, values, shutdown, tls)
    beside = partial(open_beside, served, more, 0)
    await listen(config, partial(serve_reverse_proxy, config, shutdown=shutdown, beside=beside, tls=tls))


async def _supervise(
    args: argparse.Namespace, values: Values, config: ReverseProxyConfig, shutdown: trio.Event
) -> None:
    # Imported here, because it takes a while, and one process does without.
    from .workers import SupervisorConfig, supervise

    workers = SupervisorConfig(
        count=values["listener.workers"],
        arguments=args.argv,
        listener=config.listener,
        shutdown_timeout=config.shutdown_timeout,
        check=partial(_check_again, args, values),
    )
    await listen(config, partial(supervise, workers, shutdown))


async def _check_again(args: argparse.Namespace, started: Values) -> None:
    """See whether workers could use the settings as they are now.  A checkpoint, all or nothing."""
    from .reload import log_restart, read_again

    values, _ = await trio.to_thread.run_sync(read_again, args)
    log_restart(started, values, lambda key: key not in _OF_THE_SUPERVISOR)


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
    """Return what *args*, the environment and the file say, checked.

    Raises:
        ConfigError: A value is out of range or malformed, or values contradict each other.
    """
    return build_reverse(values_of(args))
