"""Limits on the whole proxy, by every dimension, on the mock clock."""

import pytest
import trio

from shadowcat import LimitsConfig
from shadowcat.errors import TooManyRequests
from shadowcat.proxy.limits import Limits
from shadowcat.testing import modern_headers, modern_request, notification, request, result
from shadowcat.transport import Exchange
from tests.proxy.limiting import open_limited

PING = request(7, "ping")


def call(tool="search", id=1):
    return request(id, "tools/call", name=tool, arguments={})


def exchange_from(scope):
    async def nothing(*_):
        await trio.sleep_forever()

    return Exchange({"method": "GET", "path": "/", "headers": (), **scope}, nothing, nothing)


class TestRefusal:
    async def test_says_which_limit_and_how_long_to_wait(self, autojump_clock):
        """429, a JSON-RPC error with the caller's id, and header fields."""
        async with open_limited(per_client="60/min burst 2") as limited:
            client = await limited.session()
            assert await limited.status(client, PING) == 200
            response = await client.post(PING)
            error = await response.json()
            assert response.status == 429
            assert response.headers["retry-after"] == "1"
            assert response.headers["ratelimit"] == '"per_client";r=0;t=1'
            assert response.headers["ratelimit-policy"] == '"per_client";q=60;w=60;shadowcat-burst=2'
            assert error["id"] == 7
            assert error["error"]["message"] == (
                "the limit per_client (60/min burst 2) is reached; send this again in 1 s"
            )
            assert error["error"]["data"] == {"limit": "per_client", "retryAfter": 1.0}
            await trio.sleep(1)
            assert await limited.status(client, PING) == 200
            assert limited.seen == ["initialize", "ping", "ping"]

    async def test_wait_is_rounded_up(self, autojump_clock):
        async with open_limited(per_client="7/min burst 2") as limited:
            client = await limited.session()
            await limited.status(client, PING)
            response = await client.post(PING)
            assert response.headers["retry-after"] == "9"
            assert (await response.json())["error"]["data"]["retryAfter"] == 8.572
            await trio.sleep(8.572)
            assert await limited.status(client, PING) == 200

    async def test_what_is_allowed_tells_of_the_tightest_limit(self, autojump_clock):
        async with open_limited(per_client="10/s", per_session="3/s", total="100/s") as limited:
            client = await limited.session()
            response = await client.post(PING)
            await response.read()
            assert response.headers["ratelimit"] == '"per_session";r=2;t=1'
            assert response.headers["ratelimit-policy"] == '"per_session";q=3;w=1'

    async def test_without_limits_nothing_is_said(self, autojump_clock):
        async with open_limited() as limited:
            response = await limited.kit.new_client().initialize()
            assert not {"ratelimit", "ratelimit-policy"} & response.headers.keys()
            assert not limited.kit.app.limits.is_active


class TestClient:
    async def test_each_address_has_its_own(self, autojump_clock):
        async with open_limited(per_client="2/h") as limited:
            for address in ("198.51.100.1", "198.51.100.2", "2001:db8::1"):
                client = await limited.session(address)
                assert [await limited.status(client, PING) for _ in range(2)] == [200, 429]

    async def test_an_ipv6_client_has_one_for_its_64(self, autojump_clock):
        async with open_limited(per_client="2/h") as limited:
            client = await limited.session("2001:db8::1")
            client.address = "2001:db8::ffff"
            assert await limited.status(client, PING) == 200
            client.address = "2001:db8::1:2:3:4"
            assert await limited.status(client, PING) == 429
            client.address = "2001:db8:0:1::1"
            assert await limited.status(client, PING) == 200

    async def test_initialize_counts(self, autojump_clock):
        """A session for each request gets round nothing."""
        async with open_limited(per_client="3/h", per_session="1/h") as limited:
            client = limited.kit.new_client()
            statuses = []
            for _ in range(5):
                client.session_id = None
                response = await client.initialize()
                statuses.append(response.status)
            assert statuses == [200, 200, 200, 429, 429]

    async def test_get_and_delete_count(self, autojump_clock):
        async with open_limited(per_client="3/h") as limited:
            client = await limited.session()
            assert (await client.listen()).status == 405
            assert (await client.delete()).status == 200
            response = await client.listen()
            assert response.status == 429
            assert (await response.json())["id"] is None

    async def test_health_is_never_refused(self, autojump_clock):
        async with open_limited(per_client="1/h") as limited:
            client = limited.kit.new_client()
            statuses = [(await client.send("GET", path="/health")).status for _ in range(3)]
            assert statuses == [200] * 3

    async def test_behind_a_trusted_proxy_clients_are_told_apart(self, autojump_clock):
        async with open_limited(per_client="1/h", trusted_proxies=["127.0.0.0/8"]) as limited:
            client = limited.kit.new_client()

            async def initialize(forwarded):
                return await limited.status(
                    client, request(1, "initialize", protocolVersion="2025-11-25"), {"x-forwarded-for": forwarded}
                )

            assert await initialize("198.51.100.1") == 200
            assert await initialize("198.51.100.2") == 200
            assert await initialize("8.8.8.8, 198.51.100.2") == 429

    async def test_without_trust_nobody_can_pretend(self, autojump_clock):
        async with open_limited(per_client="1/h") as limited:
            client = limited.kit.new_client()
            body = request(1, "initialize", protocolVersion="2025-11-25")
            statuses = [await limited.status(client, body, {"x-forwarded-for": f"198.51.100.{n}"}) for n in range(2)]
            assert statuses == [200, 429]

    async def test_those_without_an_address_share_one(self, autojump_clock):
        """A server that does not tell must not turn the limit off."""
        limits = Limits(LimitsConfig(per_client="1/h"))
        limits.admit(exchange_from({}), None)
        with pytest.raises(TooManyRequests):
            limits.admit(exchange_from({"client": None}), None)


