"""What commands have in common that talk to a running proxy."""

import argparse

import pytest
import trio

from shadowcat.cli.admin_options import add_action
from shadowcat.cli.main import build_parser

LISTINGS = [["sessions", "list"], ["streams", "list"], ["upstreams", "list"]]


@pytest.mark.parametrize("argv", LISTINGS)
def test_the_address_has_a_default(argv):
    args = build_parser().parse_args(argv)
    assert ("http://127.0.0.1:9465", None, False) == (args.admin, args.token_file, args.json)


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", ""])
def test_a_limit_is_a_positive_number(limit, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["sessions", "list", f"--limit={limit}"])
    assert "must be at least 1" in capsys.readouterr().err


async def test_a_signal_ends_a_command_that_waits(autojump_clock):
    args = build_parser().parse_args(["streams", "list"])
    shutdown = trio.Event()
    parser = add_action(argparse.ArgumentParser().add_subparsers(), "wait", "wait", wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parser.get_default("run"), args, shutdown)
        await trio.sleep(1)
        shutdown.set()


async def wait(_args):
    await trio.sleep_forever()
