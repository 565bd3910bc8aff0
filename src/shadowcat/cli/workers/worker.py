"""What runs in a worker process."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
from collections.abc import Sequence
from functools import partial

import trio

from ...config import build_beside
from ...proxy import serve_reverse_proxy
from ...telemetry import configure_logging
from ..beside import open_beside
from ..main import build_parser, catch_errors, raise_file_limit
from ..options import values_of
from ..reverse import build_config
from .lifeline import DRAIN, Report, encode_report, receive

FAREWELL = 2.0
"""Seconds that a client has to send another request to a worker that retires, and to learn from the answer
that the connection ends.  One that sends nothing for as long finds it closed."""


def main(argv: Sequence[str]) -> int:
    """Serve as one of several workers, and return the exit status.

    Args:
        argv: The worker's number, the number of the file that is the bound socket, that
            of the lifeline, and the command line of the supervisor.
    """
    number, sock_file, lifeline_file = map(int, argv[:3])
    with socket.socket(fileno=sock_file) as sock, socket.socket(fileno=lifeline_file) as lifeline:
        args = build_parser().parse_args(argv[3:])
        # The supervisor gets it as well, and knows what to do.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        status, errors = catch_errors(partial(_start, args, number, sock, lifeline))
        if errors:
            # To be told once, by the supervisor; if it is gone, by nobody.
            with contextlib.suppress(OSError):
                lifeline.sendall(encode_report(Report(errors=tuple(map(str, errors)))))
        return status


def _start(args: argparse.Namespace, number: int, sock: socket.socket, lifeline: socket.socket) -> int:
    values = values_of(args)
    configure_logging(values["log.level"], values["log.format"], worker=number)
    raise_file_limit()
    return trio.run(serve, args, sock, lifeline, number)


async def serve(args: argparse.Namespace, sock: socket.socket, lifeline: socket.socket, number: int) -> int:
    """Serve on *sock* until told to end, or stop at once when the supervisor is gone.

    Signals only ever ask to retire.  Those of a terminal and of a service manager reach
    the supervisor too, and a worker must not count them as a second one.
    """
    retire, shutdown = trio.Event(), trio.Event()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(lifeline))
    async with trio.open_nursery() as nursery:
        await nursery.start(_retire_at_signal, retire)
        nursery.start_soon(_part, retire, shutdown)
        nursery.start_soon(_obey, stream, retire, shutdown, nursery.cancel_scope)
        beside = partial(open_beside, build_beside(values_of(args)), None, number)
        config = build_config(args)
        run = partial(serve_reverse_proxy, config, sock=sock, shutdown=shutdown, retire=retire, beside=beside)
        async with trio.open_nursery() as serving:
            urls = await serving.start(run)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(encode_report(Report(urls=tuple(urls))))
        nursery.cancel_scope.cancel()
    return 0


async def _retire_at_signal(
    retire: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            retire.set()


async def _part(retire: trio.Event, shutdown: trio.Event) -> None:
    await retire.wait()
    await trio.sleep(FAREWELL)
    shutdown.set()


async def _obey(lifeline: trio.SocketStream, retire: trio.Event, shutdown: trio.Event, scope: trio.CancelScope) -> None:
    while said := await receive(lifeline):
        retire.set()
        if DRAIN in said:
            shutdown.set()
    scope.cancel()