class TestSession:
    async def test_each_session_has_its_own(self, autojump_clock):
        async with open_limited(per_session="2/h") as limited:
            for _ in range(2):
                client = await limited.session()
                assert [await limited.status(client, PING) for _ in range(3)] == [200, 200, 429]

    async def test_initialize_is_in_no_session_yet_whatever_its_header_says(self, autojump_clock):
        async with open_limited(per_session="1/h") as limited:
            client = await limited.session()
            again = request(0, "initialize", protocolVersion="2025-11-25")
            assert [await limited.status(client, again) for _ in range(2)] == [200, 200]
            assert [await limited.status(client, PING) for _ in range(2)] == [200, 429]

    async def test_notifications_count_and_what_belongs_to_a_call_does_not(self, autojump_clock):
        async with open_limited(per_session="2/h") as limited:
            client = await limited.session()
            statuses = [await limited.status(client, notification("notifications/progress")) for _ in range(3)]
            assert statuses == [202, 202, 429]
            for message in (result("s-1"), notification("notifications/cancelled", requestId=1)):
                assert await limited.status(client, message) == 202
            assert limited.seen[-2:] == ["answer", "notifications/cancelled"]

    async def test_a_long_id_takes_no_more_room_than_another(self, autojump_clock):
        async with open_limited(per_session="2/h") as limited:
            client = limited.kit.new_client()
            client.session_id = "x" * 20_000
            assert [await limited.status(client, PING) for _ in range(3)] == [404, 404, 429]


class TestMethodAndTool:
    async def test_a_method_that_is_named_and_all_others(self, autojump_clock):
        async with open_limited(per_method={"tools/list": "1/h", "*": "2/h"}) as limited:
            one, other = await limited.session(), await limited.session()
            assert await limited.status(one, request(1, "tools/list")) == 200
            assert await limited.status(other, request(1, "tools/list")) == 429
            assert [await limited.status(one, request(1, "prompts/list")) for _ in range(3)] == [200, 200, 429]
            assert await limited.status(one, PING) == 200

    async def test_a_tool_that_is_named_and_all_others(self, autojump_clock):
        async with open_limited(per_tool={"search": "1/h", "*": "2/h"}) as limited:
            client = await limited.session()
            assert [await limited.status(client, call("search")) for _ in range(2)] == [200, 429]
            assert [await limited.status(client, call("add")) for _ in range(3)] == [200, 200, 429]
            assert await limited.status(client, call("remove")) == 200
            assert await limited.status(client, PING) == 200

    async def test_the_modern_era(self, autojump_clock):
        """There are no sessions in it; all other limits hold."""
        async with open_limited(per_tool={"search": "1/h"}, per_session="1/h") as limited:
            client = limited.kit.new_client()
            message = modern_request(1, "tools/call", name="search", arguments={})
            statuses = [await limited.status(client, message, modern_headers(message)) for _ in range(2)]
            assert statuses == [200, 429]
            other = modern_request(1, "tools/list")
            assert [await limited.status(client, other, modern_headers(other)) for _ in range(2)] == [200, 200]

    async def test_a_name_that_no_header_can_carry(self, autojump_clock):
        async with open_limited(per_tool={'søk "1"': "1/h"}) as limited:
            client = await limited.session()
            response = await client.post(call('søk "1"'))
            await response.read()
            assert response.headers["ratelimit"] == '"per_tool.s?k \\"1\\"";r=0;t=3600'


