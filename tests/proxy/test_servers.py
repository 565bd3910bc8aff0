"""Several servers behind one proxy, by path and by rule."""

import json

import pytest
import trio

from shadowcat import InMemoryStore, OriginConfig, ReverseProxyConfig, ServerRule, SessionConfig
from shadowcat.errors import ConfigError, PathNotFound
from shadowcat.proxy.servers import mcp_paths
from shadowcat.testing import modern_headers, modern_request, request, result

from .conversation import Pending
from .piping import PipePeer
from .serving_several import at, serving

HOSTS = OriginConfig(allowed_hosts=["files.example", "mail.example"])


async def call(world, client, server, headers=None, message=None):
    """Make a call that is to arrive at *server*, and return its answer."""
    message = message or request(1, "tools/call", name="t")
    pending = Pending()
    world.kit.nursery.start_soon(pending.run, client.post, message, headers)
    with trio.fail_after(60):
        sent = await world.servers[server].next_call()
        sent.answer(result(1, from_=server))
        return await (await pending()).json()


async def test_each_server_has_its_path(autojump_clock):
    async with serving("abc", upstream=at("a"), servers={"files": at("b"), "mail": at("c")}) as world:
        for path, server in [("/mcp", "a"), ("/mcp/files", "b"), ("/mcp/mail", "c")]:
            client = await world.open(server, path)
            assert await call(world, client, server) == result(1, from_=server)
            message = modern_request(1, "tools/call", name="t")
            assert await call(world, world.client(path), server, modern_headers(message), message)


async def test_a_session_is_known_at_its_own_server_only(autojump_clock):
    """At another it is as unknown as any: the client opens one there."""
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}) as world:
        client = await world.open("b", "/mcp/files")
        for method in ("POST", "GET", "DELETE"):
            response = await client.send(method, json.dumps(request(1, "ping")).encode(), path="/mcp")
            assert response.status == 404
            assert "no such session" in (await response.json())["error"]["message"]
        assert world.servers["a"].hits == 0
        assert await call(world, client, "b")


async def test_the_server_of_a_session_is_in_the_store(autojump_clock):
    """So another process finds it too, and one that knows no such server does not."""
    store = InMemoryStore()
    async with serving("ab", store, upstream=at("a"), servers={"files": at("b")}) as world:
        client = await world.open("b", "/mcp/files")
        assert [session.upstream_name for session in await store.get_sessions_batch([client.session_id])] == ["files"]
        async with serving("ab", store, upstream=at("a"), servers={"files": at("b")}) as other:
            moved = other.client("/mcp/files")
            moved.session_id, moved.protocol_version = client.session_id, client.protocol_version
            assert await call(other, moved, "b")


async def test_a_path_that_names_no_server_says_where_they_are(autojump_clock):
    async with serving("ab", servers={"files": at("a"), "mail": at("b")}) as world:
        for path, said in [
            ("/mcp", "no server is meant by this request"),
            ("/mcp/other", "nothing is served here"),
        ]:
            response = await world.client(path).post(request(1, "initialize"))
            assert response.status == 404
            text = (await response.json())["error"]["message"]
            assert text == f"{said}; the MCP endpoints are /mcp/files, /mcp/mail"


async def test_rules_choose_the_server_of_the_bare_path(autojump_clock):
    rules = [
        ServerRule(server="files", host="files.example"),
        ServerRule(server="mail", header="x-tenant", value="acme"),
    ]
    servers = {"files": at("b"), "mail": at("c")}
    async with serving("abc", upstream=at("a"), servers=servers, rules=rules, origin=HOSTS) as world:
        message = modern_request(1, "tools/call", name="t")
        for headers, server in [
            ({"host": "files.example"}, "b"),
            ({"x-tenant": "acme"}, "c"),
            ({"host": "files.example:80", "x-tenant": "acme"}, "b"),
            ({}, "a"),
        ]:
            assert await call(world, world.client(), server, {**modern_headers(message), **headers}, message)
        client = await world.open("a")
        assert await call(world, client, "a")
        response = await client.post(request(1, "ping"), {"x-tenant": "acme"})
        assert response.status == 404  # the session is of another server
        response = await client.post(request(1, "ping"), {"host": "evil.example"})
        assert response.status == 421  # rules let nobody in


async def test_one_server_may_be_reached_by_its_name_and_by_rule(autojump_clock):
    rules = [ServerRule(server="files", header="x-tenant", value="acme")]
    async with serving("a", servers={"files": at("a")}, rules=rules) as world:
        client = await world.open("a", "/mcp/files")
        client.path = "/mcp"
        assert await call(world, client, "a", {"x-tenant": "acme"})
        assert (await client.post(request(1, "ping"))).status == 404


async def test_expired_sessions_are_ended_at_their_own_servers(autojump_clock):
    config = SessionConfig(max_idle=100)
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}, sessions=config) as world:
        await world.open("a")
        await world.open("b", "/mcp/files", session_id="of-files")
        await trio.sleep(1000)
        for server, session_id in [("a", "a-1"), ("b", "of-files")]:
            farewell = await world.servers[server].next_call()
            assert farewell.request.method == "DELETE"
            assert farewell.headers["mcp-session-id"] == session_id
        assert [world.servers[name].hits for name in "ab"] == [2, 2]


