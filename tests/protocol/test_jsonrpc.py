"""JSON-RPC 2.0: what is read, what is refused, and what stays as it was."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shadowcat.errors import InvalidRequest, ParseError, ProtocolError
from shadowcat.protocol import (
    Batch,
    Notification,
    Request,
    Response,
    cancelled_id,
    decode,
    error_body,
    mint_id,
    peek,
    peek_response,
    read_value,
    replace_cancelled_id,
    replace_id,
)

IDS = [b"0", b'"0"', b'""', b"null", b"-1", b"1.5", b"1e3", b"9007199254740993", b'"\\u00e9"', '"é"'.encode(), b'" "']

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
raw_ids = (
    st.sampled_from(IDS) | st.integers().map(lambda n: b"%d" % n) | st.text().map(lambda s: json.dumps(s).encode())
)
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.text(max_size=12)},
    optional={"params": st.dictionaries(st.text(max_size=8), json_values, max_size=3), "extra": json_values},
)
nearly_json = st.lists(
    st.sampled_from([*b'{}[]":,\\ -.0159eEtrufalsn\xff\xc3\xa9', *range(5)]).map(lambda byte: bytes([byte]))
    | st.sampled_from([b'"jsonrpc":"2.0"', b'"id":', b'"method":"x"', b'"params":', b'"result":', b'"error":', b"\\u"]),
    max_size=30,
).map(b"".join)


def read(body, **limits) -> Any:
    return decode(body, **limits)


class TestDecode:
    @pytest.mark.parametrize("raw", IDS)
    def test_request_keeps_the_text_of_its_id(self, raw):
        """JSON-RPC 2.0, 5: the id of the answer MUST be the same as that of the request."""
        assert Request(raw, "x/y", b"") == decode(b'{"jsonrpc":"2.0", "id" : ' + raw + b' ,"method":"x/y"}')

    @pytest.mark.parametrize("raw", [b"{}", b"[1]", b"true", b"false"])
    def test_id_must_be_a_string_or_a_number(self, raw):
        """JSON-RPC 2.0, 4: an id MUST contain a String, Number, or NULL value if included."""
        with pytest.raises(InvalidRequest, match='"id"') as excinfo:
            decode(b'{"jsonrpc":"2.0","method":"x","id":' + raw + b"}")
        assert excinfo.value.request_id is None

    def test_message_without_an_id_is_a_notification(self):
        """JSON-RPC 2.0, 4.1: a notification is a request without an id member."""
        assert Notification("x", b'{"a": 1.0}') == decode(b'{"jsonrpc":"2.0","method":"x","params":{"a": 1.0}}')

    @pytest.mark.parametrize(
        ("members", "response"),
        [
            (b'"id":1,"result": {"a" : 1e2}', Response(b"1", b'{"a" : 1e2}', b"")),
            (b'"id":1,"result":null', Response(b"1", b"null", b"")),
            (b'"id":"a","error":{"code":1}', Response(b'"a"', b"", b'{"code":1}')),
            (b'"id":null,"error":{}', Response(b"null", b"", b"{}")),
            (b'"error":{}', Response(None, b"", b"{}")),
        ],
    )
    def test_response_has_a_result_or_an_error(self, members, response):
        """JSON-RPC 2.0, 5: either the result member or error member MUST be included."""
        found = read(b'{"jsonrpc":"2.0",' + members + b"}")

        assert response == found
        assert (b"error" in members) == found.is_error

    @pytest.mark.parametrize("members", [b"", b',"id":7', b',"id":7,"result":1,"error":{}'])
    def test_message_that_is_neither_is_refused_with_its_id(self, members):
        """JSON-RPC 2.0, 5: ... but both members MUST NOT be included."""
        with pytest.raises(InvalidRequest) as excinfo:
            decode(b'{"jsonrpc":"2.0"' + members + b"}")
        assert (b"7" if members else None) == excinfo.value.request_id

    @pytest.mark.parametrize(
        "body",
        [
            b'{"jsonrpc":"1.0","id":7,"method":"x"}',
            b'{"jsonrpc":2.0,"id":7,"method":"x"}',
            b'{"jsonrpc":"2.0","id":7,"method":5}',
            b'{"jsonrpc":null,"id":7,"method":"x"}',
            b'{"id":7,"method":"x"}',
        ],
    )
    def test_malformed_message_is_refused_with_the_id_that_could_be_read(self, body):
        """JSON-RPC 2.0, 5: null stands for an id only if there was an error in detecting it."""
        with pytest.raises(InvalidRequest) as excinfo:
            decode(body)
        assert b"7" == excinfo.value.request_id

    @pytest.mark.parametrize("body", [b"1", b'"x"', b"null", b'{"jsonrpc":"2.0","method":1,"id":{}}'])
    def test_json_that_is_no_message_is_refused_without_an_id(self, body):
        """JSON-RPC 2.0, 5.1: -32600, the JSON sent is not a valid Request object."""
        with pytest.raises(InvalidRequest) as excinfo:
            decode(body)
        assert excinfo.value.request_id is None

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"{",
            b'{"jsonrpc":"2.0","method":"x"}x',
            b'{"a":}',
            b"\xff",
            b'{"a":"\xc3"}',
            '{"a":1}'.encode("utf-16"),
            b'{"a":"\n"}',
        ],
    )
    def test_anything_but_json_in_utf8_is_a_parse_error(self, body):
        """JSON-RPC 2.0, 5.1: -32700, invalid JSON; MCP: messages MUST be UTF-8 encoded."""
        with pytest.raises(ParseError):
            decode(body)

    @given(st.binary(max_size=60) | nearly_json)
    @example(b'{"jsonrpc":"2.0","method":"\\ud800"}')
    @example(b"[" * 100_000)
    @example(b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"x"}')
    def test_arbitrary_bytes_raise_nothing_but_protocol_error(self, body):
        """Whatever a client sends is a message or its own fault."""
        try:
            decode(body)
        except ProtocolError:
            pass
        peek(body)
        read_value(body)

    @given(messages, raw_ids)
    def test_method_and_params_survive(self, message, raw):
        """Decoding the JSON of a message gives back its parts."""
        text = json.dumps(message, ensure_ascii=False).encode()
        found = decode(text[:-1] + b',"id":' + raw + b"}")

        assert isinstance(found, Request)
        assert (raw, message["method"]) == (found.id, found.method)
        assert message.get("params") == (json.loads(found.params) if found.params else None)


class TestBatch:
    def test_entries_keep_their_order_and_kind(self):
        """JSON-RPC 2.0, 6: an Array filled with Request objects."""
        entries = [b'"id":1,"method":"a"', b'"method":"b"', b'"id":"s","result":{}']
        body = b" [" + b",".join(b'{"jsonrpc":"2.0",' + entry + b"}" for entry in entries) + b"]"
        assert Batch((Request(b"1", "a", b""), Notification("b", b""), Response(b'"s"', b"{}", b""))) == decode(body)

    @pytest.mark.parametrize("body", [b"[]", b"[1]", b"[[]]", b'[{"jsonrpc":"2.0","id":1,"method":"a"},{}]'])
    def test_empty_or_malformed_batch_is_refused(self, body):
        """JSON-RPC 2.0, 6: a batch with at least one value; an empty Array is an invalid request."""
        with pytest.raises(InvalidRequest):
            decode(body)


def nested(levels, opening=b"[", closing=b"]"):
    """Return a request nested *levels* deep: the message, its params, and lists within."""
    return (
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":'
        + opening * (levels - 2)
        + b"1"
        + closing * (levels - 2)
        + b"}}"
    )


class TestDepth:
    @pytest.mark.parametrize("limit", [2, 3, 10, 128])
    @pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"k":', b"}")])
    def test_limit_is_exact(self, limit, opening, closing):
        """A body as deep as the limit passes, one level more does not."""
        assert b"1" == read(nested(limit, opening, closing), max_depth=limit).id
        with pytest.raises(InvalidRequest, match=str(limit)):
            decode(nested(limit + 1, opening, closing), max_depth=limit)

    def test_default_limit_is_128(self):
        """The decoder itself never comes near its own recursion limit."""
        decode(nested(128))
        with pytest.raises(InvalidRequest, match="128"):
            decode(nested(129))

    @pytest.mark.parametrize(
        "text", ["[" * 500, '\\"[' * 500, "\\\\" * 3 + "{" * 500, "é[" * 500, "]}" * 300 + "[" * 300]
    )
    def test_brackets_in_strings_do_not_count(self, text):
        """Only structure nests."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"' + text.encode() + b'"}}'
        assert b"1" == read(body, max_depth=2).id

    def test_brackets_after_a_string_count_again(self):
        """A string that ends in an escaped backslash has ended."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":["\\\\",[[["[[[["]]]]}'
        assert b"1" == read(body, max_depth=5).id
        with pytest.raises(InvalidRequest):
            decode(body, max_depth=4)

    def test_siblings_are_not_depth(self):
        """Ten thousand lists beside each other are two levels deep in their message."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":[' + b",".join([b"[]"] * 10_000) + b"]}"
        assert b"1" == read(body, max_depth=3).id

    @pytest.mark.parametrize("tail", [b'"' + b'\\"' * 500_000, b'""' * 500_000, b'"' + b"\\" * 1_000_001])
    def test_string_that_does_not_end_costs_linear_time(self, tail):
        """A megabyte of quotes is read once; once for each quote would take hours."""
        with pytest.raises(ProtocolError):
            decode(b"[]" * 200 + tail)


class TestReplaceId:
    @pytest.mark.parametrize("raw", IDS)
    def test_members_keep_text_and_order(self, raw):
        """A relayed message differs from what was sent in nothing but its id."""
        body = (
            b'{"x": [1.0, 1e2],"jsonrpc":"2.0", "id":'
            + raw
            + b',"params":{"_meta":{"n":9007199254740993}}, "y":"\\u00e9"}'
        )
        expected = (
            b'{"x":[1.0, 1e2],"jsonrpc":"2.0","id":"new","params":{"_meta":{"n":9007199254740993}},"y":"\\u00e9"}'
        )
        assert expected == replace_id(body, b'"new"')

    @given(messages, raw_ids, raw_ids)
    def test_everything_else_survives(self, message, old, new):
        """Any member may be there, known here or not."""
        message = {**message, "extra": message.get("extra"), "id": 0}
        text = json.dumps(message).encode().replace(b'"id": 0', b'"id": ' + old)

        found = replace_id(text, new)
        assert read(found).id == new
        assert {**message, "id": json.loads(new)} == json.loads(found)

    @pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff"])
    def test_anything_but_an_object_is_refused(self, body):
        """A batch has no id of its own."""
        with pytest.raises(ParseError):
            replace_id(body, b"1")


class TestCancelledId:
    CANCEL = (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s,"reason":"\\u00e9", "x":1.0}}'
    )

    @pytest.mark.parametrize("raw", IDS)
    def test_id_is_read_and_replaced_to_the_letter(self, raw):
        """MCP, Cancellation: the ID of the request to cancel; everything else stays as it was."""
        message = self.CANCEL % raw

        assert raw == cancelled_id(read(message).params)
        assert json.loads(self.CANCEL % b'"new"') == json.loads(replace_cancelled_id(message, b'"new"'))
        assert b'"reason":"\\u00e9","x":1.0' in replace_cancelled_id(message, b'"new"')

    @pytest.mark.parametrize("params", [b"", b"{}", b"[]", b"5", b"{", b'{"request":1}'])
    def test_cancellation_may_name_nothing(self, params):
        """It is for the upstream to ignore."""
        assert cancelled_id(params) is None

    @pytest.mark.parametrize("message", [b"", b"[]", b"{}", b'{"params":5}', b'{"params":', b"\xff"])
    def test_what_is_no_cancellation_is_refused(self, message):
        """Nothing of it can be replaced."""
        with pytest.raises(ParseError):
            replace_cancelled_id(message, b"1")


