"""W3C trace context: what is one, what is none, and where it stands."""

import json

import pytest

from shadowcat.protocol import SpanContext, context_in_meta, parse_traceparent, target_of

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7
PARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("value", "flags"),
    [(PARENT, 1), (f" {PARENT} ", 1), (PARENT[:-1] + "0", 0), ("cc" + PARENT[2:] + "-what-comes-later", 1)],
)
def test_well_formed_is_read(value, flags):
    assert SpanContext(TRACE, SPAN, flags) == parse_traceparent(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        PARENT.upper(),
        "ff" + PARENT[2:],
        PARENT + "-more",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        PARENT[:-1],
    ],
)
def test_malformed_is_none(value):
    """The receiver then begins a trace of its own (W3C Trace Context, 4.3)."""
    assert parse_traceparent(value) is None


def test_state_that_is_too_long_is_left_out():
    assert parse_traceparent(PARENT, "a=1") == SpanContext(TRACE, SPAN, 1, "a=1")
    assert parse_traceparent(PARENT, "a=" + "1" * 511) == SpanContext(TRACE, SPAN, 1, "")


def test_meta_of_a_message_has_it():
    """MCP 2026-07-28, ``_meta``: the keys have no prefix."""
    params = {"name": "a", "_meta": {"traceparent": PARENT, "tracestate": "a=1", "progressToken": 1}}
    assert context_in_meta(json.dumps(params).encode()) == SpanContext(TRACE, SPAN, 1, "a=1")


@pytest.mark.parametrize(
    "params",
    [
        b"",
        b"{}",
        b'{"traceparent":"%s"}' % PARENT.encode(),
        b'{"_meta":{"traceparent":7}}',
        b'{"_meta":"traceparent"}',
        b'["traceparent"]',
        b'{"_meta":{"traceparent":"\xff"}}',
        b'{"_meta":{"traceparent":"x"',
    ],
)
def test_what_is_elsewhere_or_broken_is_none(params):
    assert context_in_meta(params) is None


@pytest.mark.parametrize(
    ("method", "params", "target"),
    [
        ("tools/call", b'{"name":"add","arguments":{"name":"x"}}', "add"),
        ("prompts/get", b'{"name":"greet"}', "greet"),
        ("resources/read", b'{"uri":"file:///secret","name":"x"}', ""),
        ("anything", b'{"name":"x"}', ""),
        ("tools/call", b"", ""),
        ("tools/call", b'{"name":7}', ""),
        ("tools/call", b"[]", ""),
    ],
)
def test_tools_and_prompts_are_told_by_name_and_resources_are_not(method, params, target):
    assert target_of(method, params) == target
