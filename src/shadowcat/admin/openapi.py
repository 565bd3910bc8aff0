"""The admin API as an OpenAPI document, made from its routes."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import trio

from .desk import Desk
from .route import Parameter, Route
from .schemas import SCHEMAS, ref

_VERSION = "1"
_ALWAYS = (400, 403, 421)
_GUARDED = (401, 429)


async def show_document(_desk: Desk, routes: Sequence[Route]) -> object:
    """Return the document."""
    await trio.lowlevel.checkpoint()
    return build_document(routes)


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of *routes*."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shadowcat admin API",
            "version": _VERSION,
            "description": "Looks at one running proxy process, and steers it.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def errors_of(route: Route) -> Sequence[int]:
    """Return every status other than 200 that *route* is answered with."""
    return sorted({*_ALWAYS, *(_GUARDED if route.needs_token else ()), *route.errors})


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path}".translate({ord(c): "_" for c in "/{}-."}).rstrip("_"),
        "summary": route.summary,
        "parameters": [*_in_path(route), *map(_in_query, route.parameters)],
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": ref(route.answer)}}},
            **{str(status): _problem(status) for status in errors_of(route)},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(route.body)}}}
    if not route.needs_token:
        operation["security"] = []
    return operation


def _in_path(route: Route) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }
