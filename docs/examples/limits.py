"""Serve an MCP server to clients that may send only so much.

python limits.py http://127.0.0.1:9000/mcp
"""

import sys
from functools import partial

import trio

from shadowcat import LimitsConfig, ReverseProxyServerBuilder

LIMITS = LimitsConfig(
    per_client="60/min burst 20",
    per_session="10/s",
    per_tool={"search": "10/min", "*": "100/min"},
    trusted_proxies=["10.0.0.0/8"],
)


async def serve(bind, upstream, *, task_status=trio.TASK_STATUS_IGNORED):
    server = ReverseProxyServerBuilder(bind, upstream).with_limits(LIMITS).build()
    await server.run(task_status=task_status)


if __name__ == "__main__":
    trio.run(partial(serve, "127.0.0.1:8080", sys.argv[1]))
