"""What a new upstream session has to be told again."""

import json

import pytest

from shadowcat.protocol import Request
from shadowcat.proxy.standing import is_standing, standing_requests, with_request
from shadowcat.session import Session, SessionId

SESSION = Session(id=SessionId("s"), metadata={"other": "kept"})


def granted(session, method, **params):
    return with_request(session, Request(b"1", method, json.dumps(params).encode()))


def test_the_newest_level_counts():
    session = granted(granted(SESSION, "logging/setLevel", level="debug"), "logging/setLevel", level="error")
    assert standing_requests(session) == [("logging/setLevel", {"level": "error"})]
    assert session.metadata["other"] == "kept"


def test_subscriptions_are_told_once_each_in_their_order():
    session = SESSION
    for uri in ("b", "a", "b"):
        session = granted(session, "resources/subscribe", uri=uri)
    assert standing_requests(session) == [("resources/subscribe", {"uri": "b"}), ("resources/subscribe", {"uri": "a"})]
    session = granted(session, "resources/unsubscribe", uri="b")
    session = granted(session, "resources/unsubscribe", uri="never")
    assert standing_requests(session) == [("resources/subscribe", {"uri": "a"})]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("logging/setLevel", {}),
        ("logging/setLevel", {"level": 1}),
        ("logging/setLevel", {"level": "x" * 65}),
        ("resources/subscribe", {}),
        ("resources/subscribe", {"uri": None}),
        ("resources/subscribe", {"uri": "x" * 100_000}),
    ],
)
def test_nonsense_is_not_kept(method, params):
    assert granted(SESSION, method, **params) == SESSION
    assert with_request(SESSION, Request(b"1", method, b"[]")) == SESSION


def test_what_somebody_else_wrote_there_is_passed_over():
    session = Session(id=SessionId("s"), metadata={"shadowcat.subscriptions": "{"})
    assert standing_requests(session) == []


@pytest.mark.parametrize("method", ["tools/call", "initialize", "resources/read"])
def test_other_requests_stand_for_themselves(method):
    assert not is_standing(Request(b"1", method, b""))
