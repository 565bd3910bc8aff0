"""A proxy before several scripted servers."""

from contextlib import asynccontextmanager

import attrs
import trio

from shadowcat import HttpUpstreamConfig, ReverseProxyConfig, UpstreamEndpointConfig, UpstreamSetConfig
from shadowcat.testing import ProxyClient, ProxyKit, ScriptedUpstream, open_proxy_kit


def at(name):
    return HttpUpstreamConfig(url=f"http://{name}.invalid/mcp")


def several(*names, **more):
    """Return a set of endpoints that are called like their hosts."""
    endpoints = [UpstreamEndpointConfig(name=name, upstream=at(name)) for name in names]
    return UpstreamSetConfig(endpoints=endpoints, **{"check": None, **more})


class Clients(ProxyClient):
    """A client of one server, by path."""

    path = "/mcp"

    async def send(self, method, body=b"", headers=None, path=None):
        return await super().send(method, body, headers, path or self.path)


@attrs.frozen
class World:
    kit: ProxyKit
    servers: dict[str, ScriptedUpstream]

    def client(self, path="/mcp"):
        found = Clients(self.kit.app, self.kit.nursery)
        found.path = path
        return found

    async def open(self, server, path="/mcp", session_id=None):
        """Open a session that is to arrive at *server*; return its client."""
        client = self.client(path)
        self.kit.nursery.start_soon(self.servers[server].answer_initialize, session_id or f"{server}-1")
        with trio.fail_after(60):
            response = await client.initialize()
        assert response.status == 200
        await response.read()
        return client


@asynccontextmanager
async def serving(names, store=None, **config):
    """Open a proxy; each of *names* is a scripted server at its own URL."""
    servers = {name: ScriptedUpstream() for name in names}
    upstreams = {at(name).url: server for name, server in servers.items()}
    async with open_proxy_kit(ReverseProxyConfig(**config), store=store, upstreams=upstreams) as kit:
        yield World(kit, servers)
