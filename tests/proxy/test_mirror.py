"""Learning which arguments are mirrored into headers."""

import json

import pytest

from shadowcat.errors import HeaderMismatch
from shadowcat.protocol import Request, Response
from shadowcat.proxy import mirror
from shadowcat.proxy.mirror import MirroredTools

RIGHT, WRONG, NONE = {b"mcp-param-region": b"eu"}, {b"mcp-param-region": b"us"}, {}


def tool(name="t", header="Region"):
    schema = {"type": "string", **({"x-mcp-header": header} if header else {})}
    return {"name": name, "inputSchema": {"type": "object", "properties": {"where": schema}}}


def listed(*tools):
    return Response(b"1", json.dumps({"tools": tools}).encode(), b"")


def call(name="t", where="eu"):
    return Request(b"2", "tools/call", json.dumps({"name": name, "arguments": {"where": where}}).encode())


def is_refused(tools, headers, request):
    try:
        tools.check(headers, request)
    except HeaderMismatch:
        return True
    return False


@pytest.fixture
def tools():
    tools = MirroredTools()
    tools.learn({}, listed(tool()))
    return tools


def test_call_is_checked_against_what_its_tool_declares(tools):
    """MCP 2026-07-28, Server Behavior for Custom Headers: MUST validate that headers match the body."""
    assert not is_refused(tools, RIGHT, call())
    assert is_refused(tools, WRONG, call())
    assert is_refused(tools, NONE, call())


def test_tool_that_was_not_listed_is_not_checked(tools):
    """MCP 2026-07-28: a header that is not recognized MUST be forwarded and otherwise ignored."""
    assert not is_refused(tools, WRONG, call("other"))
    assert not is_refused(MirroredTools(), WRONG, call())


def test_later_list_replaces_what_an_earlier_one_said(tools):
    """MCP: after notifications/tools/list_changed a client lists again."""
    tools.learn({}, listed(tool(header="Zone")))
    assert not is_refused(tools, {b"mcp-param-zone": b"eu", **WRONG}, call())
    assert is_refused(tools, RIGHT, call())

    tools.learn({}, listed(tool(header=None)))
    assert not is_refused(tools, NONE, call())


def test_what_one_caller_is_shown_does_not_bind_another():
    """A server may show each principal other tools."""
    tools = MirroredTools([b"authorization"])
    first, second = {b"authorization": b"a"}, {b"authorization": b"b"}
    tools.learn(first, listed(tool()))

    assert is_refused(tools, {**WRONG, **first}, call())
    assert not is_refused(tools, {**WRONG, **second}, call())
    assert not is_refused(tools, WRONG, call())
    tools.learn(second, listed(tool(header="Zone")))
    assert is_refused(tools, {**WRONG, **first}, call())
    assert is_refused(tools, {**RIGHT, **second}, call())


def test_other_headers_do_not_tell_callers_apart():
    """Only those that go upstream may decide what it lists."""
    tools = MirroredTools([b"authorization"])
    tools.learn({b"cookie": b"a"}, listed(tool()))
    assert is_refused(tools, {**WRONG, b"cookie": b"b"}, call())


def test_pages_of_a_list_add_up(tools):
    """MCP, pagination: tools/list comes in pages."""
    tools.learn({}, listed(tool("u")))
    tools.learn({}, listed())

    assert is_refused(tools, WRONG, call("t"))
    assert is_refused(tools, WRONG, call("u"))


@pytest.mark.parametrize(
    "result",
    [b"", b"{", b"[]", b"5", b'{"tools":5}', b'{"tools":[5,null,{},{"name":5},{"name":"t"}]}']
    + [b'{"tools":[{"name":"u","inputSchema":"x-mcp-header"}]}'],
)  # fmt: skip
def test_list_of_any_form_raises_nothing(tools, result):
    """What a server sends is relayed, whether we understand it or not."""
    tools.learn({}, Response(b"1", result, b""))
    tools.learn({}, Response(b"1", b"", b'{"code":1,"message":"x-mcp-header"}'))
    assert not is_refused(tools, RIGHT, call("v"))


@pytest.mark.parametrize("params", [b"", b"[]", b"{}", b'{"name":5}', b'{"name":["t"]}'])
def test_call_without_a_name_is_for_the_upstream_to_refuse(tools, params):
    """There is no tool to compare it with."""
    assert not is_refused(tools, WRONG, Request(b"2", "tools/call", params))


def test_longest_known_are_forgotten_first(monkeypatch):
    """A server that invents tools without end costs no more memory than the limit."""
    monkeypatch.setattr(mirror, "_MAX_TOOLS", 3)
    tools = MirroredTools()
    tools.learn({}, listed(*[tool(name) for name in "abc"]))
    tools.learn({}, listed(tool("a"), tool("d"), tool("e")))

    assert [name for name in "abcde" if is_refused(tools, WRONG, call(name))] == ["a", "d", "e"]


def test_call_without_headers_is_given_those_that_it_must_have(tools):
    """A client on a pipe has no headers: they are made from what its tool declares."""
    assert RIGHT == tools.headers_for({}, call())
    assert {} == tools.headers_for({}, call("other"))
    assert {} == tools.headers_for({}, call(where=None))
    assert {} == tools.headers_for({}, Request(b"2", "prompts/get", call().params))
    assert {} == MirroredTools().headers_for({}, call())
