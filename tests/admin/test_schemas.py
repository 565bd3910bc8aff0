"""Schemas are strict: an answer has what it says, and nothing else."""

import jsonschema
import pytest

from shadowcat.admin.schemas import COUNT, or_null, record, snapshot


@pytest.mark.parametrize("value", [{}, {"a": -1}, {"a": 1, "b": 2}, {"a": "1"}])
def test_a_record_has_exactly_its_properties(value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, record(a=COUNT))


def test_a_snapshot_may_have_more():
    jsonschema.validate({"a": 1, "b": 2}, snapshot(a=COUNT))
    jsonschema.validate({"a": None}, record(a=or_null(COUNT)))
