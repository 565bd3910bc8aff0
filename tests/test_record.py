"""What is noted of one exchange: times, sizes, and how it ended."""

import attrs
import pytest
import trio

from shadowcat.protocol import Batch, Notification, Request, Response
from shadowcat.record import OTHER, CallRecord, Observer, Outcome, digest, printable
from shadowcat.transport import Exchange


@attrs.define
class Witness(Observer):
    """Notes what it is told."""

    finished: list = attrs.field(factory=list)
    events: int = 0

    def pass_events(self, record, count):
        self.events += count

    def finish(self, record):
        self.finished.append(record)


async def drop(event):
    await trio.lowlevel.checkpoint()


async def never():
    await trio.sleep_forever()


def make_exchange(witness):
    exchange = Exchange({"method": "POST", "path": "/mcp", "headers": ()}, never, drop)
    exchange.observe(CallRecord("POST", "/mcp", "192.0.2.1", [witness]))
    return exchange


async def test_times_are_split_between_the_upstream_and_ourselves(autojump_clock):
    """2 s of our own, 3 s of the upstream, 1 s more before the answer begins, and 4 s until its end."""
    witness = Witness()
    exchange = make_exchange(witness)
    record = exchange.record
    await trio.sleep(2)
    exchange.hand_over()
    await trio.sleep(3)
    record.note_answer()
    await trio.sleep(1)
    stream = await exchange.open_stream(200, [])
    await stream.write(b"12345")
    await trio.sleep(4)
    await stream.end()
    record.finish(exchange.status, {})

    assert (record.duration, record.upstream_time, record.own_time) == (10, 3, 3)
    assert (record.bytes_out, record.status, record.outcome) == (5, 200, Outcome.OK)
    assert witness.finished == [record]


async def test_answer_that_is_not_looked_at_ends_the_upstreams_time_when_it_is_sent_on(autojump_clock):
    exchange = make_exchange(Witness())
    exchange.hand_over()
    await trio.sleep(3)
    await exchange.respond(202, [])
    await trio.sleep(1)
    exchange.record.finish(202, {})

    assert exchange.record.upstream_time == 3
    assert exchange.record.own_time == 0


async def test_upstream_that_never_answers_has_all_the_time(autojump_clock):
    exchange = make_exchange(Witness())
    exchange.hand_over()
    await trio.sleep(3)
    exchange.record.finish(0, {})

    assert (exchange.record.upstream_time, exchange.record.outcome) == (3, Outcome.CLIENT_LEFT)


async def test_what_was_not_sent_on_has_no_upstream_time(autojump_clock):
    exchange = make_exchange(Witness())
    await trio.sleep(1)
    await exchange.respond(403, [])
    exchange.record.finish(403, {})

    assert exchange.record.upstream_time is None
    assert exchange.record.own_time == 1


@pytest.mark.parametrize(
    ("status", "is_error", "outcome"),
    [
        (200, False, Outcome.OK),
        (202, False, Outcome.OK),
        (200, True, Outcome.ERROR),
        (404, False, Outcome.REJECTED),
        (500, True, Outcome.UPSTREAM_ERROR),
    ],
)
async def test_answer_that_came_through_is_judged_by_its_status(status, is_error, outcome):
    exchange = make_exchange(Witness())
    await exchange.respond(status, [])
    exchange.record.is_error = is_error
    exchange.record.finish(status, {})
    assert exchange.record.outcome is outcome


async def test_answer_without_an_end_means_that_the_client_left():
    exchange = make_exchange(Witness())
    await exchange.open_stream(200, [])
    exchange.record.finish(200, {})
    assert exchange.record.outcome is Outcome.CLIENT_LEFT


async def test_first_failure_counts():
    exchange = make_exchange(Witness())
    exchange.record.note_failure(Outcome.TIMEOUT, TimeoutError())
    exchange.record.note_failure(Outcome.FAILED, KeyError())
    await exchange.respond(504, [])
    exchange.record.finish(504, {})
    assert (exchange.record.outcome, exchange.record.error) == (Outcome.TIMEOUT, "TimeoutError")


@pytest.mark.parametrize(
    ("message", "label", "is_request"),
    [
        (Request(b"1", "tools/call", b"{}"), "tools/call", True),
        (Request(b"1", "x" * 1000, b""), OTHER, True),
        (Notification("notifications/cancelled", b""), "notifications/cancelled", False),
        (Response(b"1", b"{}", b""), "response", False),
        (Batch((Request(b"1", "ping", b""),)), "batch", True),
        (Batch((Notification("a", b""),)), "batch", False),
    ],
)
async def test_label_is_one_of_few(message, label, is_request):
    record = CallRecord("POST", "/mcp", None, ())
    headers = record.note_message("default", {b"a": b"b"}, message, 7)
    assert (record.label, record.is_request, record.bytes_in, headers) == (label, is_request, 7, {b"a": b"b"})


async def test_subscription_listens():
    record = CallRecord("POST", "/mcp", None, ())
    record.note_message("default", {}, Request(b"1", "subscriptions/listen", b"{}"), 7)
    assert record.is_listening


async def test_session_is_that_of_the_request_or_else_of_the_answer():
    exchange = make_exchange(Witness())
    await exchange.respond(200, [(b"mcp-session-id", b"new")])
    exchange.record.finish(200, {b"mcp-session-id": b"old"})
    assert exchange.record.session_id == b"new"

    exchange = make_exchange(Witness())
    await exchange.respond(200, [])
    exchange.record.finish(200, {b"mcp-session-id": b"old"})
    assert exchange.record.session_id == b"old"


async def test_events_are_told_as_they_pass():
    witness = Witness()
    record = CallRecord("GET", "/mcp", None, [witness])
    record.note_events(2)
    record.note_events(1)
    assert (record.events, witness.events) == (3, 3)


async def test_message_is_not_kept_beyond_the_end():
    """It may have megabytes, and secrets."""
    record = CallRecord("POST", "/mcp", None, ())
    record.note_message("default", {}, Request(b"1", "ping", b"{}"), 7)
    record.finish(200, {})
    assert record.message is None


async def test_observer_need_not_want_anything():
    observer = Observer()
    record = CallRecord("POST", "/mcp", None, [observer])
    record.note_events(1)
    await observer.refuse(record, KeyError())
    record.finish(200, {})


def test_digest_is_the_same_for_all_and_does_not_tell_the_id():
    assert digest("secret") == digest(b"secret") == "2bb80d537b1d"


def test_text_from_elsewhere_can_always_be_written():
    assert printable("a\ud800b") == "a\\ud800b"
    assert len(printable("a" * 1000)) == 128
