"""MCP's HTTP headers: which pass, and when they mirror the body."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import HeaderMismatch, InvalidRequest
from shadowcat.protocol import (
    Notification,
    Request,
    client_headers,
    collect_headers,
    encode_value,
    mirror_headers,
    tool_name,
    upstream_headers,
)
from shadowcat.protocol.headers import check_mirrored, declared_version, decode_value

VERSION = "2026-07-28"

CREDENTIALS = [b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"set-cookie"]
HOP_BY_HOP = [
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"content-length",
    b"host",
]
OF_THIS_HOP = [
    b"expect",
    b"forwarded",
    b"x-forwarded-for",
    b"via",
    b"origin",
    b"referer",
    b"accept-encoding",
    b"server",
]
OF_ONE_SIDE = [b"mcp-session-id", b"last-event-id"]
NEVER = CREDENTIALS + HOP_BY_HOP + OF_THIS_HOP + OF_ONE_SIDE


def call(method, params, id=b"7"):
    return Request(id, method, json.dumps(params).encode())


class TestCollect:
    def test_values_of_a_field_that_repeats_are_joined(self):
        """RFC 9110, 5.3: in order, by commas; RFC 9113, 8.2.3: cookies by semicolons."""
        raw = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"cookie", b"x=1"), (b"cookie", b"y=2")]
        assert {b"a": b"1, 3", b"b": b"2", b"cookie": b"x=1; y=2"} == collect_headers(raw)

    @pytest.mark.parametrize(
        "name",
        [b"host", b"origin", b"content-type", b"content-length", b"mcp-session-id", b"mcp-protocol-version"]
        + [b"mcp-method", b"mcp-name", b"last-event-id", b"mcp-param-region"]
        + [b"authorization", b"content-encoding"],
    )
    def test_field_that_decides_may_not_contradict_itself(self, name):
        """RFC 9110, 5.3: such a field is single; two readers of it could differ."""
        with pytest.raises(InvalidRequest, match=name.decode()):
            collect_headers([(name, b"1"), (name, b"2")])
        assert {name: b"1"} == collect_headers([(name, b"1"), (name, b"1")])


class TestToUpstream:
    @pytest.mark.parametrize("name", NEVER)
    def test_field_of_this_hop_or_this_client_stays(self, name):
        """RFC 9110, 7.6.1: a proxy removes hop-by-hop fields; credentials are for the server they name."""
        assert [(b"accept-encoding", b"identity")] == upstream_headers({name: b"x"}, frozenset())

    @pytest.mark.parametrize(
        "name",
        [b"accept", b"content-type", b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-param-region"]
        + [b"mcp-param-unknown", b"traceparent", b"tracestate", b"user-agent"],
    )
    def test_field_that_describes_the_message_passes(self, name):
        """MCP 2026-07-28: an unrecognized Mcp-Param header MUST be forwarded."""
        assert (name, b"x") in upstream_headers({name: b"x"}, frozenset())

    def test_connection_names_what_stays(self):
        """RFC 9110, 7.6.1: intermediaries MUST remove the fields that Connection nominates."""
        headers = {b"accept": b"*/*", b"x-a": b"1", b"user-agent": b"u", b"connection": b"Close, X-A , user-agent"}
        assert [(b"accept", b"*/*"), (b"accept-encoding", b"identity")] == upstream_headers(
            headers, frozenset({b"x-a"})
        )

    def test_named_fields_pass_too(self):
        """The user names the credentials that the upstream is meant to see."""
        sent = upstream_headers({b"authorization": b"Bearer t", b"cookie": b"c"}, frozenset({b"authorization"}))
        assert [(b"authorization", b"Bearer t"), (b"accept-encoding", b"identity")] == sent


class TestToClient:
    @pytest.mark.parametrize(
        "name", [name for name in NEVER if name != b"host"] + [b"access-control-allow-origin", b"alt-svc"]
    )
    def test_field_of_the_other_hop_stays(self, name):
        """RFC 9110, 7.6.1; the upstream's session id is never shown to a client."""
        assert [] == client_headers([(name, b"x")])

    @pytest.mark.parametrize(
        "name",
        [b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"www-authenticate", b"allow"]
        + [b"mcp-protocol-version", b"x-accel-buffering", b"ratelimit-policy", b"x-ratelimit-remaining"],
    )
    def test_field_that_describes_the_answer_passes(self, name):
        """MCP authorization: a client reads WWW-Authenticate; MCP 2026-07-28: X-Accel-Buffering: no."""
        assert [(name, b"1"), (name, b"2")] == client_headers([(name, b"1"), (name, b"2")])


