"""What a client does with the server of `conversation`, whatever is between them."""

import json
from collections.abc import Callable

import trio

from tests.e2e.matrix.clients import Client
from tests.e2e.matrix.conversation import Message


def method(name: str) -> Callable[[Message], bool]:
    return lambda message: message.get("method") == name


async def calls(session: Client) -> None:
    assert await session.call("echo", {"text": "hällo\n\u2028"}) == "hällo\n\u2028"
    answer = await session.answer(await session.ask("no/such/method"))
    assert answer["error"]["code"] == -32602
    tools = await session.answer(await session.ask("tools/list"))
    assert len(tools["result"]["tools"]) == 10


async def progress(session: Client) -> None:
    text = await session.call("count", {"steps": 5}, _meta={"progressToken": "mine"})
    assert text == "5"
    steps = [(await session.hear(method("notifications/progress")))["params"] for _ in range(5)]
    assert steps == [{"progressToken": "mine", "progress": n} for n in range(5)]


async def calls_at_once_with_one_progress_token(session: Client) -> None:
    ids = [
        await session.ask(
            "tools/call", {"name": "count", "arguments": {"steps": 3}, "_meta": {"progressToken": "same"}}
        )
        for _ in range(10)
    ]
    for request_id in ids:
        assert (await session.answer(request_id))["result"]["content"][0]["text"] == "3"
    for _ in range(30):
        assert (await session.hear(method("notifications/progress")))["params"]["progressToken"] == "same"


async def cancel(session: Client) -> None:
    before = int(await session.call("cancelled"))
    request_id = await session.ask("tools/call", {"name": "wait"})
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
    with trio.fail_after(10):
        while int(await session.call("cancelled")) == before:
            # Again, because over HTTP it can arrive before the request that it names.
            await session.say(cancelled)


async def the_server_asks(session: Client) -> None:
    for tool, asked in (("ask", "sampling/createMessage"), ("elicit", "elicitation/create")):
        await _ask(session, tool, asked)


async def _ask(session: Client, tool: str, asked: str) -> None:
    request_id = await session.ask("tools/call", {"name": tool})
    question = await session.hear(method(asked))
    await session.say({"jsonrpc": "2.0", "id": question["id"], "result": {"said": "yes"}})
    answer = await session.answer(request_id)
    assert json.loads(answer["result"]["content"][0]["text"]) == {"said": "yes"}


async def list_changed(session: Client) -> None:
    await trio.sleep(0.1)  # for the listening stream of those who have one
    await session.call("changed")
    await session.hear(method("notifications/tools/list_changed"))


async def big_messages(session: Client) -> None:
    size = 3_000_000
    assert await session.call("big", {"size": size}) == "x" * size
    assert await session.call("echo", {"text": "y" * size}) == "y" * size


async def bad_bytes(session: Client) -> None:
    await session.put(b'{"jsonrpc": "2.0", ')
    refusal = await session.hear(lambda told: "error" in told and told.get("id") is None)
    assert refusal["error"]["code"] == -32700
    assert await session.call("echo", {"text": "still here"}) == "still here"


async def noise_of_the_server(session: Client) -> None:
    assert await session.call("noise") == "noise"
    assert await session.call("echo", {"text": "still here"}) == "still here"


async def modern_calls(modern: Client) -> None:
    found = await modern.answer(await modern.ask("server/discover"))
    assert found["result"]["supportedVersions"] == ["2026-07-28"]
    assert await modern.call("echo", {"text": "hällo"}) == "hällo"


async def modern_progress(modern: Client) -> None:
    assert await modern.call("count", {"steps": 3}, _meta={"progressToken": 7}) == "3"
    steps = [(await modern.hear(method("notifications/progress")))["params"] for _ in range(3)]
    assert [(step["progressToken"], step["progress"]) for step in steps] == [(7, 0), (7, 1), (7, 2)]


async def modern_cancel(modern: Client) -> None:
    before = int(await modern.call("cancelled"))
    request_id = await modern.ask("tools/call", {"name": "wait"})
    await trio.sleep(0.2)
    await modern.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}})
    with trio.fail_after(10):
        while int(await modern.call("cancelled")) == before:
            pass


async def modern_listen(modern: Client) -> None:
    listening = await modern.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "mine")
    started = await modern.hear(method("notifications/subscriptions/acknowledged"))
    assert started["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening
    with trio.fail_after(10):
        while True:  # pooled servers do not know of one another: ask until the same one is met
            await modern.call("changed")
            with trio.move_on_after(0.2):
                told = await modern.hear(
                    lambda message: (
                        method("notifications/tools/list_changed")(message)
                        and "io.modelcontextprotocol/subscriptionId" in (message["params"].get("_meta") or {})
                    )
                )
                break
    assert told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening


async def modern_big_messages(modern: Client) -> None:
    assert await modern.call("big", {"size": 3_000_000}) == "x" * 3_000_000


LEGACY = (
    calls,
    progress,
    calls_at_once_with_one_progress_token,
    cancel,
    the_server_asks,
    list_changed,
    big_messages,
    bad_bytes,
    noise_of_the_server,
)
MODERN = (
    modern_calls,
    modern_progress,
    modern_cancel,
    modern_listen,
    modern_big_messages,
)
