"""One message on its way: cut answers, and the end of the wait for them."""

import math
from typing import Any

import pytest
import trio
import trio.testing

from shadowcat import BackoffConfig, HttpUpstreamConfig, ReverseProxyConfig
from shadowcat.errors import UpstreamDisconnected
from shadowcat.protocol import Request
from shadowcat.proxy.drain import Drain
from shadowcat.proxy.pipe_answer import PipeAnswer
from shadowcat.proxy.pipe_call import PipeCall, PipeEndpointConfig, PipeRoom, end_session, follow
from shadowcat.testing import notification, request, result
from tests.proxy.piping import open_pipe_kit

JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream"),)
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class ScriptedEndpoint:
    """Answers each request as the next step says: a status, and the text of an event stream if it is 200."""

    def __init__(self, *steps, ends=True):
        self.steps = list(steps)
        self.seen = []
        self.ends = ends

    async def serve(self, exchange, body, message):
        exchange.hand_over()
        await self.answer(exchange)

    async def get(self, exchange):
        await self.answer(exchange)

    async def delete(self, exchange):
        await self.answer(exchange)

    async def answer(self, exchange):
        self.seen.append((exchange.method, exchange.headers.get(b"last-event-id"), trio.current_time()))
        step = self.steps.pop(0) if self.steps else 405
        if isinstance(step, int):
            await exchange.respond(step, JSON, b"{}")
        elif step is None:
            await trio.sleep_forever()
        else:
            body = await exchange.open_stream(200, EVENTS)
            await body.write(step)
            if self.ends:
                await body.end()

    @property
    def asked(self):
        return [(method, last_event_id) for method, last_event_id, _ in self.seen]


class Setting:
    def __init__(self, *steps, **config):
        endpoint: Any = ScriptedEndpoint(*steps)
        self.endpoint = endpoint
        self.drain = Drain()
        self.room = PipeRoom(PipeEndpointConfig(**config), endpoint, self.drain)
        self.got = []

    async def deliver(self, message):
        await trio.lowlevel.checkpoint()
        self.got.append(message)

    def call(self, is_modern=False):
        return PipeCall(self.room, self.deliver, b"{}", Request(b"1", "m", b""), {b"accept": b"x"}, is_modern)


class TestResuming:
    async def test_rest_of_a_cut_answer_is_asked_for(self, autojump_clock):
        """From the last event on, as often as it takes."""
        setting = Setting(b"id: a\ndata: 1\n\n", b"id: b\ndata: 2\n\n", 503, b"data: %s\n\n" % RESULT)
        await setting.call().run()

        assert setting.got == [b"1", b"2", RESULT]
        assert setting.endpoint.asked == [("POST", None), ("GET", b"a"), ("GET", b"b"), ("GET", b"b")]

    async def test_server_says_how_long_to_wait(self, autojump_clock):
        """Each time."""
        setting = Setting(b"retry: 3000\nid: a\ndata:\n\n", b": nothing\n\n", b"data: %s\n\n" % RESULT)
        await setting.call().run()

        assert [moment - setting.endpoint.seen[0][2] for *_, moment in setting.endpoint.seen] == [0, 3, 6]

    @pytest.mark.parametrize(("status", "code"), [(404, -32600), (405, -32603), (410, -32603), (400, -32603)])
    async def test_refusal_is_told(self, autojump_clock, status, code):
        """There will be no answer."""
        setting = Setting(b"id: a\ndata:\n\n", status)
        await setting.call().run()

        assert len(setting.endpoint.seen) == 2
        (told,) = setting.got
        assert b'"id":1' in told
        assert b"%d" % code in told

    async def test_it_is_given_up_in_the_end(self, autojump_clock):
        """After the budget."""
        setting = Setting(b"id: a\ndata:\n\n", *[500] * 1000, resuming=BackoffConfig(budget=10.0))
        await setting.call().run()

        assert 10 <= trio.current_time() - setting.endpoint.seen[0][2] <= 50
        assert b"check before sending it again" in setting.got[0]

    @pytest.mark.parametrize("is_modern", [False, True])
    async def test_answer_without_an_id_cannot_be_resumed(self, autojump_clock, is_modern):
        """Nor any modern one."""
        setting = Setting(b"id: a\ndata:\n\n" if is_modern else b"data: 1\n\n")
        await setting.call(is_modern).run()

        assert setting.endpoint.asked == [("POST", None)]
        assert b'"error"' in setting.got[-1]

    async def test_shutdown_ends_it(self, autojump_clock):
        """The caller learns that the server may still act."""
        setting = Setting(b"id: a\ndata:\n\n", *[503] * 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setting.call().run)
            await trio.sleep(1)
            setting.drain.begin()
        assert b"may still act" in setting.got[0]


