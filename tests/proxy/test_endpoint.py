"""Whole conversations through the real proxy, without sockets."""

import json

import pytest
import trio

from shadowcat import EndpointConfig, HttpUpstreamConfig, InMemoryStore, ReverseProxyConfig, SessionConfig
from shadowcat.errors import UpstreamDisconnected, UpstreamTimeout
from shadowcat.testing import modern_headers, modern_request, notification, open_proxy_kit, request, result

from .conversation import open_session, start_post

UPSTREAM = HttpUpstreamConfig(url="http://upstream.invalid/mcp")


@pytest.fixture
async def kit(autojump_clock):
    with trio.fail_after(7200):
        async with open_proxy_kit() as kit:
            yield kit


class TestInitialize:
    async def test_each_side_sees_only_its_own_session_id(self, autojump_clock, kit):
        await open_session(kit)
        ours = kit.client.session_id

        call, response = await start_post(kit, request(1, "tools/list"))
        call.answer(result(1), headers={"mcp-session-id": "upstream-1"})

        assert call.headers["mcp-session-id"] == "upstream-1"
        assert ours
        assert "upstream-1" not in ours
        assert (await response()).headers.get("mcp-session-id") is None

    async def test_session_keeps_what_both_sides_said(self, autojump_clock, kit):
        await open_session(kit)

        (session,) = await kit.store.list_sessions()
        assert session.initialize_params["clientInfo"]["name"] == "shadowcat.testing"
        assert session.initialize_result["serverInfo"] == {"name": "scripted"}
        assert session.protocol_version == "2025-11-25"
        assert session.upstream_session_id == "upstream-1"

    async def test_refused_initialize_opens_no_session(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "initialize"))
        call.answer({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}})

        assert (await (await response()).json())["error"]["message"] == "no"
        assert await kit.store.count_sessions() == 0

    async def test_answer_over_an_event_stream_opens_a_session(self, autojump_clock, kit):
        call, response = await start_post(kit, request("a", "initialize"))
        events = call.open_events({"mcp-session-id": "u"})
        await events.send_bytes(b"id: 1\ndata:\n\n")
        await events.send(result("a", protocolVersion="2025-06-18"))

        answer = await response()
        assert answer.headers["mcp-session-id"]
        assert (await answer.next_message())["result"] == {"protocolVersion": "2025-06-18"}

    async def test_upstream_without_sessions_still_gets_one_of_ours(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "initialize"))
        call.answer(result(1, protocolVersion="2025-11-25"))
        kit.client.session_id = (await response()).headers["mcp-session-id"]

        call, _ = await start_post(kit, request(2, "ping"))
        assert "mcp-session-id" not in call.headers

    async def test_session_limit_is_answered_with_503(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, sessions=SessionConfig(max_sessions=1))
        async with open_proxy_kit(config) as kit:
            await open_session(kit)
            response = await kit.new_client().initialize()

            assert response.status == 503
            assert response.headers["retry-after"]
            assert (await response.json())["id"] == 0
            assert kit.upstream.hits == 1


