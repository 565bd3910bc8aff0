"""Serve a page of one's own and the proxy, at /tools/mcp, with hypercorn.

python mount.py http://127.0.0.1:9000/mcp
"""

import sys
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig, open_reverse_proxy_app

PATH = "/tools/mcp"


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello\n"})


async def serve_both(bind, upstream, *, shutdown, task_status=trio.TASK_STATUS_IGNORED):
    config = ReverseProxyConfig(upstream=HttpUpstreamConfig(url=upstream), path=PATH)
    async with open_reverse_proxy_app(config) as proxy:

        async def app(scope, receive, send):
            is_ours = scope["type"] == "http" and scope["path"] != PATH
            await (hello if is_ours else proxy)(scope, receive, send)

        async def wait_shutdown():
            await shutdown.wait()
            proxy.begin_drain()  # ends the streams on which clients only listen

        hypercorn = Config.from_mapping(bind=[bind], graceful_timeout=10)
        await serve(app, hypercorn, shutdown_trigger=wait_shutdown, task_status=task_status)


if __name__ == "__main__":
    trio.run(partial(serve_both, "127.0.0.1:8080", sys.argv[1], shutdown=trio.Event()))
