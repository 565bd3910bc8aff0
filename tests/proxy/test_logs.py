"""What a proxy writes down of itself: all that happened, and nothing that is secret."""

import json
import sys

import attrs
import pytest
import trio

import shadowcat.telemetry
from shadowcat import ReverseProxyConfig, SessionConfig
from shadowcat.errors import ConfigError, UpstreamTimeout
from shadowcat.proxy.logs import audit_circuits
from shadowcat.record import digest
from shadowcat.resilience import CircuitConfig
from shadowcat.telemetry import AccessLogConfig, AuditLog, AuditLogConfig, JsonLines, TracingConfig
from shadowcat.telemetry.config import LogFileConfig
from shadowcat.testing import ScriptedUpstream, open_proxy_kit, request, result
from shadowcat.transport.upstream import HttpUpstreamConfig
from shadowcat.upstreams import Endpoint, UpstreamSet
from tests.proxy.conversation import open_session, start_post, start_stream
from tests.waiting import wait_until

NOWHERE = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
SECRET = "s3cr3t"


class Files:
    """The two logs of a proxy."""

    def __init__(self, folder):
        self.access, self.audit = folder / "access.log", folder / "audit.log"

    def config(self, **others):
        return ReverseProxyConfig(
            upstream=NOWHERE,
            access=AccessLogConfig(path=str(self.access)),
            audit=AuditLogConfig(path=str(self.audit)),
            **others,
        )

    def accesses(self):
        return [json.loads(line) for line in self.access.read_text().splitlines()]

    def audits(self, *events):
        found = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [line for line in found if not events or line["event"] in events]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def session_of(kit):
    return kit.client.session_id


async def call(kit, message, answer, headers=None):
    pending, response = await start_post(kit, message, headers=headers)
    if isinstance(answer, Exception):
        pending.fail(answer)
    else:
        pending.answer(answer)
    await (await response()).read()


async def test_each_exchange_has_a_line(files):
    async with open_proxy_kit(files.config()) as kit:
        await open_session(kit)
        await call(kit, request(1, "tools/call", name="add"), result(1))
        await call(kit, request(2, "tools/list"), UpstreamTimeout("too long"))
        await (await kit.client.send("GET", path="/nowhere")).read()
        await (await kit.client.send("GET", path="/health")).read()
        session = digest(session_of(kit))
        await trio.testing.wait_all_tasks_blocked()
    lines = files.accesses()
    wanted = ("http_method", "path", "status", "outcome", "method", "name", "session", "error")
    assert [tuple(line.get(name) for name in wanted) for line in lines] == [
        ("POST", "/mcp", 200, "ok", "initialize", None, session, None),
        ("POST", "/mcp", 200, "ok", "tools/call", "add", session, None),
        ("POST", "/mcp", 504, "timeout", "tools/list", None, session, "UpstreamTimeout"),
        ("GET", "/nowhere", 404, "refused", None, None, session, "PathNotFound"),
    ]
    assert all(line["client"] == "127.0.0.1" and line["duration"] >= 0 for line in lines)


async def test_stream_has_its_line_at_its_end_with_its_events(files):
    async with open_proxy_kit(files.config()) as kit:
        await open_session(kit)
        events, follower = await start_stream(kit)
        await events.send({"jsonrpc": "2.0", "method": "notifications/progress"})
        await follower.next()
        await trio.sleep(0.2)
        assert [line["method"] for line in files.accesses()] == ["initialize"]
        await events.send(result(1))
        events.end()
        await follower.rest()
        await trio.testing.wait_all_tasks_blocked()
    line = files.accesses()[-1]
    assert (line["method"], line["name"], line["events"], line["outcome"]) == ("tools/call", "slow", 2, "ok")
    assert line["bytes_out"] > 100


async def test_call_in_a_session_that_is_ended_is_answered_and_not_left(files):
    async with open_proxy_kit(files.config()) as kit:
        await open_session(kit)
        events, follower = await start_stream(kit)
        await events.send({"jsonrpc": "2.0", "method": "notifications/progress"})
        await follower.next()
        await kit.app.sessions.end(session_of(kit))
        with trio.fail_after(5):
            (answer,) = await follower.rest()
        await trio.testing.wait_all_tasks_blocked()
    assert (answer["id"], answer["error"]["message"][:15]) == (1, "no such session")
    line = files.accesses()[-1]
    assert (line["method"], line["outcome"], line["error"]) == ("tools/call", "no_session", "SessionNotFound")


async def test_sessions_and_refusals_are_audited(files):
    config = files.config(sessions=SessionConfig(max_sessions=1))
    async with open_proxy_kit(config) as kit:
        await open_session(kit)
        session = digest(session_of(kit))
        stranger = kit.new_client()
        await (await stranger.initialize()).read()
        await (await kit.client.post(request(1, "ping"), {"host": "evil.example"})).read()
        await (await kit.client.post(request(1, "ping"), {"origin": "https://evil.example"})).read()
        await kit.app.sessions.end(session_of(kit))
    assert [line["event"] for line in files.audits()][:1] == ["proxy_started"]
    assert [line["event"] for line in files.audits()][-1:] == ["proxy_stopped"]
    (opened,) = files.audits("session_opened")
    assert (opened["session"], opened["upstream"], opened["version"]) == (session, "default", "2025-11-25")
    (ended,) = files.audits("session_ended")
    assert (ended["session"], ended["reason"]) == (session, "admin")
    refused = [(line["reason"], line["error"], line["client"]) for line in files.audits("request_refused")]
    assert sorted(refused) == [
        ("host", "MisdirectedHost", "127.0.0.1"),
        ("limit", "SessionLimitReached", "127.0.0.1"),
        ("origin", "ForbiddenOrigin", "127.0.0.1"),
    ]


