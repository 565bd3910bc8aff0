"""What the commands have in common that look at a running proxy."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable

import trio

from .options import Subparsers

DEFAULT_URL = "http://127.0.0.1:9465"

Run = Callable[[argparse.Namespace], Awaitable[None]]


def add_group(commands: Subparsers, name: str, text: str, epilog: str, fill: Callable[[Subparsers], None]) -> None:
    """Add a command that has commands below it, which *fill* adds."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}, by way of its admin API.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fill(parser.add_subparsers(title="commands", metavar="COMMAND", required=True))


def add_action(actions: Subparsers, name: str, text: str, run: Run) -> argparse.ArgumentParser:
    """Add a command that *run* does."""
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "--admin", default=DEFAULT_URL, metavar="URL", help="where the admin API is; default: %(default)s"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="a file with its token; default: what $SHADOWCAT_ADMIN_TOKEN has"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    async def run_until(args: argparse.Namespace, shutdown: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at, shutdown, nursery.cancel_scope)
            await run(args)
            nursery.cancel_scope.cancel()

    parser.set_defaults(run=run_until)
    return parser


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add the option that bounds a listing."""
    parser.add_argument("--limit", type=_count, metavar="N", help="list no more than these; default: all")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


async def _cancel_at(shutdown: trio.Event, scope: trio.CancelScope) -> None:
    await shutdown.wait()
    scope.cancel()
