"""A span for each call, and a trace that goes on upstream."""

import json
import subprocess
import sys

import pytest
import trio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shadowcat.errors import UpstreamTimeout
from shadowcat.telemetry import TracingConfig, open_tracing
from shadowcat.testing import open_proxy_kit, request, result

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_PARENT = f"00-{OTHER_TRACE}-aaaaaaaaaaaaaaaa-01"


class Traced:
    """The proxy, whose spans are at hand."""

    def __init__(self, kit, exporter):
        self.kit, self._exporter = kit, exporter

    @property
    def spans(self):
        return list(self._exporter.get_finished_spans())

    async def call(self, message, headers=None, answer=None):
        """Make a call and return the span, and the headers that the upstream has seen."""
        call = await exchange(self.kit, message, headers, answer)
        await trio.testing.wait_all_tasks_blocked()
        return self.spans[-1], call


async def exchange(kit, message, headers=None, answer=None):
    """Make a call to its end, and return the upstream's side of it."""

    async def post():
        await (await kit.client.post(message, headers)).read()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            call = await kit.upstream.next_call()
            if isinstance(answer, Exception):
                call.fail(answer)
            else:
                call.answer(answer or result(1))
    return call


@pytest.fixture
async def traced(nursery):
    exporter = InMemorySpanExporter()
    async with open_proxy_kit() as kit, open_tracing(TracingConfig(), exporter) as tracer:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        await (await kit.client.initialize()).read()
        with kit.app.observers.observing(tracer):
            yield Traced(kit, exporter)


async def test_call_is_a_span_as_the_conventions_have_it(traced):
    span, _ = await traced.call(request(7, "tools/call", name="add", arguments={"secret": "s3cret"}))
    assert (span.name, span.kind) == ("tools/call add", SpanKind.SERVER)
    attributes = dict(span.attributes)
    assert attributes.pop("shadowcat.upstream.duration") >= 0
    assert attributes.pop("mcp.session.id") != traced.kit.client.session_id
    assert attributes == {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "jsonrpc.request.id": "7",
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "tcp",
        "client.address": "127.0.0.1",
        "http.response.status_code": 200,
        "shadowcat.outcome": "ok",
        "shadowcat.upstream.name": "default",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource.attributes["service.name"] == "shadowcat"
    assert span.end_time >= span.start_time


async def test_prompt_and_anything_else_have_their_names(traced):
    span, _ = await traced.call(request(1, "prompts/get", name="greet"))
    assert (span.name, span.attributes["gen_ai.prompt.name"]) == ("prompts/get greet", "greet")
    span, _ = await traced.call(request(1, "resources/read", uri="file:///secret"))
    assert (span.name, "secret" in str(span.attributes)) == ("resources/read", False)
    span, _ = await traced.call(request(1, "x/hostile"))
    assert (span.name, span.attributes["mcp.method.name"]) == ("other", "x/hostile")


async def test_trace_of_the_header_goes_on_upstream(traced):
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    span, call = await traced.call(request(1, "ping"), headers)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert call.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert (call.headers["tracestate"], call.headers["baggage"]) == ("a=1", "k=v")


async def test_trace_of_the_message_comes_before_that_of_the_header(traced):
    """The header's is linked, and the message passes to the byte."""
    message = json.dumps(request(1, "ping", _meta={"traceparent": PARENT})).encode()
    span, call = await traced.call(message, {"traceparent": OTHER_PARENT})
    assert f"{span.context.trace_id:032x}" == TRACE
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [OTHER_TRACE]
    assert call.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert call.request.body == message


@pytest.mark.parametrize("value", [None, "nonsense"])
async def test_without_a_trace_one_is_begun(traced, value):
    headers = {"tracestate": "a=1"} if value is None else {"traceparent": value, "tracestate": "a=1"}
    span, call = await traced.call(request(1, "ping"), headers)
    assert span.parent is None
    assert (
        call.headers["traceparent"]
        == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
    )
    assert "tracestate" not in call.headers


async def test_call_that_failed_is_an_error(traced):
    span, _ = await traced.call(request(1, "ping"), answer=UpstreamTimeout("too long"))
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes["error.type"], span.attributes["shadowcat.outcome"]) == ("UpstreamTimeout", "timeout")
    assert span.attributes["http.response.status_code"] == 504


async def test_call_that_the_server_answered_with_an_error_is_one(traced):
    answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such tool"}}
    span, _ = await traced.call(request(1, "tools/call", name="x"), answer=answer)
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "error")


async def test_what_is_not_sampled_is_not_sent_and_the_upstream_is_told(nursery):
    exporter = InMemorySpanExporter()
    async with open_proxy_kit() as kit, open_tracing(TracingConfig(sample_ratio=0), exporter) as tracer:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        with kit.app.observers.observing(tracer):
            await (await kit.client.initialize()).read()
            call = await exchange(kit, request(1, "ping"))
    assert int(call.headers["traceparent"][-2:], 16) & 1 == 0
    assert exporter.get_finished_spans() == ()


async def test_without_tracing_the_trace_passes_as_it_is(nursery):
    """W3C Trace Context: an intermediary that does not take part passes it on."""
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    async with open_proxy_kit() as kit:
        kit.nursery.start_soon(kit.upstream.answer_initialize)
        await (await kit.client.initialize()).read()
        call = await exchange(kit, request(1, "ping"), headers)
    assert headers.items() <= call.headers.items()


@pytest.mark.slow
def test_nothing_of_it_is_imported_where_nobody_traces():
    script = "import sys, shadowcat, shadowcat.proxy; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


@pytest.mark.slow
async def test_collector_that_is_away_does_not_keep_the_proxy_from_ending(caplog):
    """Spans are lost then, in a few seconds."""
    with trio.fail_after(20):
        async with open_tracing(TracingConfig(endpoint="http://127.0.0.1:1/v1/traces")) as tracer:
            assert tracer is not None
