"""Who is owed what on a pipe that several callers share.

Callers choose ids and progress tokens of their own, and two may choose the same.
So each request goes upstream under an integer of ours, which is its progress token
too, and what comes back is given the caller's again.  Everything else of a message
stays as it was: `replace_id` says what that means.
"""

from __future__ import annotations

import itertools
from typing import Final, Generic, TypeVar

import attrs
import msgspec

from .jsonrpc import Notification, RawId, Request, Response, cancelled_id, read_value, replace_cancelled_id, replace_id

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
_TOKEN: Final = "progressToken"

_Members = dict[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(_Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

OwnerT = TypeVar("OwnerT")


@attrs.define(eq=False)
class Call(Generic[OwnerT]):
    """A request that is under way."""

    own_id: RawId
    """Its id upstream, and its progress token."""

    caller_id: RawId
    token: bytes | None
    """The caller's progress token, as JSON text."""

    method: str
    owner: OwnerT


class Correlation(Generic[OwnerT]):
    """The requests under way on one pipe, each with whoever waits for it.

    What it takes to find one does not depend on how many there are.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._calls: dict[RawId, Call[OwnerT]] = {}
        self._by_caller_id: dict[RawId, dict[RawId, Call[OwnerT]]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def calls(self) -> list[Call[OwnerT]]:
        """Those under way, oldest first."""
        return list(self._calls.values())

    @property
    def sole(self) -> Call[OwnerT] | None:
        """The one that is under way, if it is the only one."""
        return next(iter(self._calls.values())) if len(self._calls) == 1 else None

    @property
    def newest(self) -> Call[OwnerT] | None:
        """The one that began last, if any is under way."""
        return next(reversed(self._calls.values()), None)

    def admit(self, request: Request, text: bytes, owner: OwnerT) -> tuple[Call[OwnerT], bytes]:
        """Take note of a caller's request; return it, and its text as it goes upstream."""
        own_id = b"%d" % next(self._numbers)
        members = _decode_members(text)
        members["id"] = msgspec.Raw(own_id)
        token = _replace_token(members, own_id) if _may_have(_TOKEN, request.params) else None
        call = Call(own_id, request.id, token, request.method, owner)
        self._calls[own_id] = call
        self._by_caller_id.setdefault(request.id, {})[own_id] = call
        return call, _encode(members)

    def forget(self, call: Call[OwnerT]) -> bool:
        """Wait for the answer no more; say whether it was waited for."""
        if self._calls.pop(call.own_id, None) is None:
            return False
        same = self._by_caller_id[call.caller_id]
        del same[call.own_id]
        if not same:
            del self._by_caller_id[call.caller_id]
        return True

    def settle(self, response: Response, text: bytes) -> tuple[Call[OwnerT], bytes] | None:
        """Return the request that *response* answers, and the text for the caller; None if nobody waits."""
        call = self._find(response.id)
        if call is None:
            return None
        self.forget(call)
        if _may_have(SUBSCRIPTION_ID, response.result):
            text = _translate_meta(text, "result", call.caller_id)
        return call, replace_id(text, call.caller_id)

    def match_progress(self, note: Notification, text: bytes) -> tuple[Call[OwnerT], bytes] | None:
        """Return the request that ``notifications/progress`` is about, and the text for the caller.

        None if nobody waits for that request, or it asked for no progress.
        """
        params = _members_of(note.params)
        call = self._find(_raw(params.get(_TOKEN)))
        if call is None or call.token is None:
            return None
        params[_TOKEN] = msgspec.Raw(call.token)
        return call, _with_params(text, params)

    def match_subscription(self, note: Notification, text: bytes) -> tuple[Call[OwnerT], bytes] | None:
        """Return the ``subscriptions/listen`` that a notification is for, and the text for the caller."""
        if not _may_have(SUBSCRIPTION_ID, note.params):
            return None
        meta = _members_of(_raw(_members_of(note.params).get("_meta")))
        call = self._find(_raw(meta.get(SUBSCRIPTION_ID)))
        return None if call is None else (call, _translate_meta(text, "params", call.caller_id))

    def match_cancelled(self, note: Notification, text: bytes) -> tuple[Call[OwnerT], bytes] | None:
        """Return the request of ours that the server cancels, and the text for the caller."""
        call = self._find(cancelled_id(note.params))
        return None if call is None else (call, replace_cancelled_id(text, call.caller_id))

    def cancel(self, note: Notification, text: bytes) -> tuple[Call[OwnerT], bytes] | None:
        """Return the request that a caller cancels, and the text as it goes upstream.

        None if there is none with that id as written, or several: then nobody knows which.
        """
        named = self._by_caller_id.get(cancelled_id(note.params) or b"", {})
        if len(named) != 1:
            return None
        call = next(iter(named.values()))
        return call, replace_cancelled_id(text, call.own_id)

    def _find(self, own_id: RawId | None) -> Call[OwnerT] | None:
        if own_id is None:
            return None
        found = self._calls.get(own_id)
        if found is None and not own_id.isdigit():
            # 1.0 is 1; servers whose language has one kind of number write it so.
            value = read_value(own_id)
            if isinstance(value, float) and value.is_integer():
                found = self._calls.get(b"%d" % int(value))
        return found


def cancellation_of(call: Call[OwnerT], reason: str) -> bytes:
    """Return the text of a ``notifications/cancelled`` that tells the server nobody waits for *call*."""
    params = {"requestId": msgspec.Raw(call.own_id), "reason": reason}
    return _encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


def split_batch(text: bytes) -> list[bytes] | None:
    """Return the texts of the messages in a batch; None if *text* is no JSON array."""
    if text.lstrip(b" \t\r\n")[:1] != b"[":
        return None
    try:
        return [bytes(entry) for entry in _decode_list(text)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def wants_logs(params: bytes) -> bool:
    """Whether a modern request asks for log messages while it is under way."""
    return _may_have(_LOG_LEVEL, params) and _LOG_LEVEL in _members_of(_raw(_members_of(params).get("_meta")))


def _may_have(key: str, text: bytes) -> bool:
    """Tell cheaply when a member cannot be there; a key may also be spelled with escapes."""
    return key.encode() in text or b"\\" in text


def _raw(value: msgspec.Raw | None) -> bytes | None:
    return None if value is None else bytes(value)


def _members_of(text: bytes | None) -> _Members:
    try:
        return _decode_members(text) if text else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _replace_token(members: _Members, own_token: bytes) -> bytes | None:
    params = _members_of(_raw(members.get("params")))
    meta = _members_of(_raw(params.get("_meta")))
    token = _raw(meta.get(_TOKEN))
    if token is None or token[:1] not in b'"-0123456789':
        return None
    meta[_TOKEN] = msgspec.Raw(own_token)
    params["_meta"] = msgspec.Raw(_encode(meta))
    members["params"] = msgspec.Raw(_encode(params))
    return token


def _with_params(text: bytes, params: _Members) -> bytes:
    members = _decode_members(text)
    members["params"] = msgspec.Raw(_encode(params))
    return _encode(members)


def _translate_meta(text: bytes, member: str, subscription_id: RawId) -> bytes:
    """Return *text* with the subscription id in the ``_meta`` of *member* replaced, if there is one."""
    members = _decode_members(text)
    inner = _members_of(_raw(members.get(member)))
    meta = _members_of(_raw(inner.get("_meta")))
    if SUBSCRIPTION_ID not in meta:
        return text
    meta[SUBSCRIPTION_ID] = msgspec.Raw(subscription_id)
    inner["_meta"] = msgspec.Raw(_encode(meta))
    members[member] = msgspec.Raw(_encode(inner))
    return _encode(members)
