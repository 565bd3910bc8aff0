"""What `compare` calls a loss, on made-up results."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.compare import Check, Leg, losses, read_results


def leg(*statuses: str) -> Leg:
    """What a run found that made one check, with these statuses."""
    return Leg(Counter(Check("ping", "ping-ok", status) for status in statuses), seconds=1)


LOST = [
    pytest.param(["SUCCESS"], ["FAILURE"], id="failed"),
    pytest.param(["SUCCESS"], ["WARNING"], id="only a warning"),
    pytest.param(["SUCCESS"], ["INFO"], id="no longer looked at"),
    pytest.param(["SUCCESS"], [], id="not made"),
    pytest.param(["SUCCESS", "SUCCESS"], ["SUCCESS"], id="made once instead of twice"),
    pytest.param(["SUCCESS"], ["SUCCESS", "FAILURE"], id="failed as well"),
]
KEPT = [
    pytest.param(["SUCCESS"], ["SUCCESS"], id="succeeded"),
    pytest.param(["FAILURE"], ["FAILURE"], id="failed direct too"),
    pytest.param(["FAILURE"], ["SUCCESS"], id="gained"),
    pytest.param(["INFO"], [], id="a remark"),
]


@pytest.mark.parametrize(("direct", "proxied"), LOST)
def test_a_check_that_fares_worse_through_the_proxy_is_a_loss(direct, proxied):
    assert losses(leg(*direct), leg(*proxied)) == [("ping", "ping-ok")]


@pytest.mark.parametrize(("direct", "proxied"), KEPT)
def test_a_check_that_fares_no_worse_is_none(direct, proxied):
    assert losses(leg(*direct), leg(*proxied)) == []


def test_results_are_read_from_where_the_suite_leaves_them(tmp_path: Path):
    directory = tmp_path / "server-tools-call-error-2026-11-21T09-28-20-439Z"
    directory.mkdir()
    (directory / "checks.json").write_text(json.dumps([{"id": "tools-call-error", "status": "SUCCESS"}]))
    assert list(read_results(tmp_path)) == [Check("tools-call-error", "tools-call-error", "SUCCESS")]
