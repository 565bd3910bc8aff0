"""What the answers of the admin API look like, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TEXT: Final = {"type": "string"}
FLAG: Final = {"type": "boolean"}
COUNT: Final = {"type": "integer", "minimum": 0}
SECONDS: Final = {"type": "number", "minimum": 0}
TIME: Final = {"type": "string", "format": "date-time"}
KEY: Final = {
    "type": "string",
    "pattern": "^[0-9a-f]{16}$",
    "description": "Stands for a session's id, which is secret",
}


def record(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has exactly *properties*."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def snapshot(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has *properties*, and may have more in a later version."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def list_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an array."""
    return {"type": "array", "items": schema}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of what may be absent."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> dict[str, Any]:
    """Return what stands for a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def said(schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """Return *schema* with a description."""
    return {**schema, "description": description}


_SESSION: Final = {
    "key": KEY,
    "server": said(TEXT, "The name of the server that it belongs to"),
    "protocol_version": TEXT,
    "client": said(or_null(ref("Software")), "What the client says that it is"),
    "created_at": or_null(TIME),
    "last_activity": or_null(said(TIME, "May lag behind for sessions of other processes")),
    "idle_seconds": SECONDS,
    "expires_at": or_null(said(TIME, "Null if never")),
    "is_here": said(FLAG, "False: this process has had nothing to do with it of late; it may be in use at another"),
    "streams": said(COUNT, "Of this process"),
}
_NEXT: Final = said(or_null(TEXT), "The cursor of the next page; null if this is the last")

SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Health": record(status={"const": "ok"}),
    "Software": record(name=or_null(TEXT), version=or_null(TEXT)),
    "Session": record(**_SESSION),
    "SessionPage": record(sessions=list_of(ref("Session")), next=_NEXT),
    "SessionInFull": record(
        **_SESSION,
        server_info=or_null(ref("Software")),
        client_capabilities=list_of(TEXT),
        server_capabilities=list_of(TEXT),
        principal=said(or_null(TEXT), "Whom the client speaks for"),
        has_upstream_session=FLAG,
        response_mode=or_null(TEXT),
        transport=TEXT,
        revision=COUNT,
        requests_under_way=said(or_null(COUNT), "Here; null if the session is not here"),
        open_streams=list_of(ref("Stream")),
    ),
    "Ended": record(key=KEY, is_ended={"const": True}),
    "Stream": record(
        key={"type": "string", "pattern": "^[0-9a-f]{16}$"},
        session=KEY,
        kind={"enum": ["answer", "listening"]},
        position=said(COUNT, "Of the newest event there has been"),
        events_kept=said(COUNT, "Events that a client can have again"),
        bytes_kept=COUNT,
        is_attended=said(FLAG, "Whether a client is there"),
        is_parked=said(FLAG, "Whether the upstream is no longer read, because no client was there for long"),
        is_ended=FLAG,
    ),
    "StreamPage": record(streams=list_of(ref("Stream")), next=_NEXT),
    "Endpoint": record(
        name=TEXT,
        health={"enum": ["healthy", "unhealthy"]},
        circuit={"enum": ["closed", "open", "half_open"]},
        circuit_opened=said(COUNT, "How often the circuit has opened"),
        retry_after_seconds=said(SECONDS, "Until an open circuit lets probes through"),
        is_draining=said(FLAG, "Whether it gets no new sessions"),
        weight={"type": "number"},
        in_flight=COUNT,
        requests=COUNT,
        failures=COUNT,
    ),
    "Upstreams": record(
        servers=said(
            list_of(record(server=TEXT, endpoints=list_of(ref("Endpoint")))),
            "Those that can be steered",
        )
    ),
    "Store": record(
        kind={"enum": ["memory", "sqlite", "redis", "other"]},
        sessions=COUNT,
        keeps_streams=said(FLAG, "Whether streams can be resumed at another process"),
        persistence=said(
            or_null(snapshot(pending=COUNT, written=COUNT, coalesced=COUNT, failures=COUNT, lost=COUNT)),
            "What is written behind; null until something was to be",
        ),
        failover=said(
            or_null(snapshot(is_degraded=FLAG, failures=COUNT, fallbacks=COUNT, pending=COUNT, conflicts=COUNT)),
            "Null if there is nothing to fall back on",
        ),
    ),
    "Config": record(config=said(or_null({"type": "object"}), "Secrets are replaced by ***")),
    "Statistics": snapshot(under_way=COUNT, recoveries=COUNT, streams={"type": "object"}),
    "LogLevel": record(level=TEXT),
    "NewLogLevel": record(level={"enum": ["debug", "info", "warning", "error"]}),
    "Document": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
    "Problem": record(
        type={"const": "about:blank"}, title=TEXT, status=COUNT, detail=said(TEXT, "What to do about it")
    ),
}
"""By name.  A description says what the name does not."""
