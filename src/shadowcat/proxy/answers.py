"""What a client is told when something goes wrong: the only such table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import attrs

from .. import errors
from ..protocol import HEADER_MISMATCH, INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR


@attrs.frozen
class Answer:
    """An HTTP status, a JSON-RPC error code, and what goes with them."""

    status: int
    code: int
    headers: tuple[tuple[bytes, bytes], ...] = ()


_RETRY_LATER = ((b"retry-after", b"5"),)
_CLOSE = ((b"connection", b"close"),)
_UPGRADE = ((b"upgrade", b"websocket"), (b"connection", b"upgrade"))

ANSWERS: Mapping[type[Exception], Answer] = {
    Exception: Answer(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR),
    errors.ParseError: Answer(HTTPStatus.BAD_REQUEST, PARSE_ERROR),
    errors.ProtocolError: Answer(HTTPStatus.BAD_REQUEST, INVALID_REQUEST),
    errors.HeaderMismatch: Answer(HTTPStatus.BAD_REQUEST, HEADER_MISMATCH),
    errors.RemoteProtocolError: Answer(HTTPStatus.BAD_GATEWAY, INTERNAL_ERROR),
    errors.StreamBroken: Answer(HTTPStatus.BAD_GATEWAY, INTERNAL_ERROR),
    errors.RequestError: Answer(HTTPStatus.BAD_REQUEST, INVALID_REQUEST),
    errors.PathNotFound: Answer(HTTPStatus.NOT_FOUND, INVALID_REQUEST),
    errors.MethodNotAllowed: Answer(HTTPStatus.METHOD_NOT_ALLOWED, INVALID_REQUEST),
    errors.NotAcceptable: Answer(HTTPStatus.NOT_ACCEPTABLE, INVALID_REQUEST),
    errors.UnsupportedMediaType: Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST),
    errors.UpgradeRequired: Answer(HTTPStatus.UPGRADE_REQUIRED, INVALID_REQUEST, _UPGRADE),
    errors.ForbiddenOrigin: Answer(HTTPStatus.FORBIDDEN, INVALID_REQUEST),
    errors.MisdirectedHost: Answer(HTTPStatus.MISDIRECTED_REQUEST, INVALID_REQUEST),
    errors.PayloadTooLarge: Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID_REQUEST, _CLOSE),
    errors.HeadersTooLarge: Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID_REQUEST, _CLOSE),
    errors.RequestTimeout: Answer(HTTPStatus.REQUEST_TIMEOUT, INVALID_REQUEST, _CLOSE),
    errors.TooManyRequests: Answer(HTTPStatus.TOO_MANY_REQUESTS, INTERNAL_ERROR, _RETRY_LATER),
    errors.SessionError: Answer(HTTPStatus.BAD_REQUEST, INVALID_REQUEST),
    errors.SessionNotFound: Answer(HTTPStatus.NOT_FOUND, INVALID_REQUEST),
    errors.EventsLost: Answer(HTTPStatus.GONE, INVALID_REQUEST),
    errors.StreamTaken: Answer(HTTPStatus.CONFLICT, INVALID_REQUEST),
    errors.SessionLimitReached: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, _RETRY_LATER),
    errors.SessionConflict: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, _RETRY_LATER),
    errors.SessionBusy: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, _RETRY_LATER),
    errors.StoreError: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, _RETRY_LATER),
    errors.Draining: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, (*_RETRY_LATER, *_CLOSE)),
    errors.UpstreamError: Answer(HTTPStatus.BAD_GATEWAY, INTERNAL_ERROR),
    errors.UpstreamBusy: Answer(HTTPStatus.SERVICE_UNAVAILABLE, INTERNAL_ERROR, _RETRY_LATER),
    errors.UpstreamAbandoned: Answer(HTTPStatus.GATEWAY_TIMEOUT, INTERNAL_ERROR, _CLOSE),
    errors.UpstreamTimeout: Answer(HTTPStatus.GATEWAY_TIMEOUT, INTERNAL_ERROR),
}

UNEXPECTED = "the proxy failed to handle this request; its log says why"
"""What a client is told of a bug."""


def answer_to(error: Exception) -> Answer:
    """Return the answer for the nearest ancestor of *error* that has one.

    An error that knows when the request is worth to be sent again says so.
    """
    answer = next(ANSWERS[cls] for cls in type(error).__mro__ if cls in ANSWERS)
    seconds: float | None = getattr(error, "retry_after", None)
    if seconds is None:
        return answer
    others = tuple(field for field in answer.headers if field[0] != b"retry-after")
    return attrs.evolve(answer, headers=(*others, (b"retry-after", b"%d" % max(1, math.ceil(seconds)))))
