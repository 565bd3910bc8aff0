"""Several real servers behind one name, some of which misbehave."""

import os
import random
import signal
import statistics
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from itertools import count

import attrs
import pytest
import trio

from shadowcat import (
    CheckConfig,
    CircuitConfig,
    HealthConfig,
    HttpUpstreamConfig,
    ListenerConfig,
    ReverseProxyConfig,
    UpstreamEndpointConfig,
    UpstreamSetConfig,
    serve_reverse_proxy,
)
from shadowcat.testing import modern_headers, modern_request, request
from tests.e2e.child import module, running
from tests.e2e.rawhttp import open_raw, serve_raw

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

ERRORS = {500, 502, 503, 504}
PATIENCE = 15.0
"""Seconds after which a call counts as hanging."""


async def start_proxy(nursery, upstream):
    config = ReverseProxyConfig(upstream=upstream, listener=ListenerConfig(bind="127.0.0.1:0"), shutdown_timeout=1)
    (url,) = await nursery.start(partial(serve_reverse_proxy, config))
    return url


@attrs.define
class Sample:
    at: float
    seconds: float
    is_new: bool
    """Whether it opened a session, or needed none."""
    by: str | None
    """Who answered; None if it failed."""


@attrs.define
class Drill:
    """Clients that call without a pause, and what came of it."""

    url: str
    samples: list = attrs.field(factory=list)
    wrong: list = attrs.field(factory=list)
    began: float = attrs.field(factory=trio.current_time)
    is_over: bool = False
    _numbers: count = attrs.field(factory=count)

    async def ask(self, connection, message, headers, *, is_new=False):
        """Make a call and note what came of it; return the answer, or None if it failed."""
        began = trio.current_time()
        with trio.fail_after(PATIENCE):
            answer = await connection.request("POST", "/mcp", message, **headers)
        status = int(answer.start.split()[1])
        by = None
        if status == 200:
            result = answer.json["result"]
            by = result.get("by", "")
            if answer.json["id"] != message["id"] or result.get("said") != message["params"].get("arguments"):
                self.wrong.append((message, answer))
        elif status not in ERRORS:
            self.wrong.append((message, answer))
        now = trio.current_time()
        self.samples.append(Sample(began - self.began, now - began, is_new, by))
        return answer if status == 200 else None

    async def keep_sessions(self):
        """Open one session after another, and make a few calls in each."""
        async with AsyncExitStack() as stack:
            connection = await open_raw(self.url)
            await stack.enter_async_context(connection.stream)
            while not self.is_over:
                hello = request(next(self._numbers), "initialize", protocolVersion="2025-11-25")
                opened = await self.ask(connection, hello, {}, is_new=True)
                if opened is None:
                    await trio.sleep(0.05)
                    continue
                session = {"mcp_session_id": opened.headers["mcp-session-id"]}
                before = ("", 0)
                for _ in range(random.randrange(5, 40)):
                    said = {"text": f"{next(self._numbers)}" * random.randrange(1, 50)}
                    message = request(next(self._numbers), "tools/call", name="say", arguments=said)
                    answer = await self.ask(connection, message, session)
                    if answer is not None:
                        before = self.check_number(before, answer.json["result"])
                    await trio.sleep(random.uniform(0, 0.02))
                await connection.request("DELETE", "/mcp", None, **session)

    def check_number(self, before, result):
        """See that calls were neither doubled nor mixed up with another session's."""
        by, number = result["by"], result["number"]
        # A call that failed may have been counted all the same.
        allowed = range(before[1] + 1, before[1] + 9) if by == before[0] else range(1, 9)
        if number not in allowed:
            self.wrong.append((before, result))
        return by, number

    async def keep_calling(self):
        """Make modern calls, which need no session."""
        connection = await open_raw(self.url)
        async with connection.stream:
            while not self.is_over:
                said = {"text": str(next(self._numbers))}
                message = modern_request(next(self._numbers), "tools/call", name="say", arguments=said)
                await self.ask(connection, message, modern_headers(message), is_new=True)
                await trio.sleep(random.uniform(0, 0.02))

    def report(self, title, begin, end, without=()):
        """Print what happened between two times; return the errors of all, and of new sessions."""
        found = [sample for sample in self.samples if begin <= sample.at < end and sample.by not in without]
        failed = [sample for sample in found if sample.by is None]
        times = sorted(sample.seconds for sample in found if sample.by is not None)
        new = [sample for sample in failed if sample.is_new]
        p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")
        print(
            f"{title:<34} {len(found):>6} calls  {len(failed) / max(1, len(found)):>7.2%} errors "
            f"({len(new)} of new sessions)  p50 {statistics.median(times) * 1000:>6.1f} ms  p99 {p99 * 1000:>6.1f} ms"
        )
        return len(failed), len(new)


