"""Every route of the admin API: the only such table."""

from __future__ import annotations

from typing import Final

from . import process, sessions, upstreams
from .openapi import show_document
from .route import Parameter, Route

_CURSOR: Final = Parameter(name="cursor", description="next of the page before; none for the first page")
_LIMIT: Final = Parameter(
    name="limit", description="how long a page is at most", kind=int, minimum=1, maximum=1000, default=100
)
_SERVER: Final = Parameter(name="server", description="only sessions of this server")
_IDLE: Final = Parameter(
    name="idle", description="only sessions that were not used for more than these seconds", kind=float, minimum=0
)
_SESSION: Final = Parameter(name="session", description="only streams of the session with this key")

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/health",
        summary="Tell whether the process answers",
        handle=process.show_health,
        answer="Health",
        needs_token=False,
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        summary="This document, as OpenAPI 3.1",
        handle=lambda desk, call: show_document(desk, ROUTES),
        answer="Document",
    ),
    Route(
        method="GET",
        path="/v1/sessions",
        summary="List sessions, in no particular order; with filters a page may be short, or empty",
        handle=sessions.list_sessions,
        answer="SessionPage",
        parameters=(_LIMIT, _CURSOR, _SERVER, _IDLE),
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/sessions/{key}",
        summary="Show one session, and its streams in this process",
        handle=sessions.show_session,
        answer="SessionInFull",
        errors=(404, 503),
    ),
    Route(
        method="DELETE",
        path="/v1/sessions/{key}",
        summary="End one session, here and upstream; its streams end",
        handle=sessions.end_session,
        answer="Ended",
        errors=(404, 503),
    ),
    Route(
        method="GET",
        path="/v1/streams",
        summary="List the event streams of this process, as they were when the first page was asked for",
        handle=sessions.list_streams,
        answer="StreamPage",
        parameters=(_LIMIT, _CURSOR, _SESSION),
    ),
    Route(
        method="GET",
        path="/v1/upstreams",
        summary="List the servers behind the proxy, and their endpoints",
        handle=upstreams.list_upstreams,
        answer="Upstreams",
    ),
    Route(
        method="POST",
        path="/v1/upstreams/{server}/{endpoint}/drain",
        summary="Give an endpoint no new sessions; those that it has go on",
        handle=upstreams.drain,
        answer="Endpoint",
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/upstreams/{server}/{endpoint}/enable",
        summary="Give an endpoint new sessions again",
        handle=upstreams.enable,
        answer="Endpoint",
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/upstreams/{server}/{endpoint}/reset-circuit",
        summary="Close the circuit of an endpoint, whatever it has seen",
        handle=upstreams.reset_circuit,
        answer="Endpoint",
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/store",
        summary="Show how sessions are kept, and what has yet to be written",
        handle=process.show_store,
        answer="Store",
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/v1/config",
        summary="Show the settings in effect; secrets are masked",
        handle=process.show_config,
        answer="Config",
    ),
    Route(
        method="GET",
        path="/v1/statistics",
        summary="Show what the proxy has done so far",
        handle=process.show_statistics,
        answer="Statistics",
    ),
    Route(
        method="GET",
        path="/v1/log-level",
        summary="Show the least level that is logged",
        handle=process.show_log_level,
        answer="LogLevel",
    ),
    Route(
        method="PUT",
        path="/v1/log-level",
        summary="Log from another level on, until the process ends",
        handle=process.set_log_level,
        answer="LogLevel",
        body="NewLogLevel",
    ),
)
