"""Path and method to handler."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from shadowcat import FailoverConfig, FailoverStore, HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig
from shadowcat.errors import ConfigError, MethodNotAllowed, PathNotFound, StoreUnavailable
from shadowcat.proxy.config import EndpointConfig
from shadowcat.proxy.http_sse import HttpSseConfig, HttpSseEndpoint
from shadowcat.proxy.routes import Route, Routes, http_sse_routes, join_routes, mcp_route
from shadowcat.testing import notification, open_proxy_kit

from .conversation import open_session


async def nothing(*_):
    raise AssertionError("nobody calls it")


class SwitchedStore(InMemoryStore):
    """Refuses new sessions while it is down."""

    is_down = False

    async def create_session(self, session):
        if self.is_down:
            raise StoreUnavailable("down")
        await super().create_session(session)


class TestTable:
    ROUTES = Routes({"/mcp": Route({"POST": nothing, "GET": nothing})}, "/mcp")

    def test_path_and_method_are_found(self):
        """Both are compared to the letter."""
        assert self.ROUTES.find("/mcp").handler("GET") is nothing

    @pytest.mark.parametrize("path", ["/", "", "/mcp/", "/MCP", "/mcp/../mcp", "//mcp", "/mcp?x", "/sse"])
    def test_unknown_path_is_told_the_right_one(self, path):
        """A slip in a client's configuration is seen at once."""
        with pytest.raises(PathNotFound, match="the MCP endpoint is /mcp$"):
            self.ROUTES.find(path)

    @pytest.mark.parametrize("method", ["PUT", "get", "HEAD", "OPTIONS", ""])
    def test_unknown_method_is_told_the_right_ones(self, method):
        """RFC 9110, 15.5.6: the origin server MUST generate an Allow header field in a 405 response."""
        with pytest.raises(MethodNotAllowed) as excinfo:
            self.ROUTES.find("/mcp").handler(method)
        assert excinfo.value.allow == "POST, GET"

    def test_routes_are_guarded_unless_they_say_otherwise(self):
        """Origin and Host are checked at every path that reaches the upstream."""
        assert Route({}).is_guarded


class TestOlderTransport:
    MCP: Any = SimpleNamespace(post=nothing, get=nothing, delete=nothing)

    def build(self, mcp_path, **paths):
        endpoint = HttpSseEndpoint(HttpSseConfig(**paths), EndpointConfig(), nothing)
        return Routes(join_routes({mcp_path: mcp_route(self.MCP)}, http_sse_routes(endpoint)), mcp_path)

    def test_is_served_beside_the_mcp_endpoint(self):
        """Its two paths have a method each."""
        routes = self.build("/mcp", messages_path="/m")
        assert {path: routes.find(path).allow for path in ("/mcp", "/sse", "/m")} == {
            "/mcp": "POST, GET, DELETE",
            "/sse": "GET",
            "/m": "POST",
        }

    @pytest.mark.parametrize("mcp_path", ["/sse", "/messages"])
    def test_two_endpoints_cannot_have_one_path(self, mcp_path):
        """Before anything is served."""
        with pytest.raises(ConfigError, match=f"{mcp_path} is served already; choose another"):
            self.build(mcp_path)

    async def test_is_not_served_unless_asked_for(self, autojump_clock):
        """It cannot resume anything."""
        upstream = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
        async with open_proxy_kit(ReverseProxyConfig(upstream=upstream, http_sse=None)) as kit:
            assert (await kit.client.send("GET", path="/sse")).status == 404


class TestPaths:
    @pytest.mark.parametrize(("path", "text"), [("/health", "ok"), ("/ready", "ready")])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_supervisor_is_answered_whatever_its_host(self, autojump_clock, path, text, method):
        """A probe comes by address, and never reaches the upstream."""
        async with open_proxy_kit() as kit:
            response = await kit.client.send(method, path=path, headers={"host": "10.1.2.3:8080"})

            assert (response.status, response.headers["content-type"]) == (200, "application/json")
            assert await response.json() == {"status": text}
            assert kit.upstream.hits == 0

    async def test_draining_proxy_is_healthy_but_not_ready(self, autojump_clock):
        """A balancer sends nothing more; a supervisor does not kill what is still finishing."""
        async with open_proxy_kit() as kit:
            kit.app.begin_drain()

            assert (await kit.client.send("GET", path="/health")).status == 200
            response = await kit.client.send("GET", path="/ready")
            assert (response.status, await response.json()) == (503, {"status": "draining"})

    @pytest.mark.parametrize("path", ["/health", "/ready"])
    async def test_supervisor_only_asks(self, autojump_clock, path):
        """RFC 9110, 15.5.6."""
        async with open_proxy_kit() as kit:
            response = await kit.client.send("POST", b"{}", path=path)
            assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")

    async def test_endpoint_has_three_methods_at_the_path_of_the_configuration(self, autojump_clock):
        """MCP: a single HTTP endpoint path that supports POST and GET, and DELETE for sessions."""
        async with open_proxy_kit() as kit:
            await open_session(kit)
            reached = []
            for send in (partial(kit.client.post, notification("n")), kit.client.listen, kit.client.delete):
                kit.nursery.start_soon(send)
                call = await kit.upstream.next_call()
                call.respond(202)
                await call.cancelled.wait()
                await wait_all_tasks_blocked()
                reached.append(call.request.method)
            assert reached == ["POST", "GET", "DELETE"]
            assert (await kit.client.send("PUT")).headers["allow"] == "POST, GET, DELETE"

    async def test_fallback_is_counted_while_it_is_in_use(self, autojump_clock):
        """An operator sees how much hangs on this process; the rest of the time the body is as ever."""
        store = FailoverStore(primary := SwitchedStore(), FailoverConfig())
        async with open_proxy_kit(store=store) as kit:
            await open_session(kit)
            assert await (await kit.client.send("GET", path="/ready")).json() == {"status": "ready"}

            primary.is_down = True
            await open_session(kit)
            response = await kit.client.send("GET", path="/ready")
            assert response.status == 200
            assert await response.json() == {
                "status": "degraded",
                "store": {"fallbacks": 1, "failures": 1, "pending": 1, "conflicts": 0},
            }

            primary.is_down = False
            await store.flush()
            assert (await (await kit.client.send("GET", path="/ready")).json())["store"]["pending"] == 0

    async def test_path_of_the_configuration_is_the_only_one(self, autojump_clock):
        """What was configured is what is served."""
        config = ReverseProxyConfig(upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"), path="/a/b")
        async with open_proxy_kit(config) as kit:
            assert (await kit.client.send("PUT", path="/a/b")).status == 405
            response = await kit.client.send("POST", path="/mcp")
            assert response.status == 404
            assert "/a/b" in (await response.json())["error"]["message"]
