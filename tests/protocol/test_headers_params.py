"""Tool arguments that are mirrored into headers."""

import json
from typing import Any

import pytest

from shadowcat.errors import HeaderMismatch
from shadowcat.protocol import Request, check_mirrored_params, mirror_params, mirrored_params


def call(method, params, id=b"7"):
    return Request(id, method, json.dumps(params).encode())


class TestMirroredParams:
    def test_property_paths_by_lower_case_header(self):
        """Schema Extension: nested object properties are permitted; header names are case-insensitive."""
        schema = {
            "properties": {
                "region": {"type": "string", "x-mcp-header": "Region"},
                "query": {"type": "string"},
                "where": {"properties": {"zone": {"type": "integer", "x-mcp-header": "Zone-Id"}}},
            }
        }
        assert {b"mcp-param-region": ("region",), b"mcp-param-zone-id": ("where", "zone")} == mirrored_params(schema)

    @pytest.mark.parametrize("keyword", ["items", "oneOf", "allOf", "anyOf", "not", "if", "then", "else", "$defs"])
    def test_only_properties_lead_to_an_argument(self, keyword):
        """Schema Extension: statically reachable via a chain consisting solely of properties keys."""
        inner = {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}
        assert mirrored_params(inner)
        assert {} == mirrored_params({keyword: [inner] if keyword.endswith("Of") else inner})
        assert {} == mirrored_params({"properties": {"p": {keyword: inner}}})

    @pytest.mark.parametrize(
        "schema",
        [
            None,
            5,
            "x",
            [],
            {},
            {"properties": None},
            {"properties": []},
            {"properties": {"a": None, "b": [], "c": True}},
        ]
        + [{"properties": {"a": {"type": "string", "x-mcp-header": None}}}],
    )
    def test_schema_of_any_form_raises_nothing(self, schema):
        """A malformed tool is for the client to drop."""
        assert {} == mirrored_params(schema)

    @pytest.mark.parametrize("token", ["", " ", "a b", "a:b", "a\r\nb", "é", 5, True, ["A"], {}])
    def test_header_must_be_a_token(self, token):
        """Schema Extension: MUST match field-name token syntax, or the tool is invalid and nothing of it counts."""
        valid = {"type": "string", "x-mcp-header": "B"}
        assert mirrored_params({"properties": {"b": valid}})
        assert {} == mirrored_params({"properties": {"b": valid, "a": {"type": "string", "x-mcp-header": token}}})

    @pytest.mark.parametrize("kind", ["number", "object", "array", "null", None, ["string"], 5])
    def test_argument_must_be_primitive(self, kind):
        """Schema Extension: integer, string or boolean; type number is not permitted."""
        assert {} == mirrored_params({"properties": {"a": {"type": kind, "x-mcp-header": "A"}}})

    def test_headers_must_be_unique(self):
        """Schema Extension: MUST be case-insensitively unique among all x-mcp-header values."""
        properties = {name: {"type": "string", "x-mcp-header": name} for name in ("a", "A", "b")}
        assert {} == mirrored_params({"properties": properties})

    def test_nesting_without_end_is_not_followed(self):
        """An upstream cannot exhaust the stack."""
        schema: dict[str, Any] = {"type": "string", "x-mcp-header": "A"}
        for _ in range(5000):
            schema = {"properties": {"a": schema}}
        assert {} == mirrored_params(schema)


def check_param(value, header, path=("a",), method="tools/call"):
    headers = {} if header is None else {b"mcp-param-a": header}
    params = {"name": "t", "arguments": value}
    check_mirrored_params(headers, call(method, params), {b"mcp-param-a": path})