class TestDecodeValue:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"us-west1", "us-west1"),
            (b"=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            (b"=?base64?IHBhZGRlZCA=?=", " padded "),
            (b"=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            (b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
        ],
    )
    def test_examples_of_the_specification(self, value, expected):
        """MCP 2026-07-28, streamable HTTP, Value Encoding: encoding examples."""
        assert expected == decode_value(value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"", ""),
            (b"a\tb c~", "a\tb c~"),
            (b"=?base64??=", ""),
            (b"=?BASE64?YQ==?=", "=?BASE64?YQ==?="),
            (b"=?base64?YQ==", "=?base64?YQ=="),
            (b"x=?base64?YQ==?=", "x=?base64?YQ==?="),
        ],
    )
    def test_markers_must_stand_exactly_as_shown(self, value, expected):
        """Value Encoding: these markers are case-sensitive and MUST appear exactly as shown."""
        assert expected == decode_value(value)

    @pytest.mark.parametrize(
        "value",
        [
            b"=?base64?YR==?=",
            b"=?base64?YWJ=?=",
            b"=?base64?YQ?=",
            b"=?base64?YQ=?=",
            b"=?base64?!!!!?=",
            b"=?base64?Y Q=?=",
        ]
        + [b"=?base64?YQ==\n?=", b"=?base64?YQ==YQ==?=", b"=?base64?_-8=?=", b"=?base64?/w==?=", b"=?base64?\xe9?="],
    )
    def test_other_spellings_of_base64_are_malformed(self, value):
        """RFC 4648, 3.5: pad bits that are not zero; two spellings of one value let two readers differ."""
        assert decode_value(value) is None

    @pytest.mark.parametrize("value", [b"\xe9", b"\xc3\xa9", b"a\nb", b"a\x00", b"\x7f", b"\x1b"])
    def test_bytes_beyond_plain_ascii_are_malformed(self, value):
        """Value Encoding: visible ASCII (0x21-0x7E), space (0x20), and horizontal tab (0x09)."""
        assert decode_value(value) is None

    @given(st.text())
    def test_any_text_survives_base64(self, text):
        """Value Encoding: base64 of the UTF-8 representation."""
        assert text == decode_value(b"=?base64?" + base64.b64encode(text.encode()) + b"?=")

    @given(st.binary())
    def test_no_bytes_raise(self, value):
        """A header is malformed or says something."""
        decode_value(value)
        decode_value(b"=?base64?" + value + b"?=")


@pytest.mark.parametrize(
    ("params", "version"),
    [
        (b"", None),
        (b"{}", None),
        (b"[]", None),
        (b'{"_meta":{}}', None),
        (b'{"_meta":5}', None),
        (b'{"_meta":{"io.modelcontextprotocol/protocolVersion":5}}', None),
        (b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}', None),
        (b'{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}', VERSION),
        (b'{"_m\\u0065ta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28"}}', VERSION),
    ],
)
def test_version_is_declared_in_meta(params, version):
    """MCP 2026-07-28: io.modelcontextprotocol/protocolVersion in the request's _meta, however it is escaped."""
    assert version == declared_version(params)


