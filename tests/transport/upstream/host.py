"""A program with two children, for whoever wants to see what becomes of them when it is killed."""

from __future__ import annotations

import os
import sys

import trio

from shadowcat.transport.upstream import StdioConfig, StdioConnector

from .children import command


async def main(marker: str) -> None:
    connector = StdioConnector(StdioConfig(command=command("echo", marker)))
    async with connector.open(()) as one, connector.open(()) as other:
        for stream in (one, other):
            await stream.send(b"up")
            await stream.receive()
        os.write(1, b"ready\n")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
