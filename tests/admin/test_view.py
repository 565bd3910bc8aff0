"""Values as JSON."""

import json
import math

import attrs
import pytest

from shadowcat.admin.view import plain, time_of
from shadowcat.session import StreamKind


@attrs.frozen
class Snapshot:
    count: int
    kind: StreamKind
    inner: object = None


def test_a_snapshot_of_any_fields_is_json():
    value = Snapshot(1, StreamKind.ANSWER, {"a": (Snapshot(2, StreamKind.LISTENING), math.inf, None, b"x")})
    shown = {"count": 2, "kind": "listening", "inner": None}
    assert {"count": 1, "kind": "answer", "inner": {"a": [shown, None, None, "b'x'"]}} == plain(value)
    json.dumps(plain(value))


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 1e300])
def test_a_time_that_never_comes_is_null(seconds):
    assert time_of(seconds) is None


def test_a_time_has_its_zone():
    assert "2023-11-14T22:13:20.500+00:00" == time_of(1700000000.5)