class TestSession:
    async def test_call_without_a_session_is_400(self, autojump_clock, kit):
        response = await kit.client.post(request("x", "tools/list"))
        assert response.status == 400
        assert (await response.json())["id"] == "x"
        assert kit.upstream.hits == 0

    @pytest.mark.parametrize("session_id", ["unknown", "with space", "x" * 300])
    async def test_unknown_session_is_404(self, autojump_clock, kit, session_id):
        kit.client.session_id = session_id
        assert (await kit.client.post(request(1, "tools/list"))).status == 404
        assert kit.upstream.hits == 0

    async def test_delete_ends_the_session_on_both_sides(self, autojump_clock, kit):
        await open_session(kit)
        deleted = []
        kit.nursery.start_soon(collect, kit.client.delete, deleted)
        call = await kit.upstream.next_call()
        call.respond(200)

        assert call.request.method == "DELETE"
        assert call.headers["mcp-session-id"] == "upstream-1"
        await trio.testing.wait_all_tasks_blocked()
        assert deleted[0].status == 200
        assert (await kit.client.post(request(1, "tools/list"))).status == 404

    async def test_delete_ends_the_listening_stream(self, autojump_clock, kit):
        await open_session(kit)
        streams = []
        kit.nursery.start_soon(collect, kit.client.listen, streams)
        (await kit.upstream.next_call()).open_events()
        await trio.testing.wait_all_tasks_blocked()

        kit.nursery.start_soon(kit.client.delete)
        (await kit.upstream.next_call()).respond(204)

        with pytest.raises(trio.EndOfChannel):
            await streams[0].next_event()

    async def test_idle_session_expires_here_and_upstream(self, autojump_clock, kit):
        await open_session(kit)
        await trio.sleep(3700)

        call = await kit.upstream.next_call()
        assert call.request.method == "DELETE"
        assert await kit.store.count_sessions() == 0

    async def test_listening_session_does_not_expire(self, autojump_clock, kit):
        await open_session(kit)
        streams = []
        kit.nursery.start_soon(collect, kit.client.listen, streams)
        (await kit.upstream.next_call()).open_events()

        async def read():
            while await streams[0].read_some():
                pass

        await trio.testing.wait_all_tasks_blocked()
        kit.nursery.start_soon(read)
        await trio.sleep(3700)
        assert await kit.store.count_sessions() == 1

    @pytest.mark.parametrize(("version", "status"), [("2025-06-18", 200), ("1999-01-01", 400), ("x", 400), ("", 200)])
    async def test_version_header_must_be_a_legacy_revision(self, autojump_clock, kit, version, status):
        await open_session(kit)
        kit.client.protocol_version = version
        if status == 200:
            call, response = await start_post(kit, request(1, "ping"))
            call.answer(result(1))
            assert (await response()).status == 200
        else:
            assert (await kit.client.post(request(1, "ping"))).status == 400

    @pytest.mark.parametrize(("version", "status"), [("2025-03-26", 200), ("2025-11-25", 400)])
    async def test_batches_exist_in_one_revision(self, autojump_clock, kit, version, status):
        await open_session(kit, version)
        batch = [request(1, "ping"), request(2, "ping")]
        if status == 400:
            assert (await kit.client.post(batch)).status == 400
            return
        call, response = await start_post(kit, batch)
        assert call.message == batch
        call.answer([result(1), result(2)])
        assert await (await response()).json() == [result(1), result(2)]

    async def test_response_mode_is_kept(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "ping"))
        call.open_events().end()
        await (await response()).read()
        await trio.testing.wait_all_tasks_blocked()

        (session,) = await kit.store.list_sessions()
        assert session.response_mode.value == "sse_stream"

    async def test_listening_refused_with_404_leaves_the_session(self, autojump_clock, kit):
        """An upstream may simply have no GET."""
        await open_session(kit)
        streams = []
        kit.nursery.start_soon(collect, kit.client.listen, streams)
        (await kit.upstream.next_call()).respond(404)
        ping = await kit.upstream.next_call()
        assert ping.message["method"] == "ping"
        ping.answer(result(ping.message["id"]))
        await trio.testing.wait_all_tasks_blocked()
        assert streams[0].status == 404
        assert await kit.store.count_sessions() == 1


async def collect(fn, into, *args):
    into.append(await fn(*args))


class FailingStore(InMemoryStore):
    """Takes no updates."""

    hangs = False

    async def update_session(self, session):
        if self.hangs:
            await trio.sleep_forever()
        raise OSError("no space left on device")


@pytest.mark.parametrize("hangs", [True, False])
async def test_answer_survives_a_store_that_takes_no_updates(autojump_clock, hangs):
    store = FailingStore()
    store.hangs = hangs
    async with open_proxy_kit(store=store) as kit:
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        kit.nursery.start_soon(answer_with_events, call)
        with trio.fail_after(5):
            assert json.dumps(result(1)).encode() in await (await response()).read()


