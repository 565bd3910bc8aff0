"""Call a server over some connections; used where wrk is not installed.

Standard input holds ``{"url", "connections", "seconds", "headers", "head", "tail"}``;
the counts are printed in the end, and the median of the times that calls took.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httptools
import trio


class Answers:
    """Counts the answers on one connection."""

    def __init__(self) -> None:
        self.complete = 0
        self.failed = 0
        self.is_open = True
        self.parser = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        self.complete += 1
        self.failed += self.parser.get_status_code() != 200
        self.is_open = self.parser.should_keep_alive()


class Load:
    """The same call, again and again."""

    def __init__(self, order: dict[str, Any]) -> None:
        url = urlsplit(order["url"])
        self._address = url.hostname or "", url.port or 80
        fields = {"Host": url.netloc, **order["headers"]}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._head = f"POST {url.path or '/'} HTTP/1.1\r\n{head}Content-Length: "
        self._body = order["head"], order["tail"]
        self._ids = count(1)
        self.answers: list[Answers] = []
        self.times: list[float] = []

    def request(self) -> bytes:
        """Return the call with another id."""
        body = str(next(self._ids)).join(self._body)
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode()

    async def connect(self) -> None:
        """Call over one connection, and the next when the server closes it, for ever."""
        while True:
            answers = Answers()
            self.answers.append(answers)
            async with await trio.open_tcp_stream(*self._address) as stream:
                await self._converse(stream, answers)

    async def _converse(self, stream: trio.SocketStream, answers: Answers) -> None:
        while answers.is_open:
            sent = answers.complete
            start = time.perf_counter()
            await stream.send_all(self.request())
            while answers.complete == sent:
                data = await stream.receive_some(65536)
                if not data:
                    return
                answers.parser.feed_data(data)
            self.times.append(time.perf_counter() - start)


async def main() -> None:
    """Do what standard input says."""
    order = json.load(sys.stdin)
    load = Load(order)
    start = trio.current_time()
    with trio.move_on_after(order["seconds"]):
        async with trio.open_nursery() as nursery:
            for _ in range(order["connections"]):
                nursery.start_soon(load.connect)
    calls = sum(answers.complete for answers in load.answers)
    failed = sum(answers.failed for answers in load.answers)
    seconds, p50 = trio.current_time() - start, statistics.median(load.times or [0.0])
    print(json.dumps({"calls": calls, "seconds": seconds, "failed": failed, "p50": p50}))


if __name__ == "__main__":
    trio.run(main)
