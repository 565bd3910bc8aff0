"""``shadowcat streams``: look at the event streams of a running proxy."""

from __future__ import annotations

import argparse

from .admin_options import add_action, add_group, add_limit
from .options import Subparsers

_EXAMPLE = """\
example:
  shadowcat streams list --session 4cc1b3a0b7f0ff3e
"""

COLUMNS = {
    "STREAM": "key",
    "SESSION": "session",
    "KIND": "kind",
    "POSITION": "position",
    "KEPT": "events_kept",
    "BYTES": "bytes_kept",
    "CLIENT": "is_attended",
    "PARKED": "is_parked",
    "ENDED": "is_ended",
}


def add_parser(commands: Subparsers) -> None:
    """Add the command to *commands*."""
    add_group(commands, "streams", "look at the event streams of a running proxy", _EXAMPLE, _add_actions)


def _add_actions(actions: Subparsers) -> None:
    listing = add_action(actions, "list", "list the streams of the process", list_streams)
    listing.add_argument("--session", metavar="KEY", help="only those of this session")
    add_limit(listing)


async def list_streams(args: argparse.Namespace) -> None:
    """Print the streams."""
    from .admin_client import build_client
    from .table import as_json, as_table, say

    client = build_client(args)
    found = await client.list("/v1/streams", "streams", args.limit, {"session": args.session})
    say(as_json(found) if args.json else as_table(found, COLUMNS, "no streams"))
