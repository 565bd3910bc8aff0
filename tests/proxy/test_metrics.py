"""Serving metrics on a listener of their own."""

import re
import socket
import subprocess
import sys

import httpx
import pytest
import trio

from shadowcat.errors import ConfigError
from shadowcat.proxy import metrics, open_metrics
from shadowcat.proxy.metrics import MetricsApp, address_of
from shadowcat.record import CallRecord
from shadowcat.telemetry import CallCounts, LoopLag, MetricsConfig
from shadowcat.testing import ProxyClient, open_proxy_kit, request, result
from tests.proxy.conversation import open_session, start_post
from tests.proxy.scraping import values_of
from tests.waiting import wait_until

ANY_PORT = MetricsConfig(bind="127.0.0.1:0")


async def fetch(url, **headers):
    async with httpx.AsyncClient() as client:
        return await client.get(url, headers=headers)


def url_in(caplog):
    return re.findall(r"http://\S+/metrics", caplog.text)[-1]


@pytest.fixture
def _talkative(caplog):
    caplog.set_level("INFO", logger="shadowcat")


@pytest.mark.slow
@pytest.mark.usefixtures("_talkative")
async def test_metrics_are_served_while_the_block_lasts(caplog):
    """In the text that Prometheus reads, ours and those of the process."""
    async with open_proxy_kit() as kit:
        async with open_metrics(kit.app, ANY_PORT):
            await open_session(kit)
            url = url_in(caplog)
            with trio.fail_after(5):
                answer = await fetch(url)
        with pytest.raises(httpx.ConnectError):
            await fetch(url)
        assert kit.app.observers.present == ()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = values_of(answer.text)
    assert found["shadowcat_calls_total{method=initialize,outcome=ok,upstream=default}"] == 1
    assert found["process_open_fds"] > 0
    assert found["process_resident_memory_bytes"] > 0
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_start_time_seconds"] > 0
    assert [name for name in found if name.startswith("shadowcat_build_info{") and "version=" in name]


@pytest.fixture
async def client(nursery):
    async with open_proxy_kit() as kit:
        served = MetricsApp(kit.app, CallCounts(), LoopLag(), "127.0.0.1")
        yield ProxyClient(served, kit.nursery)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/metrics", {}, 200),
        ("HEAD", "/metrics", {}, 200),
        ("POST", "/metrics", {}, 405),
        ("GET", "/", {}, 404),
        ("GET", "/mcp", {}, 404),
        ("GET", "/metrics", {"host": "evil.example"}, 421),
        ("GET", "/metrics", {"origin": "https://evil.example"}, 403),
    ],
)
async def test_only_metrics_are_served_and_only_to_this_machine(client, method, path, headers, status):
    """A page cannot read them by DNS rebinding."""
    response = await client.send(method, headers=headers, path=path)
    assert response.status == status
    await response.read()


async def test_no_websocket_is_opened(client):
    """It is refused like any other request, and is no bug that the log tells of."""
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(event):
        sent.append(event)

    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "websocket", "path": "/metrics", "headers": headers, "extensions": {"websocket.http.response": {}}}
    await client._app(scope, receive, send)
    assert sent[0]["status"] == 404


async def test_openmetrics_is_served_to_who_wants_it(client):
    response = await client.send(
        "GET", headers={"accept": "application/openmetrics-text; version=1.0.0"}, path="/metrics"
    )
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert (await response.read()).endswith(b"# EOF\n")


async def test_where_others_may_connect_the_host_may_be_any(nursery):
    async with open_proxy_kit() as kit:
        client = ProxyClient(MetricsApp(kit.app, CallCounts(), LoopLag(), "0.0.0.0"), kit.nursery)
        response = await client.send("GET", headers={"host": "node7.example"}, path="/metrics")
        assert response.status == 200
        await response.read()


@pytest.mark.parametrize(
    ("bind", "worker", "address"),
    [
        ("127.0.0.1:9464", 0, "127.0.0.1:9464"),
        ("127.0.0.1:9464", 2, "127.0.0.1:9466"),
        ("[::1]:9464", 1, "[::1]:9465"),
        ("127.0.0.1:0", 3, "127.0.0.1:0"),
    ],
)
def test_each_worker_has_a_port_of_its_own(bind, worker, address):
    assert address_of(MetricsConfig(bind=bind, worker=worker)) == address


async def test_port_that_is_taken_is_a_config_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = MetricsConfig(bind=f"127.0.0.1:{taken.getsockname()[1]}")
        async with open_proxy_kit() as kit:
            with pytest.raises(ConfigError, match="in use: .* with --metrics-bind$"):
                async with open_metrics(kit.app, config):
                    pass


async def test_address_that_is_none_is_a_config_error():
    async with open_proxy_kit() as kit:
        for config in (MetricsConfig(bind="nonsense"), MetricsConfig(bind="127.0.0.1:65535", worker=1)):
            with pytest.raises(ConfigError):
                async with open_metrics(kit.app, config):
                    pass


@pytest.mark.slow
@pytest.mark.usefixtures("_talkative")
async def test_worker_waits_for_the_port_of_the_one_it_replaces(caplog, monkeypatch):
    monkeypatch.setattr(metrics, "_BIND_INTERVAL", 0.01)
    old = socket.create_server(("127.0.0.1", 0))
    port = old.getsockname()[1]
    async with open_proxy_kit() as kit:
        async with open_metrics(kit.app, MetricsConfig(bind=f"127.0.0.1:{port - 1}", worker=1)):
            await trio.sleep(0.05)
            old.close()
            await wait_until(lambda: "metrics are served at" in caplog.text)
            with trio.fail_after(5):
                assert (await fetch(f"http://127.0.0.1:{port}/metrics")).status_code == 200


async def test_port_that_stays_taken_is_complained_about(caplog, autojump_clock):
    """Once: it may be for ever."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = MetricsConfig(bind=f"127.0.0.1:{taken.getsockname()[1] - 1}", worker=1)
        async with open_proxy_kit() as kit, open_metrics(kit.app, config):
            await trio.sleep(300)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"{address_of(config)} is still taken, so there are no metrics of this worker; stop the other program, "
        "or choose other ports with --metrics-bind"
    ]


async def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with open_proxy_kit() as kit:
        with pytest.raises(ConfigError, match=r"pip install 'shadowcat\[metrics\]'"):
            async with open_metrics(kit.app, ANY_PORT):
                pass


@pytest.mark.slow
def test_nothing_of_it_is_imported_where_nobody_asked():
    script = "import sys, shadowcat, shadowcat.proxy; print([m for m in sys.modules if m.startswith('prometheus')])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


async def test_call_that_ends_after_the_metrics_were_closed_does_no_harm(autojump_clock):
    async with open_proxy_kit() as kit:
        await open_session(kit)
        with kit.app.observers.observing(CallCounts()):
            pending, response = await start_post(kit, request(1, "ping"))
        pending.answer(result(1))
        assert (await (await response()).read()) != b""


def test_record_is_small():
    """A few hundred bytes for each exchange under way."""
    assert sys.getsizeof(CallRecord.__new__(CallRecord)) < 400
