"""What a session has told its upstream once and for all: the log level, and subscriptions.

An upstream session that takes the place of a lost one has to be told again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import attrs

from ..protocol import RESOURCES_SUBSCRIBE, RESOURCES_UNSUBSCRIBE, SET_LEVEL, Request, read_value
from ..session import Session

LOG_LEVEL = "shadowcat.log_level"
SUBSCRIPTIONS = "shadowcat.subscriptions"
"""The keys in a session's metadata."""

_METHODS = frozenset({SET_LEVEL, RESOURCES_SUBSCRIBE, RESOURCES_UNSUBSCRIBE})

_MAX_LENGTH = 64 * 1024
"""Characters that a session's subscriptions may take; what is beyond is not told again."""


def is_standing(request: Request) -> bool:
    """Whether *request* changes what a new upstream session would have to be told."""
    return request.method in _METHODS


def with_request(session: Session, request: Request) -> Session:
    """Return *session* with a standing request that was granted."""
    params = read_value(request.params)
    if not isinstance(params, dict):
        return session
    metadata = dict(session.metadata)
    if request.method == SET_LEVEL:
        level = params.get("level")
        if not isinstance(level, str) or len(level) > 64:
            return session
        metadata[LOG_LEVEL] = level
    else:
        uri = params.get("uri")
        if not isinstance(uri, str):
            return session
        uris = dict.fromkeys(_subscriptions_of(session))
        if request.method == RESOURCES_SUBSCRIBE:
            uris[uri] = None
        else:
            uris.pop(uri, None)
        text = json.dumps(list(uris))
        if len(text) > _MAX_LENGTH:
            return session
        metadata[SUBSCRIPTIONS] = text
    return attrs.evolve(session, metadata=metadata)


def standing_requests(session: Session) -> Sequence[tuple[str, Mapping[str, str]]]:
    """Return the methods and params of what a new upstream session has to be told."""
    requests: list[tuple[str, Mapping[str, str]]] = []
    if level := session.metadata.get(LOG_LEVEL):
        requests.append((SET_LEVEL, {"level": level}))
    requests.extend((RESOURCES_SUBSCRIBE, {"uri": uri}) for uri in _subscriptions_of(session))
    return requests


def _subscriptions_of(session: Session) -> Sequence[str]:
    found = read_value(session.metadata.get(SUBSCRIPTIONS, "").encode())
    return [uri for uri in found if isinstance(uri, str)] if isinstance(found, list) else []