async def answer_with_events(call):
    events = call.open_events()
    await events.send(result(1))
    events.end()


class TestSilentInitialize:
    """The upstream begins an event stream and says nothing more."""

    async def test_it_times_out(self, autojump_clock, kit):
        call, response = await start_post(kit, request(1, "initialize"))
        call.open_events({"mcp-session-id": "u"})
        began = trio.current_time()
        farewell = await kit.upstream.next_call()
        farewell.respond(200)

        assert (await response()).status == 504
        assert trio.current_time() - began == pytest.approx(60)
        assert (farewell.request.method, farewell.headers["mcp-session-id"]) == ("DELETE", "u")

    async def test_client_that_leaves_ends_it(self, autojump_clock, kit):
        scope = trio.CancelScope()
        kit.nursery.start_soon(run_in, scope, kit.client.post, request(1, "initialize"))
        call = await kit.upstream.next_call()
        call.open_events({"mcp-session-id": "u"})
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with trio.fail_after(1):
            await call.cancelled.wait()
            assert (await kit.upstream.next_call()).request.method == "DELETE"


class TestNotifications:
    async def test_accepted_is_202_without_a_body(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, notification("notifications/initialized"))
        call.respond(200, {"content-type": "application/json"}, [b"{}"])

        assert (await response()).status == 202
        assert await (await response()).read() == b""

    async def test_refusal_passes(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, notification("notifications/initialized"))
        call.respond(400, {"content-type": "application/json"}, [b'{"x":1}'])

        assert (await response()).status == 400
        assert await (await response()).read() == b'{"x":1}'

    async def test_answer_to_a_server_request_passes_as_it_is(self, autojump_clock, kit):
        await open_session(kit)
        body = b'{"jsonrpc":"2.0",  "id":"srv-1", "result":{"roots":[]}, "x":1.0}'
        call, response = await start_post(kit, body)
        call.respond(202)

        assert call.request.body == body
        assert (await response()).status == 202


