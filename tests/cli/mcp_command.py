"""A legacy MCP server on standard streams, without any library: it tells its process id and its environment."""

import json
import os
import sys


def answer(message):
    match message["method"]:
        case "initialize":
            version = message["params"]["protocolVersion"]
            return {
                "protocolVersion": version,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "c", "version": "1"},
            }
        case "tools/call":
            told = {"pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ), "arguments": sys.argv[1:]}
            return {"content": [{"type": "text", "text": json.dumps(told)}]}
        case _:
            return {}


for line in sys.stdin:
    message = json.loads(line)
    if "method" in message and "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}), flush=True)
