"""A JSON Schema of the configuration file."""

from __future__ import annotations

from collections.abc import Iterable

from .setting import Setting
from .shape import Shape, shape_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def build_schema(settings: Iterable[Setting]) -> dict[str, object]:
    """Return what a file with *settings* may be, as JSON Schema 2020-12 writes it.

    What depends on several settings, the schema does not say.
    """
    return {"$schema": DIALECT, "title": "Shadowcat", **_describe(shape_of(settings))}


def _describe(shape: Shape) -> dict[str, object]:
    if shape.setting is not None:
        return _describe_setting(shape.setting)
    if shape.each is not None:
        return {"type": "array", "items": _describe(shape.each)}
    table: dict[str, object] = {"type": "object"}
    if shape.named:
        table["properties"] = {name: _describe(inner) for name, inner in shape.named.items()}
    if shape.anything is not None:
        table["propertyNames"] = {"pattern": "^[A-Za-z0-9_-]{1,64}$"}
    table["additionalProperties"] = False if shape.anything is None else _describe(shape.anything)
    return table


def _describe_setting(setting: Setting) -> dict[str, object]:
    described = {"description": setting.help, **setting.kind.schema, **setting.bounds}
    default = setting.default
    # JSON has no infinity.
    if default is not None and default != float("inf"):
        described["default"] = default
    return described