class TestFidelity:
    @pytest.mark.parametrize("raw", [b"0", b'"0"', b'""', b"null", b"9007199254740993", b"-1", b'"\\u00e9"'])
    async def test_ids_and_bodies_pass_to_the_byte(self, autojump_clock, kit, raw):
        await open_session(kit)
        body = b'{ "id":' + raw + b', "jsonrpc":"2.0","method":"x/y","params":{"_meta":{"a":1e2}},"extra":[1.0]}'
        answer = b'{"jsonrpc":"2.0","id":' + raw + b',"result":{"_meta":{"k":"v"},"n":1.50}}\n'
        call, response = await start_post(kit, body)
        call.respond(200, {"content-type": "application/json; charset=utf-8"}, [answer[:7], answer[7:]])

        assert call.request.body == body
        assert await (await response()).read() == answer
        assert (await response()).headers["content-type"] == "application/json; charset=utf-8"

    @pytest.mark.parametrize("raw", [b"0", b'"0"', b'""', b"9007199254740993"])
    async def test_errors_of_our_own_carry_the_callers_id(self, autojump_clock, kit, raw):
        response = await kit.client.post(b'{"jsonrpc":"2.0","id":' + raw + b',"method":"x"}')
        assert b'"id":' + raw + b"," in await response.read()

    async def test_modern_event_streams_pass_to_the_byte(self, autojump_clock, kit):
        stream = b": hi\r\nid: 7\r\nevent: message\r\nretry: 10\r\ndata: {\r\ndata: }\r\n\r\n:x\n\ndata:\n\n"
        message = modern_request(1, "x")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        events = call.open_events({"x-accel-buffering": "no", "cache-control": "no-store"})
        for byte in stream:
            kit.nursery.start_soon(events.send_bytes, bytes([byte]))
            assert await (await response()).read_some() == bytes([byte])
        assert (await response()).headers["x-accel-buffering"] == "no"
        assert (await response()).headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("size", [1, 1000])
    async def test_legacy_events_pass_to_the_byte_but_for_their_ids(self, autojump_clock, kit, size):
        await open_session(kit)
        first = b"event: message\r\nretry: 10\r\ndata: {\r\ndata: }\r\n\r\n"
        second = b'id: 7\nevent: message\ndata: {"n": 1.0}\n\n'
        call, response = await start_post(kit, request(1, "x"))
        events = call.open_events({"x-accel-buffering": "no", "cache-control": "no-store"})

        async def drip():
            stream = first + b":x\n\n" + second
            for start in range(0, len(stream), size):
                await events.send_bytes(stream[start : start + size])

        kit.nursery.start_soon(drip)
        answer = await response()
        seen = b""
        while seen.count(b"data: {") < 2:
            seen += await answer.read_some()
        priming, *blocks = seen.split(b"\n\n")
        assert priming.endswith(b"\ndata: ")
        assert [block.partition(b"\n")[2] for block in blocks[:2]] == [
            first.removesuffix(b"\r\n\r\n"),
            second.removeprefix(b"id: 7\n").removesuffix(b"\n\n"),
        ]
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-store"

    async def test_credentials_stay_unless_named(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, endpoint=EndpointConfig(forward_headers=["Authorization"]))
        sent = {"authorization": "Bearer t", "cookie": "a=b", "x-forwarded-for": "1.2.3.4", "x-other": "1"}
        for chosen, expected in ((None, set()), (config, {"authorization"})):
            async with open_proxy_kit(chosen) as kit:
                await open_session(kit)
                call, _ = await start_post(kit, request(1, "x"), headers=sent)
                assert set(sent) & set(call.headers) == expected

    async def test_server_requests_reach_the_client_and_its_answers_the_server(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "tools/call", name="ask"))
        events = call.open_events()
        ask = request("srv", "elicitation/create", message="?")
        kit.nursery.start_soon(events.send, ask)
        answer = await response()
        assert await answer.next_message() == ask

        reply, accepted = await start_post(kit, result("srv", action="accept"))
        reply.respond(202)
        assert (await accepted()).status == 202
        kit.nursery.start_soon(events.send, result(1, ok=True))
        assert await answer.next_message() == result(1, ok=True)


