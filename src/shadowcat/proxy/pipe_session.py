"""The legacy session of a client on a pipe."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from ..protocol import LEGACY_VERSIONS, PROTOCOL_VERSION, SESSION_ID, Response, read_value


@attrs.define(eq=False)
class PipeSession:
    """A session, and what each request in it has to say."""

    headers: Mapping[bytes, bytes]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancelled to end what listens in it."""

    is_listening: bool = False

    @classmethod
    def opened_by(cls, base: Mapping[bytes, bytes], session_id: bytes, response: Response | None) -> PipeSession:
        """Return the session that the answer to ``initialize`` opens.

        Args:
            base: The headers of every request on the pipe.
        """
        headers = {**base, SESSION_ID: session_id}
        result = read_value(response.result) if response is not None else None
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        if version in LEGACY_VERSIONS:
            headers[PROTOCOL_VERSION] = version.encode()
        return cls(headers)
