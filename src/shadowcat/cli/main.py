"""``shadowcat``: parse, run, and turn errors into one line."""

from __future__ import annotations

import argparse
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import trio

from ..errors import ShadowcatError
from ..telemetry import configure_logging
from . import check, completions, config, forward, reverse, sessions, streams, upstreams
from .options import values_of

Command = Callable[[argparse.Namespace, trio.Event], Awaitable[None]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="shadowcat",
        description="A proxy for the Model Context Protocol.",
        epilog="shadowcat COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    reverse.add_parser(commands)
    forward.add_parser(commands)
    check.add_parser(commands)
    config.add_parser(commands)
    sessions.add_parser(commands)
    streams.add_parser(commands)
    upstreams.add_parser(commands)
    completions.add_parser(commands, parser)
    return parser


class _PrintVersion(argparse.Action):
    """Looks the version up when it is asked for; to do so at each start takes a tenth of it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"shadowcat {import_module('shadowcat').__version__}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    A `ShadowcatError` is something the user can act on and prints as one line;
    anything else is a bug and keeps its traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv, argparse.Namespace(argv=tuple(argv)))
    status, errors = catch_errors(partial(_start, args))
    for error in errors:
        for line in str(error).splitlines():
            print(f"shadowcat: {line}", file=sys.stderr)
    return status


def _start(args: argparse.Namespace) -> int:
    if "do" in args:
        return int(args.do(args))
    configure_logging(*_logging_of(args))
    raise_file_limit()
    # What was imported stays: there is no use in looking at it whenever something else may be garbage.
    gc.freeze()
    return trio.run(_run, args.run, args)


def _logging_of(args: argparse.Namespace) -> tuple[str, str]:
    """Return level and format of the log."""
    if "name" not in args:
        # A command that has its say on standard error: the log would say it again.
        return "error", "human"
    values = values_of(args)
    return values["log.level"], values["log.format"]


def catch_errors(run: Callable[[], int]) -> tuple[int, Sequence[ShadowcatError]]:
    """Return what *run* returns, or 1 and the errors of ours that it raises; a bug is raised."""
    try:
        return run(), []
    except ShadowcatError as error:
        return 1, [error]
    except ExceptionGroup as group:
        ours, rest = group.split(ShadowcatError)
        if rest is not None or ours is None:
            raise
        return 1, list(_leaves(ours))


def raise_file_limit() -> None:
    """Allow as many connections as the system lets us: each stream takes two files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(command: Command, args: argparse.Namespace) -> int:
    """Run *command* until it ends; the first signal asks it to, the second makes it."""
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        stopped = await nursery.start(_watch_signals, shutdown, nursery.cancel_scope)
        await command(args, shutdown)
        nursery.cancel_scope.cancel()
    return int(128 + stopped[-1]) if len(stopped) > 1 else 0


async def _watch_signals(
    shutdown: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[list[int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    received: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started(received)
        async for number in signals:
            received.append(number)
            if len(received) > 1:
                scope.cancel()
                return
            shutdown.set()


def _leaves(group: ExceptionGroup[ShadowcatError]) -> Iterator[ShadowcatError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