class TestSameId:
    async def test_calls_with_one_id_each_get_their_own_answer(self, autojump_clock, kit):
        await open_session(kit)
        first, first_response = await start_post(kit, request(1, "tools/call", name="a"))
        second, second_response = await start_post(kit, request(1, "tools/call", name="b"))
        minted = second.message["id"]
        assert first.message["id"] == 1
        assert minted != 1
        assert second.message["params"] == {"name": "b"}

        second.answer(result(minted, text="b"))
        first.answer(result(1, text="a"))
        assert await (await first_response()).json() == result(1, text="a")
        assert await (await second_response()).json() == result(1, text="b")

    async def test_minted_id_is_put_back_in_event_streams_too(self, autojump_clock, kit):
        await open_session(kit)
        await start_post(kit, request("1", "x"))
        second, response = await start_post(kit, request(1, "x"))
        events = second.open_events()
        wire = b"data: " + json.dumps(result(second.message["id"], v=1)).encode() + b"\n\n"

        async def drip():
            for start in range(0, len(wire), 5):
                await events.send_bytes(wire[start : start + 5])

        kit.nursery.start_soon(drip)
        assert await (await response()).next_message() == result(1, v=1)

    async def test_ambiguous_cancellation_cancels_nobody(self, autojump_clock, kit):
        await open_session(kit)
        first, first_response = await start_post(kit, request(1, "x"))
        second, _ = await start_post(kit, request(1, "x"))
        hits = kit.upstream.hits
        response = await kit.client.post(notification("notifications/cancelled", requestId=1))
        assert response.status == 202
        assert kit.upstream.hits == hits

        first.answer(result(1))
        await (await first_response()).read()
        await trio.testing.wait_all_tasks_blocked()
        cancel, _ = await start_post(kit, notification("notifications/cancelled", requestId=1, reason="r"))
        assert cancel.message["params"] == {"requestId": second.message["id"], "reason": "r"}

    async def test_minted_id_is_put_back_on_a_resumed_stream(self, autojump_clock, kit):
        await open_session(kit)
        await start_post(kit, request(1, "x"))
        second, response = await start_post(kit, request(1, "x"))
        events = second.open_events()
        cursor = (await (await response()).next_event()).id.decode()
        (await response()).leave()

        streams = []
        kit.nursery.start_soon(collect, kit.client.listen, streams, cursor)
        kit.nursery.start_soon(events.send, result(second.message["id"], v=1))
        await trio.testing.wait_all_tasks_blocked()
        assert await streams[0].next_message() == result(1, v=1)

    async def test_id_stays_taken_while_the_call_goes_on_without_its_client(self, autojump_clock, kit):
        await open_session(kit)
        first, response = await start_post(kit, request(1, "x"))
        events = first.open_events()
        (await response()).leave()
        second, _ = await start_post(kit, request(1, "x"))
        assert second.message["id"] != 1

        await events.send(result(1))
        events.end()
        await trio.testing.wait_all_tasks_blocked()
        third, _ = await start_post(kit, request(1, "x"))
        assert third.message["id"] not in (1, second.message["id"])

    async def test_cancellation_goes_to_the_id_as_it_was_written(self, autojump_clock, kit):
        """1 and "1" are two ids, whatever careless servers think."""
        await open_session(kit)
        await start_post(kit, request(1, "x"))
        second, _ = await start_post(kit, request("1", "x"))
        cancel, _ = await start_post(kit, notification("notifications/cancelled", requestId="1"))
        assert cancel.message["params"]["requestId"] == second.message["id"] != "1"

    async def test_id_is_free_again_after_the_answer(self, autojump_clock, kit):
        await open_session(kit)
        for _ in range(2):
            call, response = await start_post(kit, request(1, "x"))
            assert call.message["id"] == 1
            call.answer(result(1))
            await (await response()).json()


