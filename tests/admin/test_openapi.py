"""The document says what is served."""

import re

import jsonschema
import pytest

from shadowcat.admin.openapi import errors_of
from shadowcat.admin.routes import ROUTES
from shadowcat.admin.schemas import SCHEMAS

from .administering import DOCUMENT, open_admin_kit


async def test_the_document_is_served():
    async with open_admin_kit() as kit:
        assert DOCUMENT == (await kit.admin.get("/v1/openapi.json")).body


def test_every_route_is_in_the_document():
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert {(route.method, route.path) for route in ROUTES} == documented
    operations = [o for methods in DOCUMENT["paths"].values() for o in methods.values()]
    assert len(operations) == len({operation["operationId"] for operation in operations})
    assert all(re.fullmatch(r"\w+", operation["operationId"]) for operation in operations)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_says_all_of_its_route(route):
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert route.summary == operation["summary"]
    assert {*map(str, errors_of(route)), "200"} == set(operation["responses"])
    assert [*re.findall(r"{(\w+)}", route.path), *(each.name for each in route.parameters)] == [
        each["name"] for each in operation["parameters"]
    ]
    assert (route.body is not None) == ("requestBody" in operation)
    assert route.needs_token == ("security" not in operation)


def test_every_schema_is_one_and_is_used():
    text = str(DOCUMENT["paths"]) + str(SCHEMAS)
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert f"#/components/schemas/{name}'" in text, name
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= set(SCHEMAS)
