"""What is written of metrics and logs is true: the reference, the dashboard, and the how-to."""

import json
import re
from typing import Any

import attrs
import httpx
import pytest
import trio

from shadowcat import AccessLogConfig, EndReason
from shadowcat.proxy.collector import ProxyCollector
from shadowcat.record import Outcome
from shadowcat.telemetry import AuditEvent, CallCounts, LoopLag
from shadowcat.testing import open_proxy_kit
from tests.test_docs import DOCS, fences

REFERENCE = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
LOGS = (DOCS / "reference" / "logs.md").read_text(encoding="utf-8")
MONITOR = DOCS / "how-to" / "monitor.md"
DASHBOARD = json.loads((DOCS / "grafana" / "shadowcat.json").read_text(encoding="utf-8"))

SUFFIXES = {"counter": "_total", "info": "_info"}
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@pytest.fixture
async def families():
    async with open_proxy_kit() as kit:
        yield list(ProxyCollector(kit.app, CallCounts(), LoopLag(), "0").collect())


def names_of(families):
    """Return what can be asked Prometheus for."""
    for family in families:
        if family.type in PARTS:
            yield from (family.name + part for part in PARTS[family.type])
        else:
            yield family.name + SUFFIXES.get(family.type, "")


async def test_reference_lists_the_metrics_that_there_are(families):
    """Name, type, labels and text, in their order."""
    rows = []
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family._labelnames)
        name = family.name + SUFFIXES.get(family.type, "")
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    assert rows == re.findall(r"^\| `shadowcat_\w+` \|.*$", REFERENCE, re.MULTILINE)


def test_reference_lists_each_outcome():
    part = REFERENCE[REFERENCE.index("## Outcomes") :].partition("## How")[0]
    assert [outcome.value for outcome in Outcome] == re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)


def test_reference_lists_each_audit_event_and_reason():
    part = LOGS[LOGS.index("## Audit log") :]
    assert [event.value for event in AuditEvent] == re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
    assert all(f"`{reason.value}`" in part for reason in EndReason)


async def test_dashboard_asks_for_metrics_that_there_are(families):
    """Also what is asked to be woken for."""
    known = {*names_of(families), "process_cpu_seconds_total", "process_resident_memory_bytes"}
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked += re.findall(r"^\| `(.*?)` \| ", MONITOR.read_text(encoding="utf-8"), re.MULTILINE)
    asked += [DASHBOARD["templating"]["list"][1]["query"]["query"]]
    found = {name for text in asked for name in re.findall(r"\b(?:shadowcat|process)_\w+", text)}
    assert len(found) > 25
    assert found <= known


async def test_dashboard_asks_for_outcomes_that_there_are():
    text = json.dumps(DASHBOARD) + MONITOR.read_text(encoding="utf-8")
    found = re.findall(r'outcome=~?\\?"([\w|\\]+?)\\?"', text)
    assert found
    assert {name for part in found for name in re.split(r"\\?\|", part)} <= {outcome.value for outcome in Outcome}


def test_panels_have_places_of_their_own():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})


@pytest.mark.slow
async def test_proxy_of_the_page_is_scraped_where_the_page_says(caplog):
    """The program serves what the configuration of Prometheus asks for."""
    caplog.set_level("INFO", logger="shadowcat")
    (program,), (config,) = fences(MONITOR, "python"), fences(MONITOR, "yaml")
    (target,) = re.findall(r'targets: \["(.*)"\]', config)
    (path,) = re.findall(r"metrics_path: (\S+)", config)
    assert f'MetricsConfig(bind="{target}")' in program
    sender, receiver = trio.open_memory_channel(1)
    names: dict[str, Any] = {"print": sender.send_nowait}
    source = re.sub(r"127\.0\.0\.1:(8080|9464)", "127.0.0.1:0", program).replace("trio.run(main)", "")
    exec(source, names)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names["main"])
            url = re.findall(r"http://\S+", await receiver.receive())[0]
            (metrics,) = re.findall(r"metrics are served at (\S+)", caplog.text)
            assert metrics.endswith(path)
            async with httpx.AsyncClient() as client:
                assert (await client.put(url)).status_code == 405
                text = (await client.get(metrics)).text
            nursery.cancel_scope.cancel()
    assert 'shadowcat_http_requests_total{method="other",status="405"} 1.0' in text


def test_access_log_has_the_settings_that_are_described():
    assert [field.name for field in attrs.fields(AccessLogConfig)] == ["path", "max_queued", "flush_timeout"]