class TestModern:
    async def test_no_session_is_made_and_none_is_passed(self, autojump_clock, kit):
        kit.client.session_id = "abc"
        message = modern_request(1, "tools/call", name="echo")
        headers = {**modern_headers(message), "last-event-id": "7", "mcp-param-a": "b"}
        call, response = await start_post(kit, message, headers=headers)
        call.answer(result(1, resultType="input_required", ttlMs=5), headers={"mcp-session-id": "u"})

        assert "mcp-session-id" not in call.headers
        assert "last-event-id" not in call.headers
        assert call.headers["mcp-name"] == "echo"
        assert call.headers["mcp-param-a"] == "b"
        answer = await response()
        assert "mcp-session-id" not in answer.headers
        assert await answer.json() == result(1, resultType="input_required", ttlMs=5)

    @pytest.mark.parametrize(
        "change",
        [
            {"mcp-method": "tools/list"},
            {"mcp-method": ""},
            {"mcp-name": "other"},
            {"mcp-name": ""},
            {"mcp-name": "=?base64?!!?="},
            {"mcp-protocol-version": "2026-08-01"},
            {"mcp-protocol-version": ""},
        ],
    )
    async def test_headers_that_differ_from_the_body_are_refused(self, autojump_clock, kit, change):
        message = modern_request(5, "tools/call", name="echo")
        response = await kit.client.post(message, {**modern_headers(message), **change})
        answer = await response.json()

        assert (response.status, answer["error"]["code"], answer["id"]) == (400, -32020, 5)
        assert kit.upstream.hits == 0

    async def test_name_may_be_in_base64(self, autojump_clock, kit):
        message = modern_request(1, "resources/read", uri="file:///é")
        headers = {**modern_headers(message), "mcp-name": "=?base64?ZmlsZTovLy/DqQ==?="}
        call, _ = await start_post(kit, message, headers=headers)
        assert call.headers["mcp-name"] == "=?base64?ZmlsZTovLy/DqQ==?="

    async def test_mirrored_argument_is_checked_once_its_tool_was_listed(self, autojump_clock, kit):
        schema = {"type": "object", "properties": {"where": {"type": "string", "x-mcp-header": "Region"}}}
        listing = modern_request(1, "tools/list")
        call, response = await start_post(kit, listing, headers=modern_headers(listing))
        call.answer(result(1, tools=[{"name": "t", "inputSchema": schema}]))
        await (await response()).read()

        message = modern_request(2, "tools/call", name="t", arguments={"where": "eu"})
        wrong = {**modern_headers(message), "mcp-param-region": "us"}
        assert (await kit.client.post(message, wrong)).status == 400
        assert (await kit.client.post(message, modern_headers(message))).status == 400
        right = {**modern_headers(message), "mcp-param-region": "eu", "mcp-param-unknown": "x"}
        call, _ = await start_post(kit, message, headers=right)
        assert call.headers["mcp-param-region"] == "eu"

    async def test_what_one_caller_was_shown_binds_no_other(self, autojump_clock):
        config = ReverseProxyConfig(upstream=UPSTREAM, endpoint=EndpointConfig(forward_headers=["Authorization"]))
        schema = {"properties": {"where": {"type": "string", "x-mcp-header": "Region"}}}
        async with open_proxy_kit(config) as kit:
            listing = modern_request(1, "tools/list")
            headers = {**modern_headers(listing), "authorization": "Bearer a"}
            call, response = await start_post(kit, listing, headers=headers)
            call.answer(result(1, tools=[{"name": "t", "inputSchema": schema}]))
            await (await response()).read()

            message = modern_request(2, "tools/call", name="t", arguments={"where": "eu"})
            headers = {**modern_headers(message), "authorization": "Bearer a"}
            assert (await kit.client.post(message, headers)).status == 400
            call, _ = await start_post(kit, message, headers={**headers, "authorization": "Bearer b"})
            assert call.headers["authorization"] == "Bearer b"

    async def test_stream_without_an_answer_is_an_error_even_with_ids(self, autojump_clock, kit):
        """There is no resumption in this era."""
        message = modern_request(1, "x")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        events = call.open_events()
        kit.nursery.start_soon(events.send, notification("n"), "id-1")
        await (await response()).next_event()
        events.end()
        assert (await (await response()).next_message())["error"]["code"] == -32603

    async def test_accepted_notification_is_202(self, autojump_clock, kit):
        message = notification("notifications/whatever")
        call, response = await start_post(kit, message, headers={"mcp-protocol-version": "2026-07-28"})
        call.answer({})
        assert (await response()).status == 202

    async def test_statuses_and_errors_of_the_upstream_pass(self, autojump_clock, kit):
        message = modern_request(1, "nope")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        refusal = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "m", "data": {"a": 1}}}
        call.answer(refusal, status=404)

        assert (await response()).status == 404
        assert await (await response()).json() == refusal

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    async def test_other_methods_do_not_exist(self, autojump_clock, kit, method):
        response = await kit.client.send(method, headers={"mcp-protocol-version": "2026-07-28"})
        assert (response.status, response.headers["allow"]) == (405, "POST")

    async def test_leaving_the_stream_cancels_upstream_at_once(self, autojump_clock, kit):
        message = modern_request(1, "subscriptions/listen")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        call.open_events()
        (await response()).leave()

        with trio.fail_after(1):
            await call.cancelled.wait()

    async def test_leaving_before_the_answer_cancels_upstream(self, autojump_clock, kit):
        message = modern_request(1, "tools/call", name="slow")
        client = trio.CancelScope()
        kit.nursery.start_soon(run_in, client, kit.client.post, message, modern_headers(message))
        call = await kit.upstream.next_call()
        client.cancel()

        with trio.fail_after(1):
            await call.cancelled.wait()


async def run_in(scope, fn, *args):
    with scope:
        await fn(*args)


