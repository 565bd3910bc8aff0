"""Run the proxy in front of a demo MCP server; both stop together.

Arguments other than --bind and --upstream are handed to `shadowcat reverse`.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
from functools import partial

import trio

INITIALIZE = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",'
    ' "capabilities": {}, "clientInfo": {"name": "curl", "version": "0"}}}'
)
USAGE = """
Shadowcat serves http://{bind}/mcp in front of {upstream}.  Ctrl-C stops it.  Try:

    curl -i http://{bind}/mcp \\
        -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\
        -d '{initialize}'
"""


def parse_bind(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def start(nursery: trio.Nursery, command: list[str], host: str, port: int) -> None:
    """Start a server and wait until it accepts connections."""
    # In its own session Ctrl-C does not reach it: we stop it with SIGTERM, once.
    process = await nursery.start(partial(trio.run_process, command, start_new_session=True, check=False))
    nursery.start_soon(fail_when_ended, process)
    while True:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


async def fail_when_ended(process: trio.Process) -> None:
    raise subprocess.CalledProcessError(await process.wait(), process.args)


async def stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def serve(bind: str, upstream: str | None, options: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, nursery.cancel_scope)
        if upstream is None:
            port = free_port()
            upstream = f"http://127.0.0.1:{port}/mcp"
            await start(nursery, [sys.executable, "examples/demo_server.py", "--port", str(port)], "127.0.0.1", port)
        proxy = [sys.executable, "-m", "shadowcat", "reverse", "--bind", bind, "--upstream", upstream, *options]
        await start(nursery, proxy, *parse_bind(bind))
        print(USAGE.format(bind=bind, upstream=upstream, initialize=INITIALIZE), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bind", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--upstream", metavar="URL", help="default: a demo server on a free port")
    args, options = parser.parse_known_args()
    status = 0
    try:
        # Another server there would answer in the proxy's place while we wait for it.
        socket.create_server(parse_bind(args.bind)).close()
    except (OSError, ValueError) as exc:
        sys.exit(f"scripts/serve: cannot serve on {args.bind}: {exc}")
    try:
        trio.run(serve, args.bind, args.upstream, options)
    except* subprocess.CalledProcessError as group:
        print(f"scripts/serve: {group.exceptions[0]}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