def test_minted_ids_are_strings_that_nobody_else_has():
    """An id is a JSON string, and long enough to stand nowhere by accident."""
    ids = {mint_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(isinstance(json.loads(minted), str) and len(minted) > 24 for minted in ids)


class TestPeek:
    @pytest.mark.parametrize("data", [b"", b"x", b"\xff", b"[]", b"1", b"{}", b'{"jsonrpc":"1.0","id":1,"result":1}'])
    def test_what_is_no_message_is_none(self, data):
        """What a server sends is relayed whether we understand it or not."""
        assert peek(data) is None

    def test_message_is_read(self):
        """... and what we understand is understood."""
        assert Response(b"1", b"{}", b"") == peek(b'{"jsonrpc":"2.0","id":1,"result":{}}')


@pytest.mark.parametrize(("text", "value"), [(b"", None), (b"{", None), (b"\xff", None), (b'{"a":[1]}', {"a": [1]})])
def test_broken_text_has_no_value(text, value):
    """Reading a value never raises."""
    assert value == read_value(text)


class TestErrorBody:
    @pytest.mark.parametrize("raw", IDS)
    def test_id_is_the_callers_to_the_letter(self, raw):
        """JSON-RPC 2.0, 5: the same value as the id in the request."""
        assert (b'{"jsonrpc":"2.0","id":' + raw + b',"error":{"code":-32600,"message":"no"}}') == error_body(
            raw, -32600, "no"
        )

    def test_answer_to_nobody_has_a_null_id(self):
        """JSON-RPC 2.0, 5: if there was an error in detecting the id, it MUST be Null."""
        assert {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "é", "data": {"a": [1]}}} == json.loads(
            error_body(None, 1, "é", {"a": [1]})
        )


any_message = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers() | st.text()},
    optional={"method": st.text(max_size=8), "result": json_values, "error": json_values, "params": json_values},
)


@given(any_message, st.booleans())
@example({"jsonrpc": "2.0", "id": 1, "result": {}}, True)
def test_a_response_is_recognized_however_its_names_are_spelled(message, is_escaped):
    text = json.dumps(message)
    if is_escaped:
        text = text.replace('"result"', '"re\\u0073ult"').replace('"error"', '"err\\u006fr"')
    found = peek(text.encode())
    assert peek_response(text.encode()) == (found if isinstance(found, Response) else None)


@pytest.mark.parametrize("text", [b"", b"{", b'{"result"', b'\xff"error"', b'"result"'])
def test_what_is_no_message_is_no_response(text):
    assert peek_response(text) is None
