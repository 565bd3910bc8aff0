"""``shadowcat sessions``: look at the sessions of a running proxy, and end them."""

from __future__ import annotations

import argparse

import trio

from .admin_options import add_action, add_group, add_limit
from .options import Subparsers

_EXAMPLE = """\
examples:
  shadowcat sessions list --idle 600
  shadowcat sessions show 4cc1b3a0b7f0ff3e
  shadowcat sessions end 4cc1b3a0b7f0ff3e

Sessions go by keys here: their ids are secrets of their clients.
"""

_COLUMNS = {
    "KEY": "key",
    "SERVER": "server",
    "CLIENT": "client",
    "VERSION": "protocol_version",
    "STREAMS": "streams",
    "IDLE": "idle",
    "HERE": "is_here",
}


def add_parser(commands: Subparsers) -> None:
    """Add the command to *commands*."""
    add_group(commands, "sessions", "look at the sessions of a running proxy, and end them", _EXAMPLE, _add_actions)


def _add_actions(actions: Subparsers) -> None:
    listing = add_action(actions, "list", "list sessions", list_sessions)
    listing.add_argument("--server", metavar="NAME", help="only those of this server")
    listing.add_argument("--idle", type=float, metavar="N", help="only those not used for more than N seconds")
    add_limit(listing)
    showing = add_action(actions, "show", "show one session and its streams", show_session)
    showing.add_argument("key", metavar="KEY", help="as list shows it")
    ending = add_action(actions, "end", "end sessions, here and upstream", end_sessions)
    ending.add_argument("keys", nargs="+", metavar="KEY", help="as list shows it")


async def list_sessions(args: argparse.Namespace) -> None:
    """Print the sessions."""
    from .admin_client import build_client
    from .table import as_json, as_table, say

    client = build_client(args)
    query = {"server": args.server, "idle": args.idle}
    found = await client.list("/v1/sessions", "sessions", args.limit, query)
    if args.json:
        say(as_json(found))
        return
    rows = [{**session, "idle": f"{session['idle_seconds']:.0f} s"} for session in found]
    say(as_table(rows, _COLUMNS, "no sessions"))


async def show_session(args: argparse.Namespace) -> None:
    """Print one session."""
    from .admin_client import build_client, quoted
    from .streams import COLUMNS
    from .table import as_json, as_lines, as_table, say

    client = build_client(args)
    session = await client.get(f"/v1/sessions/{quoted(args.key)}")
    if args.json:
        say(as_json(session))
        return
    streams = session.pop("open_streams")
    where = "none" if session["is_here"] else "none here; the session may be in use at another process"
    say(f"{as_lines(session)}\n\n{as_table(streams, COLUMNS, f'streams: {where}')}")


async def end_sessions(args: argparse.Namespace) -> None:
    """End the sessions one by one; the first that cannot be ended stops it."""
    from .admin_client import build_client, quoted
    from .table import as_json, say

    client = build_client(args)
    await trio.lowlevel.checkpoint()
    for key in args.keys:
        ended = await client.send("DELETE", f"/v1/sessions/{quoted(key)}")
        say(as_json(ended) if args.json else f"ended {ended['key']}")
