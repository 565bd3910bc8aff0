"""An MCP server on the standard streams that answers at once: what it costs itself is next to nothing."""

from __future__ import annotations

import re
import sys

_ID = re.compile(rb'"id": ?("[^"]*"|[^,}"]+)')
_INITIALIZED = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}'
)
_RESULT = b'{"content":[],"isError":false}'
_TOOLS = b'{"tools":[{"name":"search","inputSchema":{"type":"object"}}]}'


def main() -> None:
    """Answer each request on a line of its own."""
    for line in sys.stdin.buffer:
        found = _ID.search(line)
        if found is None or b'"method"' not in line:
            continue
        result = _RESULT
        if b'"initialize"' in line:
            result = _INITIALIZED
        elif b'"tools/list"' in line:
            result = _TOOLS
        elif b'"server/discover"' in line:
            sys.stdout.buffer.write(
                b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"unknown method"}}\n' % found[1]
            )
            sys.stdout.buffer.flush()
            continue
        sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (found[1], result))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
