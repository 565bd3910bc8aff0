"""The routes of the servers behind the proxy."""

from __future__ import annotations

import logging

import trio

from ..errors import PathNotFound
from ..upstreams import Endpoint
from .desk import Desk
from .route import Call
from .view import view_endpoint

log = logging.getLogger(__name__)


async def list_upstreams(desk: Desk, _call: Call) -> object:
    """Return every server and its endpoints."""
    await trio.lowlevel.checkpoint()
    return {
        "servers": [
            {"server": name, "endpoints": [view_endpoint(endpoint) for endpoint in upstream.endpoints]}
            for name, upstream in desk.app.upstream_sets.items()
        ]
    }


async def drain(desk: Desk, call: Call) -> object:
    """Give an endpoint no new sessions."""
    await trio.lowlevel.checkpoint()
    endpoint = _find(desk, call)
    endpoint.is_draining = True
    return _told(endpoint, call, "drained")


async def enable(desk: Desk, call: Call) -> object:
    """Give an endpoint new sessions again."""
    await trio.lowlevel.checkpoint()
    endpoint = _find(desk, call)
    endpoint.is_draining = False
    return _told(endpoint, call, "enabled")


async def reset_circuit(desk: Desk, call: Call) -> object:
    """Close the circuit of an endpoint."""
    await trio.lowlevel.checkpoint()
    endpoint = _find(desk, call)
    endpoint.circuit.reset()
    endpoint.on_change(endpoint)
    return _told(endpoint, call, "sent requests again")


def _told(endpoint: Endpoint, call: Call, done: str) -> object:
    log.info("endpoint %s of %s is %s by way of the admin API", endpoint.name, call.path["server"], done)
    return view_endpoint(endpoint)


def _find(desk: Desk, call: Call) -> Endpoint:
    upstream = desk.app.upstream_sets.get(call.path["server"])
    for endpoint in () if upstream is None else upstream.endpoints:
        if endpoint.name == call.path["endpoint"]:
            return endpoint
    raise PathNotFound(
        "no server has this endpoint; list those that can be steered: GET /v1/upstreams, or shadowcat upstreams list"
    )
