"""Which tool arguments are mirrored into headers, learned as lists pass by."""

from __future__ import annotations

from ..protocol import Headers, MirroredParams, Request, Response, check_mirrored_params, mirrored_params, read_value

_MAX_TOOLS = 10_000


class MirroredTools:
    """Remembers which tools declare ``x-mcp-header``, to check later calls.

    A tool that was not seen in a ``tools/list`` answer is not checked here; the
    upstream checks every call itself.  Bounded: the longest known is forgotten first.
    """

    def __init__(self) -> None:
        self._tools: dict[str, MirroredParams] = {}

    def learn(self, response: Response) -> None:
        """Take note of the answer to a ``tools/list`` request."""
        if b"x-mcp-header" not in response.result and not self._tools:
            return
        result = read_value(response.result)
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and isinstance(name := tool.get("name"), str):
                self._tools.pop(name, None)
                if mirrored := mirrored_params(tool.get("inputSchema")):
                    self._tools[name] = mirrored
        while len(self._tools) > _MAX_TOOLS:
            del self._tools[next(iter(self._tools))]

    def check(self, headers: Headers, request: Request) -> None:
        """Check a ``tools/call`` against what its tool declares.

        Raises:
            HeaderMismatch: A mirrored argument and its header differ.
        """
        if not self._tools:
            return
        params = read_value(request.params)
        name = params.get("name") if isinstance(params, dict) else None
        if isinstance(name, str) and name in self._tools:
            check_mirrored_params(headers, request, self._tools[name])
