"""Batches that are refused, and what of them is not."""

from shadowcat.testing import notification, request, result
from tests.proxy.limiting import open_limited


async def test_what_belongs_to_calls_under_way_goes_on_without_the_rest(autojump_clock):
    """A server that waits for the answer would wait for ever."""
    async with open_limited(per_session="1/h") as limited:
        client = await limited.session(version="2025-03-26")
        batch = [
            result("s-1"),
            request(1, "ping"),
            request(2, "ping"),
            notification("notifications/cancelled", requestId=9),
        ]
        response = await client.post(batch)
        assert response.status == 429
        assert (await response.json())["error"]["data"]["limit"] == "per_session"
        assert limited.seen == ["initialize", "answer", "notifications/cancelled"]


async def test_batch_of_requests_is_refused_as_a_whole(autojump_clock):
    async with open_limited(per_session="1/h") as limited:
        client = await limited.session(version="2025-03-26")
        assert await limited.status(client, [request(1, "ping"), request(2, "ping")]) == 429
        assert limited.seen == ["initialize"]


async def test_batch_of_answers_counts_for_nothing(autojump_clock):
    async with open_limited(per_session="1/h", per_client="2/h", total="2/h") as limited:
        client = await limited.session(version="2025-03-26")
        for _ in range(5):
            assert await limited.status(client, [result("s-1"), result("s-2")]) == 202
        assert await limited.status(client, request(1, "ping")) == 200


async def test_rest_for_a_session_that_is_gone(autojump_clock):
    """What becomes of it is not for the client, which is told of the refusal."""
    async with open_limited(per_session="1/h") as limited:
        client = await limited.session(version="2025-03-26")
        client.session_id = "gone"
        assert await limited.status(client, [result("s-1"), request(1, "a"), request(2, "b")]) == 429