class TestMirrored:
    HEADERS = {b"mcp-protocol-version": b"2026-07-28", b"mcp-method": b"tools/call", b"mcp-name": b"echo"}

    def test_headers_that_say_what_the_body_says_pass(self):
        """Server Validation: values specified in the headers match the body."""
        check_mirrored(self.HEADERS, call("tools/call", {"name": "echo"}), VERSION)

    @pytest.mark.parametrize("name", [b"mcp-protocol-version", b"mcp-method", b"mcp-name"])
    @pytest.mark.parametrize("value", [None, b"", b"other", b"\xe9", b"=?base64?%%?="])
    def test_header_that_is_missing_or_differs_is_refused(self, name, value):
        """Server Validation: a required standard header is missing, does not match, or is malformed."""
        headers = {**self.HEADERS, name: value} if value is not None else {**self.HEADERS}
        if value is None:
            del headers[name]
        with pytest.raises(HeaderMismatch, match=f"(?i){name.decode()}") as excinfo:
            check_mirrored(headers, call("tools/call", {"name": "echo"}), VERSION)
        assert b"7" == excinfo.value.request_id

    @pytest.mark.parametrize("name", [b"ECHO", b"echo "])
    def test_values_are_compared_to_the_letter(self, name):
        """Case Sensitivity: header values are case-sensitive."""
        with pytest.raises(HeaderMismatch):
            check_mirrored({**self.HEADERS, b"mcp-name": name}, call("tools/call", {"name": "echo"}), VERSION)

    @pytest.mark.parametrize(
        ("method", "param"), [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")]
    )
    def test_name_is_decoded_before_it_is_compared(self, method, param):
        """Value Encoding: servers MUST decode an encoded Mcp-Name before comparing it."""
        headers = {b"mcp-method": method.encode(), b"mcp-name": b"=?base64?w6k=?="}
        check_mirrored(headers, call(method, {param: "é"}), None)
        with pytest.raises(HeaderMismatch):
            check_mirrored(headers, call(method, {param: "=?base64?w6k=?="}), None)

    def test_method_is_not_encoded(self):
        """Value Encoding applies to Mcp-Name and Mcp-Param only."""
        with pytest.raises(HeaderMismatch):
            check_mirrored({b"mcp-method": b"=?base64?cGluZw==?="}, call("ping", {}), None)

    def test_version_that_is_not_declared_is_for_the_upstream_to_refuse(self):
        """Versioning: the server answers in its own words."""
        check_mirrored({b"mcp-method": b"ping"}, call("ping", {}), None)

    @pytest.mark.parametrize("params", [{}, {"name": None}, {"uri": "echo"}])
    def test_name_without_anything_to_mirror_is_refused(self, params):
        """Server Validation: a header value does not match the body."""
        with pytest.raises(HeaderMismatch, match="drop it"):
            check_mirrored(self.HEADERS, call("tools/call", params), VERSION)

    def test_call_that_names_nothing_is_for_the_upstream_to_refuse(self):
        """There is nothing in it that two readers could read differently."""
        headers = {b"mcp-method": b"tools/call"}
        check_mirrored(headers, Request(b"1", "tools/call", b""), None)
        check_mirrored(headers, call("tools/call", []), None)

    def test_malformed_param_header_that_nobody_knows_passes(self):
        """Server Behavior for Custom Headers: what is not recognized MUST be forwarded and otherwise ignored."""
        check_mirrored({b"mcp-method": b"ping", b"mcp-param-x": b"\xff"}, call("ping", {}), None)


class TestMirrorHeaders:
    @given(st.text())
    def test_value_is_read_back_as_it_was(self, value):
        """Value Encoding: whatever characters it has, in visible ASCII."""
        encoded = encode_value(value)
        assert decode_value(encoded) == value
        assert encoded == encoded.strip()

    @pytest.mark.parametrize(
        ("method", "params", "name"),
        [
            ("tools/call", {"name": "t"}, b"t"),
            ("prompts/get", {"name": "p q"}, b"p q"),
            ("resources/read", {"uri": "file:///ä"}, b"=?base64?ZmlsZTovLy/DpA==?="),
            ("tools/call", {}, None),
            ("tools/call", {"name": 7}, None),
            ("tools/list", {"name": "t"}, None),
        ],
    )
    def test_request_passes_the_check_with_them(self, method, params, name):
        """Standard Request Headers."""
        headers = mirror_headers(call(method, params), VERSION)
        named = {} if name is None else {b"mcp-name": name}
        assert headers == {b"mcp-protocol-version": VERSION.encode(), b"mcp-method": method.encode(), **named}
        check_mirrored(headers, call(method, params), VERSION)

    @pytest.mark.parametrize("text", ["", " a", "a ", "a\r\nb: c", "a\0", "ä", "a\x7f"])
    def test_what_no_header_carries_is_refused(self, text):
        """Neither method nor version can be encoded."""
        with pytest.raises(InvalidRequest) as excinfo:
            mirror_headers(call(text, {}), VERSION)
        assert excinfo.value.request_id == b"7"
        with pytest.raises(InvalidRequest):
            mirror_headers(Notification("m", b""), text)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (b'{"name":"search","arguments":{"name":"x"}}', "search"),
        (b'{"\\u006eame":"search"}', "search"),
        (b'{"name":"a","name":"b"}', "b"),
        (b'{"name":7}', None),
        (b"{}", None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_tool_that_is_called(params, name):
    assert tool_name(params) == name