async def test_proxy_that_is_cut_off_says_so(files):
    """And the calls that were under way have their lines."""
    with trio.CancelScope() as scope:
        async with open_proxy_kit(files.config()) as kit:
            await open_session(kit)
            await start_post(kit, request(1, "tools/call", name="add"))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert [line["event"] for line in files.audits()] == ["proxy_started", "session_opened", "proxy_stopped"]
    assert [line["method"] for line in files.accesses()] == ["initialize", "tools/call"]


async def test_no_secret_is_written_down_wherever_it_is(files):
    """In headers, query, arguments, ids, URIs, meta data, answers and errors; and no session id."""
    headers = {
        "authorization": f"Bearer {SECRET}",
        "cookie": f"a={SECRET}",
        "x-api-key": SECRET,
        "user-agent": SECRET,
        "traceparent": SECRET,
    }
    async with open_proxy_kit(files.config()) as kit:
        await open_session(kit)
        session_id = kit.client.session_id
        params = {"name": "login", "arguments": {"password": SECRET}, "_meta": {"token": SECRET}}
        answer = {"jsonrpc": "2.0", "id": SECRET, "result": {"content": SECRET}}
        await call(kit, request(SECRET, "tools/call", **params), answer, headers)
        error = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": SECRET}}
        await call(kit, request(1, "resources/read", uri=f"https://u:{SECRET}@h/{SECRET}?{SECRET}"), error, headers)
        await call(kit, request(1, "tools/call", name="x"), UpstreamTimeout(SECRET), headers)
        for path in (f"/mcp?token={SECRET}", f"/messages?session_id={SECRET}"):
            body = json.dumps(request(1, "ping")).encode()
            await (await kit.client.send("POST", body, {**headers, "mcp-session-id": SECRET}, path)).read()
        await (await kit.client.post(f'{{"password":"{SECRET}"'.encode(), headers)).read()
        await (await kit.client.post(request(1, "ping"), {"host": f"{SECRET}.example"})).read()
        await (await kit.client.post(request(1, "ping"), {"origin": f"https://{SECRET}.example"})).read()
        await trio.testing.wait_all_tasks_blocked()
    assert len(files.accesses()) == 9
    for text in (files.access.read_text(), files.audit.read_text()):
        assert SECRET not in text
        assert session_id not in text


async def test_session_that_expires_is_audited(files):
    config = files.config(sessions=SessionConfig(max_idle=0.2, reap_interval=0.05))
    async with open_proxy_kit(config) as kit:
        await open_session(kit)
        await wait_until(lambda: files.audits("session_ended"))
    assert files.audits("session_ended")[0]["reason"] == "expired"


def permit(endpoint):
    found = endpoint.circuit.admit()
    assert found is not None
    return found


async def test_circuit_that_opens_and_closes_is_audited(autojump_clock):
    """It is looked at each second; the clock is trio's, so nothing here may touch the disk."""
    lines = JsonLines(LogFileConfig(path="nowhere"), dict, is_kept=True)
    endpoint = Endpoint("a", ScriptedUpstream(), circuit=CircuitConfig(max_failures=1, open_time=10, max_probes=1))
    sets = {"search": UpstreamSet([endpoint])}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit_circuits, AuditLog(lines, 1.0), lambda: sets)
        await trio.sleep(2)
        endpoint.circuit.fail(permit(endpoint))
        await trio.sleep(5)
        assert lines.queued == 1
        await trio.sleep(10)
        endpoint.circuit.succeed(permit(endpoint))
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    found = [lines.take_nowait() for _ in range(3)]
    assert [(line["upstream"], line["endpoint"], line["before"], line["after"]) for line in found] == [
        ("search", "a", "closed", "open"),
        ("search", "a", "open", "half_open"),
        ("search", "a", "half_open", "closed"),
    ]


async def test_servers_may_come_and_go_while_circuits_are_looked_at(autojump_clock):
    """It would end the proxy if that were an error."""
    lines = JsonLines(LogFileConfig(path="nowhere"), dict, is_kept=True)
    endpoint = Endpoint("a", ScriptedUpstream(), circuit=CircuitConfig(max_failures=1))
    endpoint.circuit.fail(permit(endpoint))
    sets = {"search": UpstreamSet([endpoint])}

    class Changing(AuditLog):
        async def note(self, *args, **fields):
            await super().note(*args, **fields)
            sets["new"] = UpstreamSet([Endpoint("a", ScriptedUpstream())])

    with trio.move_on_after(5):
        await audit_circuits(Changing(lines, 1.0), lambda: sets)
    assert lines.queued == 1


async def test_log_that_cannot_be_opened_is_found_out_at_once(files, tmp_path):
    config = attrs.evolve(files.config(), audit=AuditLogConfig(path=str(tmp_path / "no" / "audit.log")))
    with pytest.raises(ConfigError):
        async with open_proxy_kit(config):
            pass


async def test_spans_without_what_they_need_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shadowcat.telemetry.tracing", None)
    monkeypatch.delitem(vars(shadowcat.telemetry), "open_tracing", raising=False)
    config = ReverseProxyConfig(upstream=NOWHERE, tracing=TracingConfig())
    with pytest.raises(ConfigError, match=r"pip install 'shadowcat\[otel\]'"):
        async with open_proxy_kit(config):
            pass


async def test_line_tells_the_trace_that_its_span_is_in(files):
    config = files.config(tracing=TracingConfig(endpoint="http://127.0.0.1:1/v1/traces", sample_ratio=0.0))
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with open_proxy_kit(config) as kit:
        await open_session(kit)
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-00"}
        await call(kit, request(1, "ping"), result(1), headers)
        await trio.testing.wait_all_tasks_blocked()
    assert files.accesses()[-1]["trace_id"] == trace