class TestEnd:
    async def test_abandoned_call_is_told(self, autojump_clock):
        """Once."""
        setting = Setting(None)
        call = setting.call()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            await trio.testing.wait_all_tasks_blocked()
            call.abandon()
            call.abandon()
        (told,) = setting.got
        assert b"may still act" in told

    async def test_cancelled_call_is_not(self, autojump_clock):
        """Also when it is abandoned later."""
        setting = Setting(None)
        call = setting.call()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            await trio.testing.wait_all_tasks_blocked()
            call.cancel()
            call.abandon()
        assert setting.got == []

    @pytest.mark.parametrize("steps", [[None], [b"id: a\ndata:\n\n", None], [405], []])
    async def test_everybody_who_waits_for_it_is_let_go(self, autojump_clock, steps):
        """However it ends."""
        call = Setting(*steps).call()
        with trio.move_on_after(5):
            await call.run()

        assert call.handed_over.is_set()
        assert call.sent.is_set()
        assert call.answer.settled.is_set()


class TestFollow:
    async def test_listens_again_and_again(self, autojump_clock):
        """Events begin the waits anew; what was missed and is gone is not asked for twice."""
        setting = Setting(b"id: a\ndata: 1\n\n", 410, b"data: 2\n\n", 409, 500, b"data: 3\n\n", 405)
        answer = PipeAnswer(setting.deliver, (), 1000)
        config = BackoffConfig(base=1.0, cap=4.0, budget=math.inf)
        await follow(setting.room, {b"content-type": b"x"}, answer, config, lambda: False)

        assert setting.got == [b"1", b"2", b"3"]
        assert [last_event_id for _, last_event_id in setting.endpoint.asked] == [None, b"a", *[None] * 5]

    async def test_server_that_ends_each_stream_at_once_is_not_hammered(self, autojump_clock):
        """It is asked ever more rarely."""
        setting = Setting(*[b": nothing\n\n"] * 10_000)
        answer = PipeAnswer(setting.deliver, (), 1000)
        with trio.move_on_after(3600):
            await follow(setting.room, {}, answer, PipeEndpointConfig().listening, lambda: False)

        assert len(setting.endpoint.seen) < 600


async def test_session_is_ended_by_delete(autojump_clock):
    """Whatever the answer is."""
    setting = Setting(404)
    await end_session(setting.room, {}, setting.deliver)

    assert setting.endpoint.asked == [("DELETE", None)]
    assert setting.got == []


async def test_answer_that_the_proxy_itself_cuts_goes_on(autojump_clock):
    """The whole way: the server's connection breaks, the caller notices nothing."""
    config = ReverseProxyConfig(upstream=HttpUpstreamConfig(url="http://upstream.invalid/mcp"))
    async with open_pipe_kit(config) as kit:
        await kit.initialize()
        call = await kit.start(request(1, "m"))
        events = call.open_events()
        await events.send(notification("n"), id="e1")
        assert await kit.peer.receive() == notification("n")
        await events.cut(UpstreamDisconnected("gone"))
        again = await kit.upstream.next_call()
        assert again.headers["last-event-id"] == "e1"
        await again.open_events().send(result(1), id="e2")
        assert await kit.peer.receive() == result(1)