class TestCheckMirroredParams:
    @pytest.mark.parametrize(
        ("value", "header"),
        [
            ("us", b"us"),
            ("", b""),
            ("é", b"=?base64?w6k=?="),
            ("42", b"42"),
            ("true", b"true"),
            (42, b"42"),
            (42, b"42.0"),
            (42.0, b"42"),
            (-7, b"-7"),
            (0, b"0"),
            (2**53 - 1, b"9007199254740991"),
            (True, b"true"),
            (False, b"false"),
            (None, None),
        ],
    )
    def test_header_that_says_what_the_argument_says_passes(self, value, header):
        """Value Encoding, type conversion; Server Validation: 42.0 and 42 are considered equal."""
        check_param({"a": value}, header)

    @pytest.mark.parametrize(
        ("value", "header"),
        [
            ("us", b"eu"),
            ("us", None),
            ("us", b"US"),
            ("us", b"=?base64?dXM?="),
            ("42", b"42.0"),
            (42, b"43"),
            (42, None),
            (42, b"42.5"),
            (42, b"0x2a"),
            (42, b" 42"),
            (42, b"forty-two"),
            (2**53, b"9007199254740993"),
            (1, b"1" + b"0" * 5000),
            (1, b"true"),
            (True, b"True"),
            (True, b"1"),
            (True, None),
            (False, b"0"),
            (None, b"\xff"),
            (None, b"=?base64?%?="),
            (None, b""),
            (None, b"null"),
        ],
    )
    def test_header_that_differs_is_refused(self, value, header):
        """Server Behavior: MUST reject if the header is omitted but the value is in the body; for null the reverse."""
        with pytest.raises(HeaderMismatch, match="tools/list") as excinfo:
            check_param({"a": value}, header)
        assert b"7" == excinfo.value.request_id

    def test_argument_is_found_by_its_path(self):
        """Schema Extension: the instance value at the exact property path."""
        check_param({"a": {"b": {"c": "x"}}}, b"x", path=("a", "b", "c"))
        with pytest.raises(HeaderMismatch, match=r"a\.b\.c"):
            check_param({"a": {"b": {"c": "x"}}}, b"y", path=("a", "b", "c"))

    @pytest.mark.parametrize("arguments", [None, {}, [], 5, {"a": None}, {"a": 5}, {"a": {"b": None}}, {"b": "x"}])
    def test_argument_that_is_not_there_has_no_header(self, arguments):
        """Server Behavior: if the parameter is not in arguments the server MUST NOT expect the header."""
        check_param(arguments, None, path=("a", "b"))
        with pytest.raises(HeaderMismatch):
            check_param(arguments, b"x", path=("a", "b"))

    def test_unknown_headers_pass(self):
        """Server Behavior: intermediaries that do not recognize a header MUST forward it and otherwise ignore it."""
        headers = {b"mcp-param-a": b"x", b"mcp-param-other": b"y"}
        check_mirrored_params(headers, call("tools/call", {"arguments": {"a": "x"}}), {b"mcp-param-a": ("a",)})
        check_mirrored_params(headers, call("tools/call", {"arguments": {"a": "z"}}), {})

    def test_only_tool_calls_are_checked(self):
        """Custom headers come from tool parameters."""
        check_param({"a": "x"}, b"y", method="prompts/get")


class TestMirrorParams:
    @pytest.mark.parametrize(
        ("value", "header"),
        [
            ("x", b"x"),
            ("", b""),
            (" x", b"=?base64?IHg=?="),
            ("ü", b"=?base64?w7w=?="),
            ("a\r\nb", b"=?base64?YQ0KYg==?="),
            ("=?base64?eA==?=", b"=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
            (7, b"7"),
            (-1, b"-1"),
            (True, b"true"),
            (False, b"false"),
            (None, None),
            ([], None),
            ({}, None),
        ],
    )
    def test_value_is_encoded_as_the_check_wants_it(self, value, header):
        """Value Encoding; and one half of this proxy accepts what the other writes."""
        mirrored = {b"mcp-param-a": ("a", "b")}
        request = call("tools/call", {"arguments": {"a": {"b": value}}})
        headers = mirror_params(request, mirrored)

        assert headers == ({} if header is None else {b"mcp-param-a": header})
        check_mirrored_params(headers, request, mirrored)
