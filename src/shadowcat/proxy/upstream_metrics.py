"""The metrics of the servers behind a proxy, and of the ways to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from ..resilience import CircuitState
from ..transport import Upstream
from ..transport.upstream import Http1TransportStatistics, HttpUpstream, PipeStatistics, PipeUpstream
from ..upstreams import Endpoint, EndpointStatistics, Health, UpstreamSet, UpstreamSetStatistics
from .families import counters, gauges

_LABELS = ("upstream", "endpoint")

_CIRCUITS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}

Place = tuple[str, ...]
"""The name of a server, and that of its endpoint."""


def upstream_metrics(upstreams: Mapping[str, UpstreamSet]) -> Iterator[Metric]:
    """Yield what there is to tell of *upstreams*, which are by name."""
    leaves = dict(_leaves(upstreams))
    pools = {
        place: statistics
        for place, leaf in leaves.items()
        if isinstance(leaf, HttpUpstream) and (statistics := leaf.statistics()) is not None
    }
    yield from _connections(pools)
    yield from _children({place: leaf.statistics() for place, leaf in leaves.items() if isinstance(leaf, PipeUpstream)})
    yield from _endpoints(dict(_endpoints_of(upstreams)))
    yield from _sets({(name,): found.statistics() for name, found in upstreams.items()})


def _leaves(upstreams: Mapping[str, UpstreamSet]) -> Iterator[tuple[Place, Upstream]]:
    for place, endpoint in _endpoints_of(upstreams):
        yield place, endpoint.upstream


def _endpoints_of(upstreams: Mapping[str, UpstreamSet]) -> Iterator[tuple[Place, Endpoint]]:
    for name, found in upstreams.items():
        yield from (((name, endpoint.name), endpoint) for endpoint in found.endpoints)


def _connections(pools: Mapping[Place, Http1TransportStatistics]) -> Iterator[Metric]:
    states = {(*place, "idle"): pool.idle for place, pool in pools.items()}
    states |= {(*place, "busy"): pool.open - pool.idle for place, pool in pools.items()}
    yield gauges("upstream_connections", "Connections to servers now", (*_LABELS, "state"), states)
    opened = {place: pool.opened_total for place, pool in pools.items()}
    yield counters("upstream_connections_opened", "Connections made to servers", _LABELS, opened)
    reused = {place: pool.reused_total for place, pool in pools.items()}
    yield counters("upstream_connections_reused", "Requests on connections that had been kept", _LABELS, reused)


def _children(pipes: Mapping[Place, PipeStatistics]) -> Iterator[Metric]:
    running = {place: pipe.open for place, pipe in pipes.items()}
    text = "Servers that run as children, or streams to those not reached by streamable HTTP"
    yield gauges("children_running", text, _LABELS, running)
    spare = {place: pipe.spares for place, pipe in pipes.items()}
    yield gauges("children_spare", "Of those, the ones that wait for a session", _LABELS, spare)
    started = {place: pipe.opened for place, pipe in pipes.items()}
    yield counters("children_started", "Children started, or streams opened", _LABELS, started)
    died = {place: pipe.broken for place, pipe in pipes.items()}
    yield counters("children_died", "Of those, the ones that ended by themselves", _LABELS, died)
    unused = {(*place, "late"): pipe.late for place, pipe in pipes.items()}
    unused |= {(*place, "dropped"): pipe.dropped for place, pipe in pipes.items()}
    unused |= {(*place, "garbage"): pipe.garbage for place, pipe in pipes.items()}
    text = "What children said that nobody waited for, that could be given to nobody, or that was no message"
    yield counters("children_unused_messages", text, (*_LABELS, "kind"), unused)


def _endpoints(endpoints: Mapping[Place, Endpoint]) -> Iterator[Metric]:
    found: dict[Place, EndpointStatistics] = {place: each.statistics() for place, each in endpoints.items()}
    healthy = {place: each.health is Health.HEALTHY for place, each in found.items()}
    yield gauges("endpoint_healthy", "Whether the checks say that a server is well", _LABELS, healthy)
    draining = {place: each.is_draining for place, each in found.items()}
    yield gauges("endpoint_draining", "Whether a server gets no new sessions", _LABELS, draining)
    in_flight = {place: each.in_flight for place, each in found.items()}
    yield gauges("endpoint_in_flight", "Requests that a server is at work on", _LABELS, in_flight)
    requests = {place: each.requests for place, each in found.items()}
    yield counters("endpoint_requests", "Requests sent to a server", _LABELS, requests)
    failures = {place: each.failures for place, each in found.items()}
    yield counters("endpoint_failures", "Of those, the ones that failed by its fault", _LABELS, failures)
    circuits = {place: _CIRCUITS[each.circuit] for place, each in found.items()}
    yield gauges("circuit_state", "0 closed, 1 half open, 2 open", _LABELS, circuits)
    opened = {place: each.circuit.opened for place, each in endpoints.items()}
    yield counters("circuit_opened", "Times that a circuit has opened", _LABELS, opened)


def _sets(found: Mapping[tuple[str], UpstreamSetStatistics]) -> Iterator[Metric]:
    label = ("upstream",)
    waiting = {name: each.waiting for name, each in found.items()}
    yield gauges("upstream_waiting", "Calls that wait for a place at a server", label, waiting)
    unserved = {(*name, "full"): each.refused for name, each in found.items()}
    unserved |= {(*name, "waited"): each.timed_out for name, each in found.items()}
    text = "Calls refused because the queue for a server was full, or that waited there in vain"
    yield counters("upstream_unserved", text, (*label, "reason"), unserved)
    retries = {name: each.retries for name, each in found.items()}
    yield counters("upstream_retries", "Requests that an endpoint never saw, sent to another", label, retries)
    homeless = {name: each.homeless for name, each in found.items()}
    text = "Requests in sessions whose endpoint was dead or gone"
    yield counters("upstream_homeless", text, label, homeless)