class TestLegacyDisconnect:
    async def test_leaving_before_the_answer_does_not_cancel(self, autojump_clock, kit):
        await open_session(kit)
        scope = trio.CancelScope()
        kit.nursery.start_soon(run_in, scope, kit.client.post, request(1, "tools/call", name="slow"))
        call = await kit.upstream.next_call()
        scope.cancel()
        await trio.sleep(60)

        assert not call.cancelled.is_set()
        assert kit.upstream.hits == 2

    async def test_leaving_the_stream_frees_it_in_the_end_and_sends_nothing_twice(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "tools/call", name="slow"))
        call.open_events()
        (await response()).leave()
        left = trio.current_time()
        await call.cancelled.wait()

        assert trio.current_time() - left == pytest.approx(60)
        assert kit.upstream.hits == 2


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "status"),
        [(UpstreamDisconnected("x"), 502), (UpstreamTimeout("x"), 504)],
    )
    async def test_upstream_failures_have_a_status_and_the_callers_id(self, autojump_clock, kit, error, status):
        await open_session(kit)
        call, response = await start_post(kit, request("me", "x"))
        call.fail(error)

        answer = await response()
        assert answer.status == status
        body = await answer.json()
        assert (body["id"], body["error"]["message"]) == ("me", str(error))

    @pytest.mark.parametrize(
        ("body", "code"),
        [(b"{", -32700), (b"\xff", -32700), (b"[]", -32600), (b'{"jsonrpc":"1.0","id":1,"method":"x"}', -32600)],
    )
    async def test_bad_messages_are_400(self, autojump_clock, kit, body, code):
        response = await kit.client.post(body)
        assert (response.status, (await response.json())["error"]["code"]) == (400, code)

    async def test_too_long_a_body_is_413(self, autojump_clock, kit):
        response = await kit.client.post(b"x" * (4 * 1024 * 1024 + 1))
        assert response.status == 413

    @pytest.mark.parametrize(("field", "value"), [("content-type", "text/plain"), ("content-encoding", "gzip")])
    async def test_other_media_types_are_415(self, autojump_clock, kit, field, value):
        assert (await kit.client.post(request(1, "x"), {field: value})).status == 415

    async def test_get_needs_event_stream(self, autojump_clock, kit):
        assert (await kit.client.send("GET", headers={"accept": "application/json"})).status == 406


class TestHeartbeat:
    async def test_silence_is_filled_with_comments(self, autojump_clock, kit):
        await open_session(kit)
        streams = []
        kit.nursery.start_soon(collect, kit.client.listen, streams)
        call = await kit.upstream.next_call()
        events = call.open_events()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()

        assert (await streams[0].next_event()).data == b""
        assert await streams[0].read_some() == b": heartbeat\n\n"
        assert trio.current_time() - began == pytest.approx(15)
        kit.nursery.start_soon(events.send_bytes, b"data: " + b"x" * 2_000_000)
        assert len(await streams[0].read_some()) > 1_000_000
        with trio.move_on_after(100):
            await streams[0].read_some()
            pytest.fail("a heartbeat was put into an event")

    async def test_modern_silence_is_filled_with_comments(self, autojump_clock, kit):
        message = modern_request(1, "x")
        call, response = await start_post(kit, message, headers=modern_headers(message))
        events = call.open_events()
        stream = await response()

        assert await stream.read_some() == b": heartbeat\n\n"
        assert trio.current_time() == pytest.approx(15)
        kit.nursery.start_soon(events.send_bytes, b"data: half")
        assert await stream.read_some() == b"data: half"
        with trio.move_on_after(100):
            await stream.read_some()
            pytest.fail("a heartbeat was put into an event")

    async def test_slow_client_makes_the_upstream_wait(self, autojump_clock, kit):
        await open_session(kit)
        call, response = await start_post(kit, request(1, "x"))
        events = call.open_events()
        sent = []

        async def flood():
            for number in range(1000):
                await events.send(notification("n", number=number))
                sent.append(number)

        kit.nursery.start_soon(flood)
        answer = await response()
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) < 400
        for number in range(1000):
            assert (await answer.next_message())["params"]["number"] == number
