"""The settings of servers: of the one without a name, of those with one, and of which is meant."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ..proxy import ServerRule
from ..resilience import CircuitConfig
from ..transport.upstream import HttpUpstreamConfig, StdioConfig
from ..upstreams import (
    CheckConfig,
    CheckKind,
    ConcurrencyConfig,
    HealthConfig,
    Strategy,
    UpstreamEndpointConfig,
    UpstreamSetConfig,
)
from .kind import BOOLEAN, SECONDS, TEXT, WHOLE, WORDS, Kind, choice
from .setting import REVERSE, Setting

CHECKS = (*(kind.value for kind in CheckKind), "none")
STRATEGIES = tuple(strategy.value for strategy in Strategy)


def _setting(key: str, kind: Kind, text: str, owner: type | None = None, **rest: object) -> Setting:
    return Setting(
        key=key,
        kind=kind,
        help=text,
        owner=owner,
        commands=frozenset({REVERSE}),
        in_environment=False,
        is_live=True,
        **rest,  # type: ignore[arg-type]
    )


SET = (
    _setting("upstream.strategy", choice(*STRATEGIES),
             "which of several endpoints gets a new session, or a request without one", UpstreamSetConfig),
    _setting("upstream.drain_timeout", SECONDS,
             "seconds that calls at an endpoint have to finish when it is taken out", UpstreamSetConfig),
    _setting("upstream.endpoints[].name", TEXT,
             "what no other endpoint of the server is called; sessions that are kept name it, so it should stay",
             UpstreamEndpointConfig),
    _setting("upstream.endpoints[].url", TEXT, "where it is; all else is as the server says", HttpUpstreamConfig),
    _setting("upstream.endpoints[].command", WORDS, "what is run, instead of a URL", StdioConfig),
    _setting("upstream.endpoints[].weight", WHOLE, "how much of the requests it gets, relative to the others",
             UpstreamEndpointConfig),
    _setting("upstream.health.check", choice(*CHECKS),
             "how endpoints are checked: by server/discover (mcp), by GET of a path (http), by connecting (tcp)",
             CheckConfig, field="kind"),
    _setting("upstream.health.path", TEXT, "what is asked for over HTTP", CheckConfig),
    _setting("upstream.health.interval", SECONDS, "seconds from one check to the next", CheckConfig),
    _setting("upstream.health.timeout", SECONDS, "seconds that a check may take", CheckConfig),
    _setting("upstream.health.unhealthy_after", WHOLE, "checks in a row that must fail", HealthConfig),
    _setting("upstream.health.healthy_after", WHOLE, "checks in a row that must succeed, once it is unhealthy",
             HealthConfig),
    _setting("upstream.health.slow_start", SECONDS,
             "seconds over which one that has become healthy gets its share", HealthConfig),
    _setting("upstream.circuit.enabled", BOOLEAN, "whether an endpoint that fails is given a rest", fallback=True),
    _setting("upstream.circuit.max_failures", WHOLE, "failures in a row that open it", CircuitConfig),
    _setting("upstream.circuit.max_failure_rate", SECONDS,
             "the part of the calls in the window that may fail before it opens", CircuitConfig),
    _setting("upstream.circuit.min_calls", WHOLE, "calls in the window below which their rate says nothing",
             CircuitConfig),
    _setting("upstream.circuit.window", SECONDS, "seconds over which the rate is counted", CircuitConfig),
    _setting("upstream.circuit.open_time", SECONDS, "seconds that it stays open before probes are let through",
             CircuitConfig),
    _setting("upstream.circuit.max_probes", WHOLE,
             "probes that are let through, and have to be answered for it to close", CircuitConfig),
    _setting("upstream.concurrency.max_in_flight", WHOLE, "calls at one endpoint; as many as come if it is not set",
             ConcurrencyConfig),
    _setting("upstream.concurrency.max_queue", WHOLE, "calls that wait for their turn; 503 for more",
             ConcurrencyConfig),
    _setting("upstream.concurrency.queue_timeout", SECONDS, "seconds that each of them waits; then 503",
             ConcurrencyConfig),
)  # fmt: skip
"""What one server may have that stands at several addresses, or is watched."""

RULES = (
    _setting("rules[].server", TEXT, "a name of [servers], or default for the one without a name", ServerRule),
    _setting("rules[].host", TEXT, "the Host header, in any case; without a port it matches any", ServerRule),
    _setting("rules[].header", TEXT, "the name of a request header", ServerRule),
    _setting("rules[].value", TEXT, "what the header has to be, exactly", ServerRule),
)

SHARED = ("forward_headers", "header_env", "max_children", "spares")
"""What is said in ``[upstream]`` and holds for all servers."""


def with_names(upstream: tuple[Setting, ...]) -> Iterator[Setting]:
    """Iterate over the settings of a server with a name, which are those of *upstream* without one."""
    for setting in upstream:
        if setting.name not in SHARED:
            key = setting.key.replace("upstream.", "servers.*.", 1)
            yield attrs.evolve(
                setting, key=key, flag=None, commands=frozenset({REVERSE}), in_environment=False, is_live=True
            )
