"""Which tool arguments are mirrored into headers, learned as lists pass by."""

from __future__ import annotations

from collections.abc import Collection

from ..protocol import (
    TOOLS_CALL,
    Headers,
    MirroredParams,
    Request,
    Response,
    check_mirrored_params,
    mirror_params,
    mirrored_params,
    read_value,
)

_MAX_TOOLS = 10_000

_Tool = tuple[int, str]


class MirroredTools:
    """Remembers which tools declare ``x-mcp-header``, to check later calls.

    A tool that was not seen in a ``tools/list`` answer is not checked here; the
    upstream checks every call itself.  Bounded: the longest known is forgotten first.

    Args:
        credentials: The headers that go upstream and may decide what it lists:
            what one caller is shown does not bind another.
    """

    def __init__(self, credentials: Collection[bytes] = ()) -> None:
        self._credentials = sorted(credentials)
        self._tools: dict[_Tool, MirroredParams] = {}

    def learn(self, headers: Headers, response: Response) -> None:
        """Take note of the answer to a ``tools/list`` request that had *headers*."""
        caller = self._caller(headers)
        if b"x-mcp-header" not in response.result and not self._tools:
            return
        result = read_value(response.result)
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and isinstance(name := tool.get("name"), str):
                self._tools.pop((caller, name), None)
                if mirrored := mirrored_params(tool.get("inputSchema")):
                    self._tools[caller, name] = mirrored
        while len(self._tools) > _MAX_TOOLS:
            del self._tools[next(iter(self._tools))]

    def check(self, headers: Headers, request: Request) -> None:
        """Check a ``tools/call`` against what its tool declares.

        Raises:
            HeaderMismatch: A mirrored argument and its header differ.
        """
        if mirrored := self._find(headers, request):
            check_mirrored_params(headers, request, mirrored)

    def headers_for(self, headers: Headers, request: Request) -> dict[bytes, bytes]:
        """Return those that a ``tools/call`` must have beside *headers*, as far as its tool is known."""
        mirrored = self._find(headers, request)
        return mirror_params(request, mirrored) if mirrored else {}

    def _find(self, headers: Headers, request: Request) -> MirroredParams | None:
        if not self._tools or request.method != TOOLS_CALL:
            return None
        params = read_value(request.params)
        name = params.get("name") if isinstance(params, dict) else None
        return self._tools.get((self._caller(headers), name)) if isinstance(name, str) else None

    def _caller(self, headers: Headers) -> int:
        # A hash, so that no credential is kept.
        return hash(tuple(headers.get(name) for name in self._credentials))
