"""Run the proxy inside a Trio program, make a call through it, and stop it.

python embed.py http://127.0.0.1:9000/mcp
"""

import sys

import httpx
import trio

from shadowcat import ReverseProxyServerBuilder, SessionConfig

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "embed", "version": "1"}},
}


async def main(upstream: str) -> None:
    server = (
        ReverseProxyServerBuilder("127.0.0.1:0", upstream)
        .with_sessions(SessionConfig(max_sessions=100))
        .with_shutdown_timeout(2)
        .build()
    )
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(server.run)  # returns once clients can connect
        print(f"serving MCP at {url}")
        async with httpx.AsyncClient() as client:
            answer = await client.post(url, json=INITIALIZE, headers={"accept": "application/json, text/event-stream"})
        print(f"{answer.status_code}, session {answer.headers['mcp-session-id']}")
        server.shutdown()  # the nursery ends when the calls under way have


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
