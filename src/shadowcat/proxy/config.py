"""How requests to the MCP endpoint are treated."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from ..errors import ConfigError
from ..protocol import LAST_EVENT_ID, SESSION_ID

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_NEVER_FORWARDED = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        LAST_EVENT_ID,
        SESSION_ID,
    }
)


def _field_names(names: Iterable[str]) -> frozenset[bytes]:
    if isinstance(names, str):
        raise ConfigError(f"{names!r} is one header where several are meant; write [{names!r}]")
    if wrong := [name for name in names if not _TOKEN.fullmatch(name.strip())]:
        raise ConfigError(f"{wrong[0]!r} is no header name; write for example Authorization")
    fields = frozenset(name.strip().lower().encode("latin-1") for name in names)
    if refused := fields & _NEVER_FORWARDED:
        raise ConfigError(f"{min(refused).decode()} cannot be forwarded; it belongs to one connection or session")
    return fields


@attrs.frozen(kw_only=True)
class EndpointConfig:
    """How requests to the MCP endpoint are treated."""

    max_body_size: int = attrs.field(default=4 * 1024 * 1024, validator=attrs.validators.ge(1))
    """Bytes of a request body; a longer one is answered with 413."""

    max_json_depth: int = attrs.field(default=128, validator=attrs.validators.ge(1))
    """How deep arrays and objects of a request body may be nested."""

    body_timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds a client has to send its request body."""

    initialize_timeout: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Seconds the upstream has to finish its answer to ``initialize`` once it has begun it."""

    heartbeat_interval: float = attrs.field(default=15.0, validator=attrs.validators.gt(0))
    """Seconds of silence on an event stream after which a comment is sent."""

    forward_headers: frozenset[bytes] = attrs.field(default=(), converter=_field_names)
    """Request headers that go upstream beside the usual: the only way for credentials."""
