"""Media types, and how an answer is relayed."""

import pytest

from shadowcat.protocol import ResponseMode, media_type

JSON, SSE, OTHER = ResponseMode.JSON, ResponseMode.SSE_STREAM, ResponseMode.PASSTHROUGH


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (" application/json ;x", JSON),
        ("text/event-stream", SSE),
        ("text/event-stream;charset=UTF-8", SSE),
        ("TEXT/EVENT-STREAM", SSE),
        ("text/plain", OTHER),
        ("application/json-seq", OTHER),
        ("application/problem+json", OTHER),
        ("text/event-stream2", OTHER),
        ("json", OTHER),
        (";", OTHER),
        ("", OTHER),
        (None, OTHER),
    ],
)
def test_mode_follows_type_and_subtype(value, mode):
    """RFC 9110, 8.3.1: type and subtype are case-insensitive, parameters may follow."""
    assert mode is ResponseMode.from_content_type(value)


@pytest.mark.parametrize(
    ("value", "expected"), [("A/B;c=D", "a/b"), (" a/b ", "a/b"), ("a/b, c/d", "a/b, c/d"), ("", ""), (None, "")]
)
def test_parameters_are_not_part_of_the_media_type(value, expected):
    """RFC 9110, 8.3.1: parameters come after a semicolon."""
    assert expected == media_type(value)
