"""A server that answers everything, behind a proxy with limits."""

from contextlib import asynccontextmanager

import trio

from shadowcat import HttpUpstreamConfig, LimitsConfig, ReverseProxyConfig
from shadowcat.testing import open_proxy_kit, result

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


def config_of(limits):
    return ReverseProxyConfig(upstream=NOWHERE, limits=LimitsConfig(**limits))


async def answer_all(upstream, seen):
    """Answer whatever comes, and note the methods of what came."""
    while True:
        call = await upstream.next_call()
        if call.request.method != "POST":
            seen.append(call.request.method)
            call.respond(405)
            continue
        message = call.message
        entries = message if isinstance(message, list) else [message]
        seen += [entry.get("method", "answer") for entry in entries]
        answers = [_answer(entry) for entry in entries if "id" in entry and "method" in entry]
        if answers:
            call.answer(answers if isinstance(message, list) else answers[0], headers={"mcp-session-id": "up"})
        else:
            call.respond(202)


def _answer(message):
    if message["method"] != "initialize":
        return result(message["id"])
    version = message["params"]["protocolVersion"]
    return result(message["id"], protocolVersion=version, capabilities={}, serverInfo={"name": "s", "version": "1"})


class Limited:
    """The proxy, and the methods that its server has seen."""

    def __init__(self, kit):
        self.kit = kit
        self.seen = []

    async def status(self, client, message, headers=None):
        response = await client.post(message, headers)
        await response.read()
        return response.status

    async def session(self, address="127.0.0.1", version="2025-11-25"):
        client = self.kit.new_client(address)
        response = await client.initialize(version)
        await response.read()
        assert response.status == 200
        return client


@asynccontextmanager
async def open_limited(store=None, **limits):
    with trio.fail_after(1000):
        async with open_proxy_kit(config_of(limits), store=store) as kit:
            limited = Limited(kit)
            kit.nursery.start_soon(answer_all, kit.upstream, limited.seen)
            yield limited
