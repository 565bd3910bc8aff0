"""HTTP answers on a pipe: what the client gets of each."""

import json

import pytest
import trio

from shadowcat.errors import UpstreamTimeout
from shadowcat.protocol import SSEEvent, encode_event
from shadowcat.proxy.pipe_answer import PipeAnswer

RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}'
OTHERS = b'{"jsonrpc":"2.0","id":2,"result":{}}'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
NOBODYS_ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"no"}}'
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]


class Client:
    def __init__(self, *waiting, max_size=1000):
        self.got = []
        self.answer = PipeAnswer(self.deliver, waiting, max_size)

    async def deliver(self, message):
        await trio.lowlevel.checkpoint()
        self.got.append(message)

    @property
    def errors(self):
        return [(found["id"], found["error"]["code"]) for found in map(json.loads, self.got)]

    async def answered(self, status, headers, *parts, is_cut=False):
        await self.answer({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await self.answer({"type": "http.response.body", "body": part, "more_body": True})
        if not is_cut:
            await self.answer({"type": "http.response.body", "body": b"", "more_body": False})
        return self.got


class TestDocument:
    async def test_answer_is_one_message_to_the_letter(self):
        """However many pieces it comes in."""
        client = Client(b"1")
        assert [RESULT] == await client.answered(200, JSON, RESULT[:10], RESULT[10:])
        assert client.answer.settled.is_set()
        assert not client.answer.is_waiting

    @pytest.mark.parametrize("status", [200, 400, 404, 502])
    @pytest.mark.parametrize("body", [NOBODYS_ERROR, NOBODYS_ERROR.replace(b"null", b'"other"')])
    async def test_error_to_nobody_goes_to_the_caller(self, status, body):
        """Servers that refuse a request before they have read it cannot know its id."""
        client = Client(b'"me"')
        await client.answered(status, JSON, body)
        assert [("me", -32001)] == client.errors

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (502, b"<html>Bad Gateway</html>"),
            (200, b""),
            (202, b""),
            (200, OTHERS),
            (401, b"{}"),
            (200, b"\xff"),
            (500, NOTE),
        ],
    )
    async def test_what_is_no_answer_becomes_an_error_with_the_status(self, status, body):
        """Never silence."""
        client = Client(b"1")
        await client.answered(status, JSON, body)
        assert [(1, -32603)] == client.errors
        assert json.loads(client.got[0])["error"]["data"] == {"status": status}

    async def test_body_in_another_encoding_is_no_answer(self):
        """It was asked for plain; what this is nobody can read."""
        client = Client(b"1")
        await client.answered(200, [*EVENTS, (b"content-encoding", b"gzip")], b"\x1f\x8b")
        assert [(1, -32603)] == client.errors

    async def test_one_that_is_too_long_becomes_an_error(self):
        """What is beyond the limit is not kept."""
        client = Client(b"1", max_size=100)
        await client.answered(200, JSON, b"x" * 60, b"x" * 60, b"x" * 60)
        assert [(1, -32603)] == client.errors
        assert "longer than 100 bytes" in client.got[0].decode()

    @pytest.mark.parametrize("status", [200, 202, 404])
    async def test_to_a_notification_it_is_nothing(self, status):
        """Nobody waits for it; the status is all there is to know."""
        client = Client()
        assert [] == await client.answered(status, JSON, NOBODYS_ERROR)
        assert client.answer.settled.is_set()
        assert client.answer.status == status

    async def test_batch_is_answered_by_one_array(self):
        """As it came."""
        client = Client(b"1", b"2")
        assert [b"[%s,%s]" % (RESULT, OTHERS)] == await client.answered(200, JSON, b"[%s,%s]" % (RESULT, OTHERS))

    async def test_batch_that_is_refused_is_refused_to_each(self):
        """One error, to the id of every request."""
        client = Client(b"1", b"2")
        await client.answered(400, JSON, NOBODYS_ERROR)
        assert [(1, -32001), (2, -32001)] == client.errors


class TestEvents:
    async def test_each_is_a_message_in_order(self):
        """Also what no caller waits for."""
        client = Client(b"1")
        stream = b"".join(encode_event(SSEEvent(data)) for data in (NOTE, OTHERS, RESULT, NOTE))
        assert [NOTE, OTHERS, RESULT, NOTE] == await client.answered(200, EVENTS, stream[:50], stream[50:])
        assert not client.answer.is_waiting

    async def test_comments_ids_and_waits_are_kept_back(self):
        """They are for whoever comes back for the rest."""
        client = Client(b"1")
        head = b": hi\n\nid: a\ndata:\n\nid: b\nretry: 1500\n\n"
        assert [] == await client.answered(200, EVENTS, head, is_cut=True)
        assert (client.answer.last_event_id, client.answer.retry) == (b"b", 1.5)
        assert client.answer.is_waiting
        assert not client.answer.is_complete

    async def test_absurd_wait_is_cut_short(self):
        """A server cannot keep a caller waiting for a year."""
        client = Client(b"1")
        await client.answered(200, EVENTS, b"retry: 99999999999\n\n")
        assert client.answer.retry == 30

    async def test_end_without_an_answer_leaves_the_caller_waiting(self):
        """Whether there is more to come is not known here."""
        client = Client(b"1")
        await client.answered(200, EVENTS, encode_event(SSEEvent(NOTE)))
        assert client.answer.is_waiting
        assert client.answer.is_complete

    async def test_event_that_is_too_long_becomes_an_error(self):
        """It is most likely the answer."""
        client = Client(b"1", max_size=20)
        await client.answered(200, EVENTS, encode_event(SSEEvent(RESULT)))
        assert [(1, -32603)] == client.errors

    async def test_batch_is_answered_one_by_one(self):
        """In the order of the server's."""
        client = Client(b"1", b"2")
        await client.answered(200, EVENTS, encode_event(SSEEvent(OTHERS)))
        assert client.answer.is_waiting
        await client.answered(200, EVENTS, encode_event(SSEEvent(RESULT)))
        assert client.got == [OTHERS, RESULT]
        assert client.answer.settled.is_set()


async def test_failure_is_told_to_whoever_still_waits():
    """With the code that the error has everywhere; and once."""
    client = Client(b"1", b'"x"')
    await client.answer.fail(UpstreamTimeout("too slow"))
    await client.answer.fail(UpstreamTimeout("too slow"))

    assert [(1, -32603), ("x", -32603)] == client.errors


async def test_probing_a_document_is_no_answer():
    """To a request that resumes, it says only that there is no more."""
    client = Client(b"1")
    client.answer.is_probing = True
    assert [] == await client.answered(404, JSON, NOBODYS_ERROR)
    assert client.answer.is_waiting
