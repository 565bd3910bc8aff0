"""Run the proxy in front of a demo MCP server; both stop together.

Arguments other than --bind and --upstream are handed to `shadowcat reverse`.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial

import trio

INITIALIZE = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",'
    ' "capabilities": {}, "clientInfo": {"name": "curl", "version": "0"}}}'
)
USAGE = """
Shadowcat serves {url} in front of {upstream}.  Ctrl-C stops it.  Try:

    curl -i '{url}' \\
        -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\
        -d '{initialize}'
"""


async def start(nursery: trio.Nursery, command: list[str]) -> tuple[trio.Process, str]:
    """Start a server; return it and the URL that it prints when clients can connect."""
    # In its own session Ctrl-C does not reach it: we stop it with SIGTERM.
    run = partial(trio.run_process, stdout=subprocess.PIPE, start_new_session=True, check=False)
    process = await nursery.start(run, [sys.executable, *command])
    said = b""
    async for chunk in process.stdout:
        said += chunk
        if found := re.search(rb"(http://\S+)\n", said):
            nursery.start_soon(pass_on, process.stdout)
            return process, found[1].decode()
    raise subprocess.CalledProcessError(await process.wait(), command)


async def pass_on(output: trio.abc.ReceiveStream) -> None:
    async for chunk in output:
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()


async def fail_when_ended(process: trio.Process, command: list[str]) -> None:
    raise subprocess.CalledProcessError(await process.wait(), command)


async def stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, proxies: list[trio.Process]) -> None:
    async for _ in signals:
        # The proxy stops in its own time, or at once when it is told again.
        for proxy in proxies:
            proxy.terminate()
        if not proxies:
            scope.cancel()


async def serve(bind: str, upstream: str | None, options: list[str]) -> int:
    proxies: list[trio.Process] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, signals, nursery.cancel_scope, proxies)
            if upstream is None:
                command = ["examples/demo_server.py", "--port", "0"]
                demo, upstream = await start(nursery, command)
                nursery.start_soon(fail_when_ended, demo, command)
            command = ["-m", "shadowcat", "reverse", "--bind", bind, "--upstream", upstream, *options]
            proxy, url = await start(nursery, command)
            proxies.append(proxy)
            print(USAGE.format(url=url, upstream=upstream, initialize=INITIALIZE), flush=True)
            await proxy.wait()
            # Only now the demo server: calls may have been waiting for it.
            nursery.cancel_scope.cancel()
    return (proxies[0].returncode or 0) if proxies else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bind", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--upstream", metavar="URL", help="default: a demo server on a free port")
    args, options = parser.parse_known_args()
    status = 0
    try:
        status = trio.run(serve, args.bind, args.upstream, options)
    except* subprocess.CalledProcessError as group:
        error = group.exceptions[0]
        print(f"scripts/serve: {' '.join(error.cmd[:3])} ended with status {error.returncode}", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