async def test_a_lost_session_is_opened_again_at_its_own_server(autojump_clock):
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}) as world:
        client = await world.open("b", "/mcp/files")
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, client.post, request(1, "tools/list"))
        server = world.servers["b"]
        (await server.next_call()).respond(404)
        await server.answer_initialize("b-2")
        (await server.next_call()).respond(202)
        again = await server.next_call()
        assert again.headers["mcp-session-id"] == "b-2"
        again.answer(result(1))
        assert await (await pending()).json() == result(1)
        assert world.servers["a"].hits == 1 - 1


async def test_tools_of_one_server_say_nothing_of_anothers(autojump_clock):
    """What a list declares holds for its own server."""
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}) as world:
        listing = modern_request(1, "tools/list")
        schema = {"type": "object", "properties": {"x": {"type": "string", "x-mcp-header": "X"}}}
        pending = Pending()
        world.kit.nursery.start_soon(pending.run, world.client().post, listing, modern_headers(listing))
        tools = [{"name": "t", "inputSchema": schema}]
        (await world.servers["a"].next_call()).answer(result(1, tools=tools))
        await (await pending()).read()
        message = modern_request(1, "tools/call", name="t", arguments={"x": "1"})
        assert (await world.client().post(message, modern_headers(message))).status == 400
        assert await call(world, world.client("/mcp/files"), "b", modern_headers(message), message)


async def test_sse_streams_of_a_server_are_below_its_name_too(autojump_clock):
    async with serving("ab", upstream=at("a"), servers={"files": at("b")}) as world:
        for path, messages, server in [("/sse", "/messages", "a"), ("/sse/files", "/messages/files", "b")]:
            stream = await world.client().send("GET", path=path)
            endpoint = (await stream.next_event()).data.decode()
            assert endpoint.startswith(f"{messages}?session_id=")
            world.kit.nursery.start_soon(world.servers[server].answer_initialize, server)
            body = json.dumps(request(0, "initialize", protocolVersion="2024-11-05")).encode()
            assert (await world.client().send("POST", body, path=endpoint)).status == 202
            assert (await stream.next_message())["result"]["protocolVersion"] == "2025-11-25"
            stream.leave()


async def test_rules_hold_for_sse_streams(autojump_clock):
    rules = [ServerRule(server="files", header="x-tenant", value="acme")]
    async with serving("a", servers={"files": at("a")}, rules=rules) as world:
        stream = await world.client().send("GET", path="/sse", headers={"x-tenant": "acme"})
        assert (await stream.next_event()).data.startswith(b"/messages/files?")
        stream.leave()
        for method, path in [("GET", "/sse"), ("POST", "/messages"), ("GET", "/ws")]:
            assert (await world.client().send(method, path=path)).status == 404


async def test_clients_on_pipes_are_served_by_the_same_rules(autojump_clock):
    rules = [ServerRule(server="files", header="x-tenant", value="acme")]
    async with serving("a", servers={"files": at("a")}, rules=rules) as world:
        peer = PipePeer(10)
        world.kit.nursery.start_soon(world.kit.app.serve_pipe, peer.stream, {b"x-tenant": b"acme"})
        world.kit.nursery.start_soon(world.servers["a"].answer_initialize)
        answer = await peer.call(request(0, "initialize", protocolVersion="2025-11-25"))
        assert answer["result"]["protocolVersion"] == "2025-11-25"
        with pytest.raises(PathNotFound, match="/mcp/files"):
            await world.kit.app.serve_pipe(PipePeer(10).stream)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "name the MCP server: set upstream, or servers by name"),
        ({"servers": {"a/b": at("a")}}, "'a/b' cannot be the name of a server"),
        ({"servers": {"..": at("a")}}, "'..' cannot be the name of a server"),
        ({"servers": {"default": at("a")}}, "'default' is the server without a name"),
        (
            {"servers": {"a": at("a")}, "rules": [ServerRule(server="b", host="h")]},
            "names the server 'b'; choose one of: a$",
        ),
        (
            {"servers": {"a": at("a")}, "rules": [ServerRule(server="default", host="h")]},
            "names the server 'default'; choose one of: a$",
        ),
        ({"servers": {"a": at("a")}, "ws_path": "/mcp/a"}, "'/mcp/a' cannot be the path of two"),
        ({"servers": {"health": at("a")}, "path": "/"}, "'/health' cannot be the path of two"),
    ],
)
def test_what_cannot_be_is_a_config_error(config, said):
    with pytest.raises(ConfigError, match=said):
        ReverseProxyConfig(**config)


def test_where_servers_are():
    assert mcp_paths("/mcp", ["a", "default"], has_bare=False) == ["/mcp", "/mcp/a"]
    assert mcp_paths("/", ["a", "b"], has_bare=False) == ["/a", "/b"]
    assert mcp_paths("/mcp", ["a"], has_bare=True) == ["/mcp", "/mcp/a"]
    config = ReverseProxyConfig(servers={"a": at("a")})
    assert config.mcp_paths == ["/mcp/a"]
    assert list(config.upstreams) == ["a"]
