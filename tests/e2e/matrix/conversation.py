"""A small MCP server, whatever carries its messages: what one client says to it, and what it answers.

It speaks both eras.  Its tools are the conversations that a proxy can get wrong.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio

Message = dict[str, Any]

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

TOOLS = ("echo", "count", "ask", "elicit", "changed", "big", "wait", "cancelled", "noise", "die")


class Conversation:
    """What one client has going on; `take` is given each of its messages, and `tell` tells it something.

    Args:
        tell: Sends a message to the client; its second argument is the id of the request that it
            belongs to, None if to none.
        is_subscribed: Whether this client wants to be told of changes of the list of tools.
    """

    def __init__(self, nursery: trio.Nursery, tell: Callable[[Message, Any], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._tell = tell
        self._asked = 0
        self._answers: dict[str, trio.Event | Message] = {}
        self._under_way: dict[str, trio.CancelScope] = {}
        self._listening: dict[str, Any] = {}
        self._cancelled = 0
        self.noise: Callable[[], Awaitable[None]] | None = None
        """Writes what is no message, on a transport where that can be done."""

    def take(self, message: Message) -> None:
        """Deal with one message of the client's, in a task if it takes longer."""
        if "method" not in message:
            event = self._answers[message["id"]]
            assert isinstance(event, trio.Event)
            self._answers[message["id"]] = message
            event.set()
        elif "id" in message:
            scope = self._under_way[json.dumps(message["id"])] = trio.CancelScope()
            self._nursery.start_soon(self._serve, message, scope)
        elif message["method"] == "notifications/cancelled":
            self.cancel(message["params"]["requestId"])

    def cancel(self, request_id: Any) -> None:
        """Stop working on a request of the client's."""
        scope = self._under_way.pop(json.dumps(request_id), None)
        self._listening.pop(json.dumps(request_id), None)
        if scope is not None:
            self._cancelled += 1
            scope.cancel()

    async def _serve(self, request: Message, scope: trio.CancelScope) -> None:
        with scope:
            params = request.get("params") or {}
            try:
                result = await self._result(request["method"], params, request["id"])
            except KeyError as error:
                answer = {"error": {"code": -32602, "message": f"{error} is missing or unknown"}}
            else:
                answer = {"result": result}
            self._under_way.pop(json.dumps(request["id"]), None)
            await self._tell({"jsonrpc": "2.0", "id": request["id"], **answer}, request["id"])

    async def _result(self, method: str, params: Message, request_id: Any) -> Message:
        await trio.lowlevel.checkpoint()
        match method:
            case "initialize":
                version = params["protocolVersion"]
                return {
                    "protocolVersion": version if version in LEGACY else LEGACY[-1],
                    "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                    "serverInfo": {"name": "matrix", "version": "1"},
                }
            case "server/discover":
                return {"resultType": "complete", "supportedVersions": [MODERN], "capabilities": {"tools": {}}}
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
            case "tools/call":
                return await self._call(params["name"], params.get("arguments") or {}, params, request_id)
            case "subscriptions/listen":
                self._listening[json.dumps(request_id)] = request_id
                await self._notify("subscriptions/acknowledged", request_id, request_id, notifications={})
                await trio.sleep_forever()
        raise KeyError(method)

    async def _call(self, name: str, arguments: Message, params: Message, request_id: Any) -> Message:
        match name:
            case "echo":
                return _text(arguments["text"])
            case "count":
                token = params["_meta"]["progressToken"]
                for step in range(arguments["steps"]):
                    await self._notify("progress", request_id, progressToken=token, progress=step)
                return _text(str(arguments["steps"]))
            case "ask":
                return _text(json.dumps(await self._ask("sampling/createMessage", request_id)))
            case "elicit":
                return _text(json.dumps(await self._ask("elicitation/create", request_id)))
            case "changed":
                for subscription in list(self._listening.values()) or [None]:
                    await self._notify("tools/list_changed", subscription, subscription)
                return _text("changed")
            case "big":
                return _text("x" * arguments["size"])
            case "wait":
                await trio.sleep_forever()
            case "cancelled":
                return _text(str(self._cancelled))
            case "noise":
                if self.noise is not None:
                    await self.noise()
                return _text("noise")
            case "die":
                raise SystemExit(3)
        raise KeyError(name)

    async def _ask(self, method: str, request_id: Any) -> Message:
        """Ask the client something, and return its answer."""
        self._asked += 1
        name = f"ask-{self._asked}"
        arrived = self._answers[name] = trio.Event()
        await self._tell({"jsonrpc": "2.0", "id": name, "method": method, "params": {"n": self._asked}}, request_id)
        await arrived.wait()
        answer = self._answers.pop(name)
        assert isinstance(answer, dict)
        result: Message = answer["result"]
        return result

    async def _notify(self, what: str, belongs_to: Any, subscription: Any = None, **params: Any) -> None:
        if subscription is not None:
            params["_meta"] = {SUBSCRIPTION: subscription}
        await self._tell({"jsonrpc": "2.0", "method": f"notifications/{what}", "params": params}, belongs_to)


def _text(text: str) -> Message:
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
