"""Whose a message on a shared pipe is."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.protocol import (
    Correlation,
    Notification,
    Request,
    Response,
    cancellation_of,
    peek,
    split_batch,
    wants_logs,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
IDS = st.sampled_from([b"1", b'"1"', b"0", b'""', b"null", b"9007199254740993", b'"a\\u0062"', b"1.0"])
TOKENS = st.none() | st.sampled_from([b"1", b'"1"', b"0", b'"t"', b"1.5"])


def text_of(**members: Any) -> bytes:
    raws = {key: value if isinstance(value, msgspec.Raw) else value for key, value in members.items()}
    return msgspec.json.encode({"jsonrpc": "2.0", **raws})


def request_text(request_id: bytes, token: bytes | None, extra: Any = None) -> bytes:
    meta: dict[str, Any] = {"other": extra}
    if token is not None:
        meta["progressToken"] = msgspec.Raw(token)
    return text_of(id=msgspec.Raw(request_id), method="tools/call", params={"x": extra, "_meta": meta})


def admit(correlation, text, owner="me"):
    message = peek(text)
    assert isinstance(message, Request)
    return correlation.admit(message, text, owner)


def read(text, kind: Any) -> Any:
    message = peek(text)
    assert isinstance(message, kind)
    return message, text


def progress(token: bytes) -> bytes:
    return text_of(method="notifications/progress", params={"progressToken": msgspec.Raw(token), "progress": 1})


def replaced(text, **values):
    found = json.loads(text)
    found.update(values)
    return found


@given(st.lists(st.tuples(IDS, TOKENS, JSON), min_size=1, max_size=8), st.randoms())
def test_each_caller_gets_its_own_whatever_the_ids(calls, random):
    """Answers and progress carry the caller's id and token to the letter, in any order."""
    correlation: Correlation[int] = Correlation()
    sent = []
    for number, (request_id, token, extra) in enumerate(calls):
        call, text = admit(correlation, request_text(request_id, token, extra), number)
        expected = json.loads(request_text(call.own_id, call.own_id if token is not None else None, extra))
        assert expected == json.loads(text)
        sent.append((number, call.own_id, request_id, token, extra))
    assert len({own_id for _, own_id, *_ in sent}) == len(sent)
    random.shuffle(sent)
    for number, own_id, request_id, token, extra in sent:
        found = correlation.match_progress(*read(progress(own_id), Notification))
        assert (found is None) == (token is None)
        if found is not None and token is not None:
            assert found[0].owner == number
            assert found[1] == progress(token)
        response = text_of(id=msgspec.Raw(own_id), result={"r": extra})
        settled = correlation.settle(*read(response, Response))
        assert settled is not None
        assert settled[0].owner == number
        assert settled[1] == text_of(id=msgspec.Raw(request_id), result={"r": extra})
        assert correlation.settle(*read(response, Response)) is None
        assert correlation.match_progress(*read(progress(own_id), Notification)) is None
    assert 0 == len(correlation)


