"""``shadowcat upstreams``: look at the servers behind a running proxy, and steer them."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable

from .admin_options import add_action, add_group
from .options import Subparsers

_EXAMPLE = """\
examples:
  shadowcat upstreams list
  shadowcat upstreams drain files-1 --server files

A drained endpoint gets no new sessions, and those that it has go on.
"""

_COLUMNS = {
    "SERVER": "server",
    "ENDPOINT": "name",
    "HEALTH": "health",
    "CIRCUIT": "circuit",
    "DRAINING": "is_draining",
    "IN FLIGHT": "in_flight",
    "REQUESTS": "requests",
    "FAILURES": "failures",
}

_ACTIONS = {
    "drain": "give an endpoint no new sessions",
    "enable": "give an endpoint new sessions again",
    "reset-circuit": "close the circuit of an endpoint",
}


def add_parser(commands: Subparsers) -> None:
    """Add the command to *commands*."""
    add_group(
        commands, "upstreams", "look at the servers behind a running proxy, and steer them", _EXAMPLE, _add_actions
    )


def _add_actions(actions: Subparsers) -> None:
    add_action(actions, "list", "list servers and their endpoints", list_upstreams)
    for action, text in _ACTIONS.items():
        parser = add_action(actions, action, text, _steer(action))
        parser.add_argument("endpoint", metavar="ENDPOINT", help="as list shows it")
        parser.add_argument(
            "--server", default="default", metavar="NAME", help="the server it is one of; default: %(default)s"
        )


async def list_upstreams(args: argparse.Namespace) -> None:
    """Print the endpoints."""
    from .admin_client import build_client
    from .table import as_json, as_table, say

    client = build_client(args)
    servers = (await client.get("/v1/upstreams"))["servers"]
    rows = [{"server": each["server"], **endpoint} for each in servers for endpoint in each["endpoints"]]
    otherwise = "no endpoints to steer"
    say(as_json(servers) if args.json else as_table(rows, _COLUMNS, otherwise))


def _steer(action: str) -> Callable[[argparse.Namespace], Awaitable[None]]:
    async def steer(args: argparse.Namespace) -> None:
        from .admin_client import build_client, quoted
        from .table import as_json, as_table, say

        path = f"/v1/upstreams/{quoted(args.server)}/{quoted(args.endpoint)}/{action}"
        client = build_client(args)
        endpoint = await client.send("POST", path)
        rows = [{"server": args.server, **endpoint}]
        say(as_json(endpoint) if args.json else as_table(rows, _COLUMNS, ""))

    return steer
