"""The JSON Schema says what the reader takes, and refuses what it refuses."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shadowcat.config import SETTINGS
from shadowcat.config.schema import build_schema
from tests.config.test_file import FULL

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "shadowcat.toml"
SCHEMA: Any = build_schema(SETTINGS)


def is_valid(text):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(tomllib.loads(text))


def test_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA


@pytest.mark.parametrize("text", [EXAMPLE.read_text(encoding="utf-8"), FULL.decode(), ""])
def test_examples_are_valid(text):
    assert is_valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "[listener]\nbnd = 'x'",
        "[other]",
        "[listener]\nworkers = '1'",
        "[limits]\nmax_sessions = 0",
        "[upstream]\nconnect_timeout = 0",
        "[sessions]\nstore = 'disk'",
        "[upstream.headers]\nA = 1",
        "[upstream.headers]\nA = { env = 'B', file = 'C' }",
        "[upstream]\ncommand = 'npx'",
    ],
)
def test_what_the_reader_refuses_is_not_valid(text):
    assert not is_valid(text)


def test_every_key_is_described_with_its_default():
    for setting in SETTINGS:
        if setting.in_file:
            section = SCHEMA
            for part in setting.key.replace("[]", ".[]").split("."):
                step = {"*": "additionalProperties", "[]": "items"}.get(part)
                section = section[step] if step else section["properties"][part]
            assert section["description"] == setting.help
            default = None if setting.default == math.inf else setting.default
            assert section.get("default") == default