class TestTogether:
    async def test_what_one_limit_refuses_uses_up_no_other(self, autojump_clock):
        async with open_limited(per_client="11/h", per_tool={"search": "1/h"}) as limited:
            client = await limited.session()
            assert [await limited.status(client, call()) for _ in range(10)] == [200] + [429] * 9
            assert [await limited.status(client, PING) for _ in range(10)] == [200] * 9 + [429]

    async def test_the_longest_wait_is_told(self, autojump_clock):
        async with open_limited(per_client="60/min burst 2", per_tool={"search": "1/h"}) as limited:
            client = await limited.session()
            await limited.status(client, call())
            assert (await client.post(call())).headers["retry-after"] == "3600"

    async def test_batch_counts_by_its_messages(self, autojump_clock):
        async with open_limited(per_session="5/h") as limited:
            client = await limited.session(version="2025-03-26")
            assert await limited.status(client, [PING, request(8, "ping"), notification("notifications/x")]) == 200
            assert await limited.status(client, [PING, request(8, "ping"), request(9, "ping")]) == 429
            assert await limited.status(client, [PING, request(8, "ping")]) == 200

    async def test_batch_that_never_fits_says_so(self, autojump_clock):
        async with open_limited(per_session="2/h") as limited:
            client = await limited.session(version="2025-03-26")
            response = await client.post([request(n, "ping") for n in range(3)])
            assert response.status == 429
            assert "split the batch" in (await response.json())["error"]["message"]

    async def test_exactly_as_many_as_allowed_of_hundreds_at_once(self, autojump_clock):
        async with open_limited(per_session="100/h", total="1000/h") as limited:
            client = await limited.session()
            statuses = []

            async def ask():
                statuses.append(await limited.status(client, PING))

            async with trio.open_nursery() as nursery:
                for _ in range(400):
                    nursery.start_soon(ask)
            assert (statuses.count(200), statuses.count(429)) == (100, 300)


class TestReconfigure:
    async def test_who_used_up_a_limit_that_stays_is_not_let_off(self, autojump_clock):
        async with open_limited(per_client="2/h", per_tool={"search": "1/h"}) as limited:
            client = await limited.session()
            assert await limited.status(client, call()) == 200
            limited.kit.app.limits.reconfigure(LimitsConfig(per_client="2/h", per_tool={"search": "5/h"}))
            assert await limited.status(client, PING) == 429
            limited.kit.app.limits.reconfigure(LimitsConfig(per_tool={"search": "5/h"}))
            assert [await limited.status(client, call()) for _ in range(6)] == [200] * 5 + [429]

    async def test_limits_come_and_go(self, autojump_clock):
        async with open_limited() as limited:
            client = await limited.session()
            limits = limited.kit.app.limits
            limits.reconfigure(LimitsConfig(total="1/h"))
            assert [await limited.status(client, PING) for _ in range(2)] == [200, 429]
            limits.reconfigure(LimitsConfig())
            assert await limited.status(client, PING) == 200
            assert not limits.is_active

    async def test_counts_go_on(self, autojump_clock):
        async with open_limited(per_client="2/h") as limited:
            client = await limited.session()
            limited.kit.app.limits.reconfigure(LimitsConfig(per_client="3/h", max_keys=1))
            await limited.status(client, PING)
            (statistics,) = limited.kit.app.statistics().limits.values()
            assert (statistics.allowed, statistics.refused, statistics.keys) == (2, 0, 1)


async def test_statistics(autojump_clock):
    async with open_limited(per_client="3/h", per_tool={"search": "1/h"}) as limited:
        client = await limited.session()
        for _ in range(3):
            await limited.status(client, call())
        found = limited.kit.app.statistics().limits
        assert {name: (s.allowed, s.refused, s.keys) for name, s in found.items()} == {
            "per_client": (2, 0, 1),
            "per_tool.search": (1, 2, 1),
        }
