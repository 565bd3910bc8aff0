"""Requests, taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.admin.process import show_health
from shadowcat.admin.route import Parameter, Route, read_object
from shadowcat.errors import InvalidRequest

LIMIT = Parameter(name="limit", description="how many", kind=int, minimum=1, maximum=1000, default=100)
IDLE = Parameter(name="idle", description="seconds", kind=float, minimum=0)
ROUTE = Route(
    method="GET",
    path="/v1/a/{key}/b",
    summary="",
    handle=show_health,
    answer="",
    parameters=(LIMIT, IDLE, Parameter(name="name", description="any")),
)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/v1/a/x/b", {"key": "x"}),
        ("/v1/a/{key}/b", {"key": "{key}"}),
        ("/v1/a//b", None),
        ("/v1/a/x/b/", None),
        ("/v1/a/x", None),
        ("v1/a/x/b", None),
        ("", None),
    ],
)
def test_a_path_is_matched_whole(path, parts):
    assert parts == ROUTE.match(path)


def test_parameters_are_read_and_have_defaults():
    assert {"limit": 100, "idle": None, "name": None} == ROUTE.read_query(b"")
    assert {"limit": 7, "idle": 0.5, "name": "a b"} == ROUTE.read_query(b"limit=7&idle=0.5&name=a+b")


@pytest.mark.parametrize(
    "query",
    [
        *(b"limit=0", b"limit=1001", b"limit=x", b"limit=", b"limit=1.5", b"limit=1&limit=2", b"limit=" + b"9" * 5000),
        *(b"idle=-1", b"idle=nan", b"idle=-inf", b"other=1", b"\xff=1", b"&".join([b"a=1"] * 100)),
    ],
)
def test_a_bad_query_is_told(query):
    with pytest.raises(InvalidRequest):
        ROUTE.read_query(query)


@given(st.binary())
def test_a_query_is_read_or_refused(query):
    try:
        ROUTE.read_query(query)
    except InvalidRequest:
        return


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'"', b"\xff", b"{", b"[" * 10_000, b'{"a":1}x'])
def test_a_body_that_is_no_object_is_told(body):
    with pytest.raises(InvalidRequest, match="JSON object"):
        read_object(body)
