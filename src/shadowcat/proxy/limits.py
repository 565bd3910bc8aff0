"""Whether a client may send what it sends: every limit that a message comes under, at once."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from hashlib import blake2b

import attrs

from ..errors import TooManyRequests
from ..protocol import (
    CANCELLED,
    INITIALIZE,
    SESSION_ID,
    TOOLS_CALL,
    Batch,
    Headers,
    Message,
    Notification,
    Response,
    tool_name,
)
from ..resilience import MICROSECONDS, Allowance, RateLimit, RateLimiter, allowance_at, now_in_microseconds
from ..session import RateCounter, RateTake
from ..transport import Exchange
from .client_address import ClientAddresses, counted_as
from .limits_config import OTHERS, LimitsConfig
from .shared_limits import SharedLimits

_MAX_KEY = 128
_OFF = LimitsConfig()


@attrs.frozen
class LimitStatistics:
    """What one limit has done so far."""

    allowed: int
    """Messages that it let pass, and all others as well."""

    refused: int
    """Messages that it stood in the way of."""

    keys: int
    """Clients, sessions, methods or tools that are counted in this process now."""


class NamedLimit:
    """A limit, and who has used up how much of it."""

    __slots__ = ("allowed", "interval", "limit", "name", "numbers", "per_second", "policy", "quoted", "refused", "span")

    def __init__(self, name: str, limit: RateLimit, max_keys: int) -> None:
        self.name = name
        self.limit = limit
        # At hand, because every message comes by here.
        self.interval, self.span, self.per_second = limit.interval, limit.span, limit.ticks * MICROSECONDS
        self.numbers = RateLimiter(limit, max_keys)
        self.allowed = self.refused = 0
        self.quoted = _quoted(name)
        burst = b"" if limit.burst == limit.count else b";shadowcat-burst=%d" % limit.burst
        self.policy = (b"ratelimit-policy", b"%s;q=%d;w=%d%s" % (self.quoted, limit.count, limit.period, burst))

    def take_of(self, key: str, cost: int) -> RateTake:
        """Return what *cost* messages take from the allowance that all proxies share."""
        limit = self.limit
        # With the limit in the key, another limit begins anew, wherever it comes from.
        name = f"{self.name}:{limit.count}/{limit.period}/{limit.burst}:{key}"
        return RateTake(name, limit.ticks, limit.interval * cost, limit.span)

    def statistics(self) -> LimitStatistics:
        """Return a snapshot."""
        return LimitStatistics(self.allowed, self.refused, len(self.numbers))


Need = tuple[NamedLimit, str, int]
"""A limit, who is counted, and how many messages there are."""


class Limits:
    """All limits of one proxy.  Unless the store counts for several, they hold for this process.

    Args:
        counter: Counts instead, for all proxies that share it.  While it cannot, each process counts for itself.
    """

    def __init__(self, config: LimitsConfig = _OFF, counter: RateCounter | None = None) -> None:
        self._shared = None if counter is None else SharedLimits(counter)
        self._named: dict[str, NamedLimit] = {}
        self.reconfigure(config)

    def reconfigure(self, config: LimitsConfig) -> None:
        """Let *config* hold from now on.  Who is counted by a limit that stays as it was is not let off."""
        named = {}
        for name, limit in config.by_name().items():
            kept = self._named.get(name)
            named[name] = new = NamedLimit(name, limit, config.max_keys)
            if kept is not None:
                new.allowed, new.refused = kept.allowed, kept.refused
                if kept.limit == limit:
                    new.numbers = kept.numbers
                    new.numbers.max_keys = config.max_keys
        self._named = named
        self.is_active = bool(named)
        """Whether there is anything to ask about."""
        self._total, self._per_client = named.get("total"), named.get("per_client")
        self._per_session = named.get("per_session")
        self._methods = {name: named[f"per_method.{name}"] for name in config.per_method}
        self._tools = {name: named[f"per_tool.{name}"] for name in config.per_tool}
        self._addresses = ClientAddresses(config.trusted_proxies, config.client_header.encode())

    def statistics(self) -> Mapping[str, LimitStatistics]:
        """Return what each limit has done, by name."""
        return {name: limit.statistics() for name, limit in self._named.items()}

    @property
    def failures(self) -> int:
        """How often a store that counts was asked and did not."""
        return 0 if self._shared is None else self._shared.failures

    def address_of(self, peer: str | None, headers: Headers) -> str | None:
        """Return the address of a client, whoever stands in between, if that is to be believed; as `client_of`."""
        return self._addresses.find(peer, headers)

    def client_of(self, peer: str | None, headers: Headers) -> str | None:
        """Return as whom a client is counted; None if it is not.

        Args:
            peer: The address that its connection comes from.
            headers: Those of its request.
        """
        found = self._addresses.find(peer, headers)
        return None if found is None else counted_as(found)

    def admit(self, exchange: Exchange, message: Message | Batch | None) -> Awaitable[None] | None:
        """Count *message*, or the request itself if it brings none; it may go on if nothing is raised.

        Not a checkpoint.  If something is returned, it is not decided yet: wait for that.  That is a checkpoint;
        if cancelled, the message may have been counted.

        Raises:
            TooManyRequests: A limit refuses it.  No other has counted it.
        """
        needs = self._needs(exchange, message)
        if not needs:
            return None
        if self._shared is not None and self._shared.is_asked:
            return self._admit_shared(self._shared, exchange, needs)
        self._admit_here(exchange, needs)
        return None

    def _needs(self, exchange: Exchange, message: Message | Batch | None) -> Sequence[Need]:
        if message is None:
            client = self._counted_client(exchange)
            return () if client is None else (client,)
        if not isinstance(message, Batch):
            return self._needs_of(exchange, message)
        costs: dict[tuple[NamedLimit, str], int] = {}
        for entry in message.messages:
            for limit, key, cost in self._needs_of(exchange, entry):
                costs[limit, key] = costs.get((limit, key), 0) + cost
        return [(limit, key, cost) for (limit, key), cost in costs.items()]

    def _counted_client(self, exchange: Exchange) -> Need | None:
        if self._per_client is None:
            return None
        client = self.client_of(exchange.peer, exchange.headers)
        return None if client is None else (self._per_client, client, 1)

    def _needs_of(self, exchange: Exchange, message: Message) -> Sequence[Need]:
        if isinstance(message, Response) or is_never_refused(message):
            return ()
        needs: list[Need] = []
        if self._total is not None:
            needs.append((self._total, "", 1))
        if (client := self._counted_client(exchange)) is not None:
            needs.append(client)
        method = message.method
        if self._per_session is not None and method != INITIALIZE and SESSION_ID in exchange.headers:
            needs.append((self._per_session, _short(exchange.headers[SESSION_ID].decode("latin-1")), 1))
        if self._methods and (limit := self._methods.get(method) or self._methods.get(OTHERS)) is not None:
            needs.append((limit, _short(method), 1))
        if self._tools and method == TOOLS_CALL and (tool := tool_name(message.params)) is not None:
            if (limit := self._tools.get(tool) or self._tools.get(OTHERS)) is not None:
                needs.append((limit, _short(tool), 1))
        return needs

    def _admit_here(self, exchange: Exchange, needs: Sequence[Need]) -> None:
        now = now_in_microseconds()
        levels = [named.numbers.level(key, now) for named, key, _ in needs]
        self._decide(exchange, needs, levels)
        for (named, key, cost), level in zip(needs, levels, strict=True):
            named.numbers.use(key, level + cost * named.interval, now)

    async def _admit_shared(self, shared: SharedLimits, exchange: Exchange, needs: Sequence[Need]) -> None:
        taken = await shared.take([named.take_of(key, cost) for named, key, cost in needs])
        if taken is None:
            self._admit_here(exchange, needs)
        else:
            self._decide(exchange, needs, taken.levels)

    def _decide(self, exchange: Exchange, needs: Sequence[Need], levels: Sequence[int]) -> None:
        """Count what may pass, and tell the client of the limit that it is nearest to; or raise."""
        tightest, least, used = needs[0][0], -1, 0
        for (named, _, cost), level in zip(needs, levels, strict=True):
            after = level + cost * named.interval
            if after > named.span:
                raise _refuse(exchange, needs, levels)
            remaining = (named.span - after) // named.interval
            if least < 0 or remaining < least:
                tightest, least, used = named, remaining, after
        for named, _, cost in needs:
            named.allowed += cost
        until_next = used - tightest.span + (least + 1) * tightest.interval
        _tell(exchange, tightest, least, -(-until_next // tightest.per_second))


def is_never_refused(message: Message) -> bool:
    """Whether *message* belongs to a call under way, which it would break if it did not arrive."""
    return isinstance(message, Response) or (isinstance(message, Notification) and message.method == CANCELLED)


def _refuse(exchange: Exchange, needs: Sequence[Need], levels: Sequence[int]) -> TooManyRequests:
    """Tell the client of the limit that it has to wait for longest, and return its error."""
    refusals: list[tuple[NamedLimit, int, Allowance]] = []
    for (named, _, cost), level in zip(needs, levels, strict=True):
        if level + cost * named.interval > named.span:
            named.refused += cost
            refusals.append((named, cost, allowance_at(named.limit, level, cost)))
    named, cost, allowance = max(refusals, key=lambda refusal: refusal[2].retry_after)
    _tell(exchange, named, allowance.remaining, math.ceil(min(allowance.retry_after, allowance.reset_after)))
    return _refusal(named, cost, allowance)


def _tell(exchange: Exchange, named: NamedLimit, remaining: int, seconds: int) -> None:
    """Add the header fields of draft-ietf-httpapi-ratelimit-headers-10 to the answer."""
    state = (b"ratelimit", b"%s;r=%d;t=%d" % (named.quoted, remaining, seconds))
    exchange.extra_headers = (*exchange.extra_headers, named.policy, state)


def _refusal(named: NamedLimit, cost: int, allowance: Allowance) -> TooManyRequests:
    limit = named.limit
    if cost > limit.burst:
        text = f"{cost} messages at once are more than the limit {named.name} ({limit}) ever lets pass; split the batch"
        return TooManyRequests(text, allowance.reset_after, named.name)
    wait = math.ceil(allowance.retry_after)
    text = f"the limit {named.name} ({limit}) is reached; send this again in {wait} s"
    return TooManyRequests(text, allowance.retry_after, named.name)


def _short(key: str) -> str:
    """Return *key*, or something as good that takes no more room than a key should."""
    if len(key) <= _MAX_KEY:
        return key
    return "#" + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _quoted(name: str) -> bytes:
    plain = name.encode("ascii", "replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%s"' % bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in plain)
