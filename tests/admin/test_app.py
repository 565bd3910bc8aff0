"""Who is let in, and what becomes of everything else that is sent."""

import json

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowcat.admin import AdminConfig
from shadowcat.admin.app import AdminApp
from shadowcat.admin.routes import ROUTES
from shadowcat.telemetry import AuditEvent

from .administering import TOKEN, AdminClient, open_admin_kit

GUARDED = [route for route in ROUTES if route.needs_token]


@pytest.fixture
async def kit():
    async with open_admin_kit() as kit:
        yield kit


def path_of(route):
    return route.path.replace("{key}", "0" * 16).replace("{server}", "default").replace("{endpoint}", "a")


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ä"])
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
async def test_nothing_is_done_without_the_token(autojump_clock, kit, route, token):
    reply = await kit.admin.send(route.method, path_of(route), token=token)
    assert (401, "Bearer") == (reply.status, reply.headers["www-authenticate"])
    assert "Authorization: Bearer TOKEN" in reply.detail


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_everything_answers_with_the_token(autojump_clock, kit, route):
    reply = await kit.admin.send(route.method, path_of(route), {"level": "info"} if route.body else b"")
    assert reply.status == (404 if "{" in route.path else 200)


async def test_who_has_no_token_does_not_learn_what_there_is(autojump_clock, kit):
    assert 401 == (await kit.admin.get("/v1/nothing", token=None)).status
    assert 404 == (await kit.admin.get("/v1/nothing")).status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "admin.example:9465"}, 421),
        ({"host": "localhost:9465", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:9465"}, 200),
        ({"host": "[::1]:9465"}, 200),
    ],
)
async def test_pages_and_rebound_names_are_kept_out(autojump_clock, kit, headers, status):
    reply = await kit.admin.get("/v1/sessions", headers=headers)
    assert status == reply.status
    assert status == 200 or "--allow" not in reply.detail


async def test_a_host_can_be_allowed(autojump_clock):
    config = AdminConfig(token=TOKEN, allowed_hosts=["admin.example"])
    async with open_admin_kit(admin=config) as kit:
        assert 200 == (await kit.admin.get("/v1/sessions", headers={"host": "admin.example:9465"})).status


async def test_an_answer_to_a_page_says_nothing_to_it(autojump_clock, kit):
    reply = await kit.admin.get("/v1/sessions", headers={"origin": "http://localhost:3000"})
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert 405 == (await kit.admin.send("OPTIONS", "/v1/sessions")).status


async def test_another_method_is_told_those_there_are(autojump_clock, kit):
    reply = await kit.admin.send("PATCH", "/v1/log-level")
    assert (405, "GET, PUT") == (reply.status, reply.headers["allow"])


async def test_a_long_body_is_refused(autojump_clock, kit):
    reply = await kit.admin.send("PUT", "/v1/log-level", b" " * 5000)
    assert (413, True) == (reply.status, "4096 bytes" in reply.detail)


async def test_a_websocket_is_refused(autojump_clock, kit):
    sent = []

    async def send(event):
        sent.append(event)

    scope = {
        "type": "websocket",
        "path": "/v1/sessions",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())],
        "extensions": {"websocket.http.response": {}},
        "subprotocols": [],
    }
    await AdminApp(kit.proxy.app, AdminConfig(token=TOKEN))(scope, trio.sleep_forever, send)
    assert 404 == sent[0]["status"]


async def test_a_bug_is_a_problem_too(autojump_clock, kit, monkeypatch, caplog):
    def statistics():
        raise ZeroDivisionError

    monkeypatch.setattr(kit.proxy.app, "statistics", statistics)
    reply = await kit.admin.get("/v1/statistics")
    assert (500, True) == (reply.status, "its log says why" in reply.detail)


PARTS = st.one_of(
    st.sampled_from(["v1", "sessions", "streams", "upstreams", "default", "a", "drain", "log-level", "", ".", ".."]),
    st.text(max_size=20),
)
PATHS = st.one_of(
    st.sampled_from([path_of(route) for route in ROUTES]), st.lists(PARTS, max_size=6).map(lambda p: "/" + "/".join(p))
)
NAMES = st.sampled_from(["limit", "cursor", "server", "idle", "session", "x"])
VALUES = st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str))
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(lambda q: "&".join(f"{k}={v}" for k, v in q))
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda c: st.lists(c) | st.dictionaries(st.text(max_size=9), c),
    max_leaves=9,
)
BODIES = st.one_of(
    st.binary(max_size=5000),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda v: json.dumps({"level": v}).encode()),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(METHODS, PATHS, QUERIES, BODIES)
def test_whatever_is_sent_is_answered_and_is_no_500(method, path, query, body):
    async def main():
        async with open_admin_kit() as kit:
            kit.proxy.app.upstream_sets = {}
            target = f"{path}?{query}".encode("utf-8", "replace").decode()
            reply = await kit.admin.send(method, target, body)
            assert reply.status < 500, reply.body
            kit.proxy.nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_two_answers_at_once_do_not_mix(autojump_clock, kit):
    client = AdminClient(AdminApp(kit.proxy.app, AdminConfig(token=TOKEN)), kit.proxy.nursery)
    replies, paths = {}, ("/v1/sessions", "/v1/store", "/v1/statistics", "/v1/nothing")

    async def ask(path):
        replies[path] = await client.get(path)

    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(ask, path)
    assert [200, 200, 200, 404] == [replies[path].status for path in paths]


class Audit:
    """Remembers what it was told."""

    def __init__(self):
        self.events = []

    async def note(self, event, **fields):
        await trio.lowlevel.checkpoint()
        self.events.append((event, fields))


async def test_what_is_done_is_written_down_and_what_is_looked_at_is_not(autojump_clock, kit):
    kit.proxy.app.audit = audit = Audit()
    await kit.admin.get("/v1/sessions")
    await kit.admin.send("PUT", "/v1/log-level", {"level": "info"})
    await kit.admin.send("PUT", "/v1/log-level", {"level": "nonsense"})
    await kit.admin.send("DELETE", f"/v1/sessions/{'0' * 16}")
    assert audit.events == [(AuditEvent.ADMIN_ACTION, {"action": "PUT /v1/log-level"})]