async def test_drill(nursery, capsys):
    """One is killed, one is slow, one answers 500: who comes after their ejection notices nothing."""
    with ExitStack() as stack:
        names = {"well": "0", "killed": "0", "slow": "0.2", "broken": "0"}
        children = {
            name: stack.enter_context(running(module("tests.e2e.counting_server", "--name", name, "--delay", delay)))
            for name, delay in names.items()
        }
        urls = {name: await trio.to_thread.run_sync(child.wait_for_url) for name, child in children.items()}
        upstream = UpstreamSetConfig(
            endpoints=[
                UpstreamEndpointConfig(name=name, upstream=HttpUpstreamConfig(url=url)) for name, url in urls.items()
            ],
            strategy="power-of-two",
            health=HealthConfig(unhealthy_after=2),
            check=CheckConfig(interval=0.5, timeout=2),
            circuit=CircuitConfig(open_time=2),
        )
        drill = Drill(await start_proxy(nursery, upstream))
        async with trio.open_nursery() as clients:
            for _ in range(30):
                clients.start_soon(drill.keep_sessions)
            for _ in range(10):
                clients.start_soon(drill.keep_calling)
            await trio.sleep(4)
            os.kill(children["killed"].pid, signal.SIGKILL)
            os.kill(children["broken"].pid, signal.SIGUSR1)
            await trio.sleep(10)
            drill.is_over = True
        with capsys.disabled():
            print()
            drill.report("all well", 1, 4)
            drill.report("killed, 500: the first 3 s", 4, 7)
            errors, new = drill.report("after that", 7, 99)
            drill.report("  of those, not by the slow one", 7, 99, {"slow"})
            last = max((sample.at for sample in drill.samples if sample.by is None), default=4.0)
            print(f"the last error came {last - 4:.2f} s after the first server was lost")
    assert drill.wrong == []
    assert new == 0
    assert errors == 0
    after = {sample.by for sample in drill.samples if sample.at >= 7}
    assert after - {""} == {"well", "slow"}
    nursery.cancel_scope.cancel()


async def test_a_request_that_no_server_saw_is_sent_to_another(nursery):
    """One port is closed; nobody notices."""
    seen = []

    async def serve(connection):
        while message := await connection.read_message():
            seen.append(message.json["id"])
            await connection.answer({"jsonrpc": "2.0", "id": message.json["id"], "result": {}})

    there = await serve_raw(nursery, serve)
    endpoints = [
        UpstreamEndpointConfig(name=name, upstream=HttpUpstreamConfig(url=url))
        for name, url in [("closed", "http://127.0.0.1:9/mcp"), ("there", there)]
    ]
    url = await start_proxy(nursery, UpstreamSetConfig(endpoints=endpoints, check=None))
    with trio.fail_after(10):
        connection = await open_raw(url)
        async with connection.stream:
            for number in range(20):
                message = modern_request(number, "tools/call", name="t")
                answer = await connection.request("POST", "/mcp", message, **modern_headers(message))
                assert answer.json["id"] == number
    assert seen == list(range(20))
    nursery.cancel_scope.cancel()


async def test_a_request_that_a_server_may_have_seen_is_not_sent_again(nursery):
    """Each reads the request and hangs up."""
    seen = []

    async def serve(connection):
        seen.append(await connection.read_message())

    endpoints = [
        UpstreamEndpointConfig(name=name, upstream=HttpUpstreamConfig(url=await serve_raw(nursery, serve)))
        for name in "ab"
    ]
    url = await start_proxy(nursery, UpstreamSetConfig(endpoints=endpoints, check=None))
    message = modern_request(1, "tools/call", name="t")
    with trio.fail_after(10):
        connection = await open_raw(url)
        async with connection.stream:
            answer = await connection.request("POST", "/mcp", message, **modern_headers(message))
    assert answer.start.startswith("HTTP/1.1 502")
    assert "may have acted on the request" in answer.json["error"]["message"]
    assert len(seen) == 1
    nursery.cancel_scope.cancel()