@given(st.binary(max_size=40) | JSON.map(msgspec.json.encode))
def test_params_of_any_kind_pass(params):
    """Whatever a client sends as params, a request is admitted and else unchanged."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params
    message = peek(body)
    if isinstance(message, Request) and b"progressToken" not in body:
        call, text = Correlation[str]().admit(message, body, "me")
        assert replaced(body, id=int(call.own_id)) == json.loads(text)


@pytest.mark.parametrize("token", [b"null", b"{}", b"[1]", b"true"])
def test_token_that_is_none_is_left_alone(token):
    """A progress token is a string or a number."""
    _, text = admit(Correlation(), request_text(b"1", token))
    assert json.loads(request_text(b"1", token)) == json.loads(text)


@pytest.mark.parametrize("spelled", [b"1", b"1.0", b"1e0"])
def test_own_id_is_known_however_it_is_spelled(spelled):
    """Some languages have one kind of number only."""
    correlation: Correlation[str] = Correlation()
    admit(correlation, request_text(b'"a"', None))
    assert correlation.settle(*read(text_of(id=msgspec.Raw(spelled), result={}), Response)) is not None


@pytest.mark.parametrize("unknown", [b'"1"', b"2", b"1.5", b"1e999", b"null", b"-1"])
def test_other_ids_are_nobody_s(unknown):
    """They answer nothing."""
    correlation: Correlation[str] = Correlation()
    admit(correlation, request_text(b"1", b"1"))
    assert correlation.settle(*read(text_of(id=msgspec.Raw(unknown), result={}), Response)) is None
    assert 1 == len(correlation)


def cancel(request_id: bytes) -> bytes:
    return text_of(method="notifications/cancelled", params={"requestId": msgspec.Raw(request_id), "reason": "x"})


def test_cancellation_is_translated_if_it_can_mean_one_call():
    """As written: 1 is not "1"."""
    correlation: Correlation[str] = Correlation()
    call, _ = admit(correlation, request_text(b"1", None))
    assert correlation.cancel(*read(cancel(b'"1"'), Notification)) is None
    assert (call, cancel(call.own_id)) == correlation.cancel(*read(cancel(b"1"), Notification))
    other, _ = admit(correlation, request_text(b"1", None))
    assert correlation.cancel(*read(cancel(b"1"), Notification)) is None
    assert correlation.forget(other)
    assert not correlation.forget(other)
    assert (call, cancel(call.own_id)) == correlation.cancel(*read(cancel(b"1"), Notification))


def test_cancellation_by_the_server_names_the_caller_s_request():
    """Modern servers end a subscription so."""
    correlation: Correlation[str] = Correlation()
    call, _ = admit(correlation, request_text(b'"mine"', None))
    assert (call, cancel(b'"mine"')) == correlation.match_cancelled(*read(cancel(call.own_id), Notification))
    assert correlation.match_cancelled(*read(cancel(b"7"), Notification)) is None


def test_cancellation_of_our_own_names_the_request():
    """With a reason for the server's log."""
    call, _ = admit(Correlation(), request_text(b'"a"', None))
    message = json.loads(cancellation_of(call, "gone"))
    assert {"requestId": int(call.own_id), "reason": "gone"} == message["params"]


def subscribed(subscription_id: bytes, **members: Any) -> dict[str, Any]:
    return {"_meta": {"io.modelcontextprotocol/subscriptionId": msgspec.Raw(subscription_id)}, **members}


def test_subscription_id_is_translated():
    """In its notifications, and in the result that ends it."""
    correlation: Correlation[str] = Correlation()
    call, _ = admit(correlation, request_text(b'"sub"', None))
    note = text_of(method="n", params=subscribed(call.own_id, uri="x"))
    expected = text_of(method="n", params=subscribed(b'"sub"', uri="x"))
    assert (call, expected) == correlation.match_subscription(*read(note, Notification))
    for params in (subscribed(b"9"), {"_meta": 1}, [1], {"a": "io.modelcontextprotocol/subscriptionId"}):
        assert correlation.match_subscription(*read(text_of(method="n", params=params), Notification)) is None
    settled = correlation.settle(*read(text_of(id=1, result=subscribed(call.own_id)), Response))
    assert settled == (call, text_of(id="sub", result=subscribed(b'"sub"')))


def test_sole_and_newest():
    """What is alone under way, and what began last."""
    correlation: Correlation[str] = Correlation()
    assert correlation.sole is None
    assert correlation.newest is None
    one, _ = admit(correlation, request_text(b"1", None))
    assert (one, one) == (correlation.sole, correlation.newest)
    two, _ = admit(correlation, request_text(b"2", None))
    assert correlation.sole is None
    assert two is correlation.newest
    assert [one, two] == correlation.calls
    correlation.forget(one)
    assert two is correlation.sole


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b' [1, {"a" : 2}]', [b"1", b'{"a" : 2}']),
        (b"[]", []),
        (b"[", None),
        (b'{"a":[1]}', None),
        (b"", None),
    ],
)
def test_batches_are_taken_apart(text, parts):
    """Each message keeps its text."""
    assert parts == split_batch(text)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"_meta": {"io.modelcontextprotocol/logLevel": "info"}}, True),
        ({"_meta": {"x": "io.modelcontextprotocol/logLevel"}}, False),
        ({"io.modelcontextprotocol/logLevel": "info"}, False),
        ({}, False),
        ([], False),
    ],
)
def test_who_wants_log_messages(params, wanted):
    """Only who says so in ``_meta``."""
    assert wanted is wants_logs(json.dumps(params).encode())
    assert not wants_logs(b"")
