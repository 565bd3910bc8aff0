"""An MCP server of both eras that counts the calls of each session, and can be made to misbehave.

A call is answered with what it said, the server's name, and its number in its session.
SIGUSR1: every request is answered with 500 from then on.  ``--delay``: seconds before each answer.
"""

import argparse
import signal
from itertools import count

import trio

from tests.e2e.rawhttp import RawConnection, RawMessage, serve_raw

LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "counting", "version": "1"}}


class CountingServer:
    def __init__(self, name: str, delay: float) -> None:
        self.name = name
        self.is_broken = False
        self._delay = delay
        self._sessions: dict[str, int] = {}
        self._numbers = count(1)

    async def serve(self, connection: RawConnection) -> None:
        while request := await connection.read_message():
            await trio.sleep(self._delay)
            if self.is_broken:
                await connection.answer({"error": "broken"}, "500 Internal Server Error")
            else:
                await self._answer(connection, request)

    async def _answer(self, connection: RawConnection, request: RawMessage) -> None:
        session = request.headers.get("mcp-session-id")
        if session is not None and session not in self._sessions:
            await connection.answer(None, "404 Not Found")
        elif not request.body:
            self._sessions.pop(session or "", None)
            await connection.answer(None)
        elif (message := request.json).get("id") is None:
            await connection.answer(None, "202 Accepted")
        elif message["method"] == "initialize":
            opened = f"{self.name}-{next(self._numbers)}"
            self._sessions[opened] = 0
            await self._result(connection, message, LEGACY, mcp_session_id=opened)
        else:
            number = 0
            if session is not None:
                number = self._sessions[session] = self._sessions[session] + 1
            said = message["params"].get("arguments")
            await self._result(connection, message, {"said": said, "by": self.name, "number": number})

    async def _result(self, connection: RawConnection, message: dict, result: object, **headers: str) -> None:
        await connection.answer({"jsonrpc": "2.0", "id": message["id"], "result": result}, **headers)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    args = parser.parse_args()
    server = CountingServer(args.name, args.delay)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            print("serving", await serve_raw(nursery, server.serve), flush=True)
            async for _ in signals:
                server.is_broken = True


if __name__ == "__main__":
    trio.run(main)
