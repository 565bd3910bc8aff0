"""Our parser and h11, each reading the same bytes as a whole conversation."""

from __future__ import annotations

from typing import Any

import attrs
import h11

from shadowcat.transport.downstream.body import ChunkedBody, LengthBody
from shadowcat.transport.downstream.head import Refused, RequestHead, can_begin, parse_head


@attrs.frozen
class Reading:
    """What the bytes said."""

    requests: list[tuple[Any, ...]]
    """Method, target, version, headers and body of each complete one."""
    refused: int
    """The status of the refusal it ended with; 0 if it ended with a complete request or in one."""


def read_ours(data: bytes, step: int = 1 << 30) -> Reading:
    """Read *data*, given the body decoder in pieces of *step* bytes."""
    requests = []
    while True:
        data = data.removeprefix(b"\r\n")
        if data and not can_begin(data[0]):
            return Reading(requests, 400)
        if (end := data.find(b"\r\n\r\n") + 4) < 4:
            break
        try:
            head = parse_head(data[:end])
            body, rest = read_body(head, data[end:], step)
        except Refused as exc:
            return Reading(requests, exc.status)
        if body is None:
            break
        requests.append((head.method, head.target, head.version, head.headers, body))
        data = rest
        if not head.keeps_alive:
            break
    return Reading(requests, 0)


def read_body(head: RequestHead, data: bytes, step: int) -> tuple[bytes | None, bytes]:
    decoder = ChunkedBody() if head.length is None else LengthBody(head.length)
    body, pending = b"", b""
    while not decoder.is_complete:
        if not data:
            return None, b""
        part, pending = decoder.decode(pending + data[:step])
        body, data = body + part, data[step:]
    return body, pending + data


def read_h11(data: bytes) -> Reading:
    requests: list[tuple[Any, ...]] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head, body = None, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            return Reading(requests, exc.error_status_hint)
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            version = head.http_version.decode()
            headers = [(bytes(name), bytes(value)) for name, value in head.headers]
            requests.append((head.method.decode(), bytes(head.target), version, headers, body))
            # Any refusal will do: it declines a change of protocols.
            connection.send(h11.Response(status_code=405, headers=[(b"content-length", b"0")]))
            connection.send(h11.EndOfMessage())
            if {connection.our_state, connection.their_state} != {h11.DONE}:
                return Reading(requests, 0)
            connection.start_next_cycle()
        else:
            return Reading(requests, 0)
