"""Sign what goes upstream, and fall back on a second server.

python own_transport.py http://127.0.0.1:9000/mcp http://127.0.0.1:9001/mcp
"""

import hmac
import sys

import httpx
import trio

from shadowcat import HttpUpstream, HttpUpstreamConfig, ReverseProxyServerBuilder
from shadowcat.abc import Upstream, UpstreamRequest, UpstreamResponse
from shadowcat.errors import UpstreamUnavailable


class Signed(httpx.AsyncBaseTransport):
    """Sign each body with a key that the server knows too."""

    def __init__(self, inner: httpx.AsyncBaseTransport, key: bytes) -> None:
        self._inner = inner
        self._key = key

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        request.headers["x-signature"] = hmac.new(self._key, body, "sha256").hexdigest()
        return await self._inner.handle_async_request(request)


class Fallback(Upstream):
    """Ask *second* where *first* cannot be reached."""

    def __init__(self, first: Upstream, second: Upstream) -> None:
        self._first = first
        self._second = second

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        try:
            return await self._first.send(request)
        except UpstreamUnavailable:  # nothing was sent, so sending it again is safe
            return await self._second.send(request)


async def serve(bind, first, second, key, *, task_status=trio.TASK_STATUS_IGNORED):
    async with httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None)) as transport:
        signed = Signed(transport, key)
        upstream = Fallback(
            HttpUpstream(HttpUpstreamConfig(url=first), signed),
            HttpUpstream(HttpUpstreamConfig(url=second), signed),
        )
        server = ReverseProxyServerBuilder(bind, first).with_upstream(upstream).build()
        await server.run(task_status=task_status)


if __name__ == "__main__":
    trio.run(serve, "127.0.0.1:8080", sys.argv[1], sys.argv[2], b"the key")
