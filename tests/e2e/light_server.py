"""An MCP server on the standard streams that starts in a moment; run with ``python -S -E``.

Its tools: ``echo`` answers with its text, ``pid`` with the process, ``wait`` not at all, ``die`` ends it.
"""

import json
import os
import sys

INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "light", "version": "1"},
}


def answer(message: dict) -> object:
    if message["method"] == "initialize":
        return INITIALIZED
    if message["method"] != "tools/call":
        return {}
    arguments = message["params"].get("arguments", {})
    match message["params"]["name"]:
        case "echo":
            text = arguments["text"]
        case "pid":
            text = str(os.getpid())
        case "die":
            os._exit(3)
        case "wait":
            return None
        case _:
            text = "?"
    return {"content": [{"type": "text", "text": text}]}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        result = answer(message)
        if result is not None:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
