"""The admin API as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from ..auth import OriginConfig, OriginPolicy
from ..errors import ForbiddenOrigin, MethodNotAllowed, MisdirectedHost, PathNotFound, PayloadTooLarge
from ..protocol import collect_headers
from ..proxy import Answer, ReverseProxyApp, serve_safely
from ..transport import Exchange, Receive, Scope, Send, Upgrade
from ..transport.downstream import parse_bind
from .config import AdminConfig
from .desk import Desk
from .gate import TokenGate
from .route import Call, Route, read_object
from .routes import ROUTES

if TYPE_CHECKING:
    from ..telemetry import AuditLog

_MAX_BODY = 4096
_BODY_TIMEOUT = 10.0
_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))

_encode = msgspec.json.Encoder().encode


class AdminApp:
    """Answers for the admin API of *app*.  What one request does wrong stays its own."""

    def __init__(self, app: ReverseProxyApp, config: AdminConfig) -> None:
        self.desk = Desk(app)
        self._gate = TokenGate(config.token, config.failures_per_second)
        host, _ = parse_bind(config.bind)
        self._origins = OriginPolicy(OriginConfig(allowed_hosts=config.allowed_hosts), host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = (Upgrade if scope["type"] == "websocket" else Exchange)(scope, receive, send)
        await serve_safely(exchange, lambda: self._serve(exchange), as_problem)

    async def _serve(self, exchange: Exchange) -> None:
        exchange.headers = collect_headers(exchange.raw_headers)
        self._check_origin(exchange)
        routes = [(route, found) for route in ROUTES if (found := route.match(exchange.path)) is not None]
        if not routes or any(route.needs_token for route, _ in routes):
            await self._gate.check(exchange.headers.get(b"authorization"))
        if not routes or isinstance(exchange, Upgrade):
            raise PathNotFound("nothing is here; GET /v1/openapi.json says what there is")
        for route, path in routes:
            if route.method == exchange.method:
                call = Call(path=path, query=route.read_query(exchange.query), body=await _read(exchange, route))
                answer = await route.handle(self.desk, call)
                if route.method != "GET" and self.desk.app.audit is not None:
                    await _write_down(self.desk.app.audit, exchange)
                await exchange.respond(HTTPStatus.OK, _JSON, _encode(answer))
                return
        raise _not_allowed([route for route, _ in routes])

    def _check_origin(self, exchange: Exchange) -> None:
        """Keep out web pages, also those that got in by a name of their own for this address."""
        try:
            self._origins.check_host(exchange.headers.get(b"host"))
            self._origins.check_origin(exchange.headers.get(b"origin"))
        except MisdirectedHost:
            raise MisdirectedHost(
                "this Host is not allowed; reach the admin API by a loopback name or the address that it listens on"
            ) from None
        except ForbiddenOrigin:
            raise ForbiddenOrigin("web pages may not use the admin API; use another client") from None


async def _write_down(audit: AuditLog, exchange: Exchange) -> None:
    from ..telemetry import AuditEvent

    await audit.note(AuditEvent.ADMIN_ACTION, action=f"{exchange.method} {exchange.path}")


async def _read(exchange: Exchange, route: Route) -> dict[str, object]:
    try:
        body = await exchange.read_body(_MAX_BODY, _BODY_TIMEOUT)
    except PayloadTooLarge:
        raise PayloadTooLarge(f"the body is larger than {_MAX_BODY} bytes; send less") from None
    return {} if route.body is None else dict(read_object(body))


def _not_allowed(routes: Sequence[Route]) -> MethodNotAllowed:
    allow = ", ".join(sorted(route.method for route in routes))
    return MethodNotAllowed(f"this path does not have the method; use {allow}", allow)


def as_problem(answer: Answer, text: str, _error: Exception, _request_id: bytes | None) -> tuple[bytes, bytes]:
    """Return an error as RFC 9457 has it."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(answer.status).phrase,
        "status": int(answer.status),
        "detail": text,
    }
    return b"application/problem+json", _encode(problem)
