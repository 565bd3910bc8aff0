"""Both ends of HTTP+SSE in one process, joined without looking at a message.

Prints the URL at which clients find the server whose URL it is given.
"""

import argparse
import signal
from collections.abc import Mapping
from itertools import count

import trio

from shadowcat.auth import OriginConfig, OriginPolicy
from shadowcat.errors import StreamBroken
from shadowcat.proxy.app import AppConfig, ProxyStatistics, ReverseProxyApp
from shadowcat.proxy.config import EndpointConfig
from shadowcat.proxy.drain import Drain
from shadowcat.proxy.http_sse import HttpSseConfig, HttpSseEndpoint
from shadowcat.proxy.routes import Routes, http_sse_routes
from shadowcat.transport import MessageStream
from shadowcat.transport.downstream import ListenerConfig, open_listening_socket, serve_asgi, url_of
from shadowcat.transport.upstream import HttpSseConnector, HttpSseUpstreamConfig


async def copy(source: MessageStream, sink: MessageStream, scope: trio.CancelScope) -> None:
    try:
        while True:
            await sink.send(await source.receive())
    except StreamBroken as error:
        print(error, flush=True)
        scope.cancel()


def no_statistics() -> ProxyStatistics:
    raise NotImplementedError


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream")
    connector = HttpSseConnector(HttpSseUpstreamConfig(url=parser.parse_args().upstream))
    drain = Drain()
    ended = count(1)

    async def bridge(client: MessageStream, headers: Mapping[bytes, bytes]) -> None:
        async with connector.open(()) as server, trio.open_nursery() as nursery:
            nursery.start_soon(copy, client, server, nursery.cancel_scope)
            nursery.start_soon(copy, server, client, nursery.cancel_scope)
        print("ended:", next(ended), flush=True)

    endpoint = HttpSseEndpoint(HttpSseConfig(), EndpointConfig(heartbeat_interval=0.5), bridge)
    routes = Routes(http_sse_routes(endpoint), "/sse")
    app = ReverseProxyApp(AppConfig(), routes, OriginPolicy(OriginConfig()), drain, no_statistics)
    config = ListenerConfig(bind="127.0.0.1:0")
    with open_listening_socket(config) as sock, trio.open_signal_receiver(signal.SIGTERM) as signals:
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await serve_asgi(app, sock, config, shutdown=shutdown, graceful_timeout=1)
                nursery.cancel_scope.cancel()

            nursery.start_soon(serve)
            print(url_of(sock) + "/sse", flush=True)
            await anext(signals)
            shutdown.set()


if __name__ == "__main__":
    trio.run(main)
