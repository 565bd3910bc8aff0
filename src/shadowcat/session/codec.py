"""Sessions as text, for stores outside this process.

One JSON object.  ``v`` is the schema: readers accept any, take the fields they
know and keep the others, so that proxies of two versions can share a store
while one is being replaced by the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec

from ..errors import StoreCorrupt
from ..protocol import ResponseMode
from .model import Session, SessionId, SessionState, TransportType, UpstreamSessionId

SCHEMA: Final = 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _value(member: Any) -> Any:
    return None if member is None else member.value


_FIELDS: Final[Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "id": (str, SessionId),
    "upstream_session_id": (lambda value: value, _optional(UpstreamSessionId)),
    "transport_type": (_value, TransportType),
    "response_mode": (_value, _optional(ResponseMode)),
    "protocol_version": (str, str),
    "initialize_params": (dict, dict),
    "initialize_result": (dict, dict),
    "state": (_value, SessionState),
    "upstream_name": (str, str),
    "principal": (lambda value: value, _optional(str)),
    "created_at": (float, float),
    "last_activity": (float, float),
    "expires_at": (lambda value: None if math.isinf(value) else value, lambda v: math.inf if v is None else float(v)),
    "metadata": (dict, dict),
    "revision": (int, int),
}
"""For each field, how it is written and read."""


def encode_session(session: Session) -> bytes:
    """Return *session* as JSON text."""
    known = {name: write(getattr(session, name)) for name, (write, _) in _FIELDS.items()}
    return _encode({"v": SCHEMA, **session.unknown, **known})


def decode_session(text: bytes) -> Session:
    """Return the session in *text*.

    Raises:
        StoreCorrupt: It is not one.
    """
    try:
        stored = _decode(text)
        stored.pop("v", None)
        known = {name: read(stored.pop(name)) for name, (_, read) in _FIELDS.items() if name in stored}
        return Session(**known, unknown=stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError, KeyError) as error:
        raise StoreCorrupt(
            f"a stored session cannot be read ({type(error).__name__}); remove it from the store"
        ) from error


def with_activity(session: Session, last_activity: float, expires_at: float) -> Session:
    """Return *session* with the times that the store keeps beside it."""
    if session.last_activity == last_activity and session.expires_at == expires_at:
        return session
    return attrs.evolve(session, last_activity=last_activity, expires_at=expires_at)
