"""What a POST to the MCP endpoint is: its era, and what it asks for."""

from __future__ import annotations

import attrs

from ..errors import HeaderMismatch, InvalidRequest
from .headers import METHOD, PROTOCOL_VERSION, Headers, check_mirrored, declared_version
from .jsonrpc import Batch, Message, Request, Response
from .methods import INITIALIZE
from .versions import LEGACY_VERSIONS, Era, era_of


@attrs.frozen
class Initialize:
    """A legacy client opens a session."""

    request: Request


@attrs.frozen
class LegacyMessage:
    """Something inside a legacy session."""

    message: Message | Batch
    version: str | None
    """What ``MCP-Protocol-Version`` says; None if there is none."""


@attrs.frozen
class ModernMessage:
    """A message that stands for itself."""

    message: Message


Route = Initialize | LegacyMessage | ModernMessage


def is_modern(headers: Headers) -> bool:
    """Whether ``MCP-Protocol-Version`` names a modern revision."""
    return era_of(_version(headers) or "") is Era.MODERN


def classify(headers: Headers, message: Message | Batch) -> Route:
    """Return the route of *message*.

    The header decides, as the specification has it; a body that declares a
    version in ``_meta`` is modern even so, because no legacy client does that.
    A version that no revision has is sent on when the request is modern in form:
    the upstream answers with the versions that it speaks.

    Raises:
        HeaderMismatch: A modern request whose headers do not mirror its body.
        InvalidRequest: A batch or a response in the modern era, or a batch that
            opens a session.
    """
    version = _version(headers)
    declared = declared_version(message.params) if isinstance(message, Request) else None
    if is_modern(headers) or declared is not None:
        return _classify_modern(headers, message, declared)
    if version is not None and version not in LEGACY_VERSIONS and METHOD in headers:
        return _classify_modern(headers, message, declared)
    match message:
        case Request(method="initialize"):
            return Initialize(message)
        case Batch(messages) if any(isinstance(m, Request) and m.method == INITIALIZE for m in messages):
            raise InvalidRequest("initialize must not be part of a batch; send it alone")
        case _:
            return LegacyMessage(message, version)


def _classify_modern(headers: Headers, message: Message | Batch, declared: str | None) -> ModernMessage:
    if isinstance(message, Batch):
        raise InvalidRequest("this protocol version has no batches; send one message a request")
    if isinstance(message, Request):
        if declared is not None and PROTOCOL_VERSION not in headers:
            raise HeaderMismatch("the MCP-Protocol-Version header is missing; it must mirror the body", message.id)
        check_mirrored(headers, message, declared)
    if isinstance(message, Response):
        raise InvalidRequest("this protocol version has no responses of clients; send a request")
    return ModernMessage(message)


def _version(headers: Headers) -> str | None:
    value = headers.get(PROTOCOL_VERSION)
    return None if value is None else value.decode("latin-1").strip()
